"""Video and audio in and out, through ffmpeg."""
