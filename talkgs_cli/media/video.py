"""Streams video frames out of ffmpeg, one at a time; it never holds a clip in memory.

Frames are uint8 RGB. Colours are converted by the file's own tags when reading (untagged: BT.709
from 720 lines on, else BT.601, as players do), and to tagged BT.709 when writing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import SOUND_AT_ZERO
from talkgs_cli.media.encoding import AUDIO_BITRATE, TAGGED_MP4, even_size, to_bt709, x264
from talkgs_cli.media.ffmpeg import (
    LOCAL_FILES_ONLY,
    Process,
    failure,
    ffmpeg_program,
    file_url,
    has_filter,
    last_line,
    running,
)
from talkgs_cli.media.probe import VideoStream, probe_stream
from talkgs_cli.runtime import atomic_path

HDR_TRANSFERS = {"smpte2084", "arib-std-b67"}
OLD_MATRIX = {"": "bt470bg", "bt470bg": "bt470bg", "smpte170m": "smpte170m"}  # BT.601's two names
UNTAGGED_BT709_LINES = 720  # as players take it
NOTHING_CAME = "received no packets"  # ffmpeg, of an output stream
ANY_DAMAGE = ("-max_error_rate", "1")  # a broken sound must not cost the picture, nor the reverse


def frame_count(duration_s: Fraction, frame_rate: Fraction) -> int:
    """Frames that cover a duration, exactly.

    >>> frame_count(Fraction(10), Fraction(30000, 1001))
    300
    """
    return round(duration_s * frame_rate)


def read_frames(
    path: Path,
    size: tuple[int, int] | None = None,
    frame_rate: Fraction | None = None,
    start_s: float = 0.0,
    frames: int | None = None,
) -> Generator[NDArray[np.uint8]]:
    """Decode a video frame by frame.

    Args:
        path: Any video ffmpeg reads.
        size: (height, width) of the frames; without it, as displayed.
        frame_rate: Constant rate to resample to; without it, every frame as stored.
        start_s: Where to start. A frame that is being shown then comes first.
        frames: Stop after so many.

    Yields:
        [H, W, 3] uint8 RGB.

    Raises:
        BadInput: not a video, or damaged.
    """
    stream = probe_stream(path)
    height, width = size or stream.info.size
    options: dict[str, Any] = {"protocol_whitelist": LOCAL_FILES_ONLY}
    if start_s > 0:
        quarter_frame_s = float(1 / stream.info.frame_rate) / 4  # a rounded start must not skip one
        options["ss"] = max(0.0, start_s - quarter_frame_s)
    picture = to_rgb_size(
        ffmpeg.input(file_url(path), **options)["v:0"], stream, (height, width), frame_rate
    )
    extra = {} if frames is None else {"frames:v": frames}
    timing = {} if frame_rate else {"fps_mode": "passthrough"}
    output = ffmpeg.output(picture, "pipe:", format="rawvideo", pix_fmt="rgb24", **timing, **extra)
    with running(output) as process:
        count = 0
        while (frame := _read_frame(process, height, width)) is not None:
            count += 1
            yield frame
        status = process.finish()
        if count == 0 or status != 0:
            raise BadInput(
                f"{path} is damaged after {count} frames: {last_line(process.said())}.",
                hint="Try to play it, or convert it with another program.",
            )


def _read_frame(process: Process, height: int, width: int) -> NDArray[np.uint8] | None:
    frame = np.empty((height, width, 3), np.uint8)
    space = frame.data.cast("B")
    filled = 0
    while filled < len(space):
        got = process.pipe.readinto(space[filled:])  # type: ignore[attr-defined]
        if not got:
            return None
        filled += got
    return frame


def to_rgb_size(
    picture: Any,
    stream: VideoStream,
    size: tuple[int, int],
    frame_rate: Fraction | None,
    quarter_turns: int = 0,
) -> Any:
    """Filters from a stored picture to a constant rate and square, standard-range pixels.

    Args:
        picture: An ffmpeg-python stream.
        stream: What the file says of itself.
        size: (height, width) wanted.
        frame_rate: Constant rate, or None to keep the frames as they are.
        quarter_turns: How often the picture is turned by 90 degrees, anticlockwise; `size` is that
            of the turned picture.
    """
    if stream.interlaced:
        picture = picture.filter("bwdif", mode="send_frame")
    if frame_rate is not None:
        picture = picture.filter("fps", f"{frame_rate}", start_time=0)
    matrix = stream.matrix
    if stream.transfer in HDR_TRANSFERS and has_filter(ffmpeg_program(), "zscale"):
        picture, matrix = _tone_map(picture, stream), "bt709"
    for _ in range(quarter_turns % 4):
        picture = picture.filter("transpose", "cclock")
    colours = {
        "in_color_matrix": "bt709" if stream.info.size[0] >= UNTAGGED_BT709_LINES else "bt601"
    }
    return picture.filter(
        "scale",
        size[1],
        size[0],
        flags="area+accurate_rnd+full_chroma_int",
        **({} if matrix else colours),
    )


def _tone_map(picture: Any, stream: VideoStream) -> Any:
    """High dynamic range (phones film HLG) down to ordinary BT.709.

    Without all its tags the filter would give up; such curves come with BT.2020.
    """
    untagged = {}
    if not stream.matrix:
        untagged["colorspace"] = "bt2020nc"
    if not stream.primaries:
        untagged["color_primaries"] = "bt2020"
    if untagged:
        picture = picture.filter("setparams", **untagged)
    return (
        picture.filter("zscale", transfer="linear", npl=203)
        .filter("format", "gbrpf32le")
        .filter("zscale", primaries="bt709")
        .filter("tonemap", "mobius", desat=0)
        .filter("zscale", transfer="bt709", matrix="bt709", range="tv")
        .filter("format", "yuv420p")
    )


def transcode(
    source: Path,
    target: Path,
    size: tuple[int, int],
    frame_rate: Fraction,
    crf: int = 12,
    preset: str = "superfast",
    advance: Callable[[int], None] = lambda frames: None,
    quarter_turns: int = 0,
) -> None:
    """Write a video again at a constant rate with its sound, both starting at zero.

    Args:
        source: Any video.
        target: The mp4.
        size: (height, width), both even. Where it is the video's own but for an odd last row or
            column, that is left out, and all other pixels stay as they are.
        frame_rate: Constant rate.
        crf: x264 quality; 12 can't be told from the source by eye.
        preset: x264 speed.
        advance: Told how many more frames are written.
        quarter_turns: How often the picture is turned by 90 degrees, anticlockwise; `size` is that
            of the turned picture.

    Raises:
        BadInput: the source is damaged from its first frame.
        MachineLacks: the target can't be written.
    """
    stream = probe_stream(source)
    read = ffmpeg.input(file_url(source), protocol_whitelist=LOCAL_FILES_ONLY)
    shown = stream.info.size[::-1] if quarter_turns % 2 else stream.info.size
    whole = shown if even_size(shown) == size else size
    picture = to_rgb_size(read["v:0"], stream, whole, frame_rate, quarter_turns)
    if whole != size:
        picture = picture.filter("crop", size[1], size[0], 0, 0, exact=1)
    picture = _from_bt601(picture, stream) or to_bt709(picture, size)
    sound = [read["a:0"].filter("aresample", **SOUND_AT_ZERO)] if stream.info.has_audio else []
    rate = x264(crf, preset, frame_rate)
    with atomic_path(target) as partial:
        for streams in ([picture, *sound], [picture]):
            output = ffmpeg.output(
                *streams,
                file_url(partial),
                **rate,
                g=max(1, round(frame_rate / 2)),  # speak reads it backwards, in small pieces
                acodec="aac",
                audio_bitrate=AUDIO_BITRATE,
            ).global_args("-progress", "pipe:1", "-nostats", *ANY_DAMAGE)
            written, said, failed = _run_counting(output, advance)
            # A sound without a single whole packet spoils the picture's file, too.
            if NOTHING_CAME not in said:
                break
            advance(-written)
        if failed and NOTHING_CAME not in said:
            raise failure(target, said)
        if written == 0:
            raise BadInput(
                f"{source} has no picture that can be decoded: {last_line(said)}.",
                hint="Try to play it, or convert it with another program.",
            )


def _from_bt601(picture: Any, stream: VideoStream) -> Any | None:
    """`to_bt709` of the usual small video: as exact, in no time, where the scaler doubles it all.

    None for any other kind of pixels.
    """
    usual = stream.pixels == "yuv420p" and not stream.full_range and stream.matrix in OLD_MATRIX
    usual = usual and stream.transfer not in HDR_TRANSFERS
    if not usual or (not stream.matrix and stream.info.size[0] >= UNTAGGED_BT709_LINES):
        return None
    # Only the matrix is changed, as by the scaler: the same curve and primaries on both sides.
    old = {"ispace": OLD_MATRIX[stream.matrix], "iprimaries": "bt709", "itrc": "bt709"}
    return picture.filter("colorspace", all="bt709", irange="tv", range="tv", **old)


def _run_counting(output: Any, advance: Callable[[int], None]) -> tuple[int, str, bool]:
    """Run an ffmpeg that reports its progress: frames written, what it said, whether it failed."""
    with running(output) as process:
        written = 0
        for line in process.pipe:
            if line.startswith(b"frame="):
                count = int(line[len(b"frame=") :])
                advance(count - written)
                written = count
        failed = process.finish() != 0
        return written, process.said(), failed


def replace_sound(video: Path, source: Path, earlier_s: float, duration_s: float) -> None:
    """Put the sound of `source` beside the untouched picture of `video`, moved in time.

    Args:
        video: The mp4 to change; it is replaced when all went well.
        source: Any file with sound.
        earlier_s: How much earlier the sound comes; negative: later, led in by silence.
        duration_s: Where the sound ends.
    """
    picture = ffmpeg.input(file_url(video), protocol_whitelist=LOCAL_FILES_ONLY)
    sound = (
        ffmpeg.input(file_url(source), protocol_whitelist=LOCAL_FILES_ONLY)["a:0"]
        .filter("asetpts", f"PTS-({earlier_s:.6f})/TB")
        .filter("aresample", **SOUND_AT_ZERO)
        .filter("apad")
        .filter("atrim", end=f"{duration_s:.6f}")
    )
    with atomic_path(video) as partial:
        output = ffmpeg.output(
            picture["v:0"],
            sound,
            file_url(partial),
            vcodec="copy",
            acodec="aac",
            audio_bitrate=AUDIO_BITRATE,
            movflags=TAGGED_MP4,
        )
        with running(output) as process:
            if process.finish() != 0:
                raise failure(video, process.said())
