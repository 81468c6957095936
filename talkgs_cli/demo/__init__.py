"""The embedded demo speaker: makes its own video with known motion, then runs the commands."""
