"""Says what is in a media file, from what `ffmpeg -i` prints; it decodes nothing.

There is no ffprobe in the pip-installed ffmpeg, hence the reading of text.
"""

from __future__ import annotations

import re
import subprocess
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from talkgs_cli.errors import BadInput
from talkgs_cli.media.ffmpeg import (
    LOCAL_FILES_ONLY,
    ffmpeg_program,
    file_url,
    last_line,
    require_file,
)
from talkgs_cli.types import VideoInfo

NTSC_RATES = tuple(Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120))
STANDARD_RATES = (
    *(Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 120)),
    *NTSC_RATES,
)
COLOUR_TAGS = ("matrix", "primaries", "transfer")  # as ffmpeg prints them, a/b/c
NOT_VIDEO_CODECS = {"ansi", "bintext", "xbin", "idf"}  # text files that ffmpeg can draw


@dataclass(frozen=True)
class VideoStream:
    """What reading the pixels right takes.

    Attributes:
        info: Size, rate, length, sound.
        pixels: ffmpeg's name of the pixel format, or "".
        full_range: Whether black is 0 and white the largest number.
        matrix: Colour matrix as tagged, or "" where it is not.
        primaries: Colour primaries as tagged, or "".
        transfer: Transfer curve as tagged, or "".
        interlaced: Whether two fields make a frame.
    """

    info: VideoInfo
    pixels: str
    full_range: bool
    matrix: str
    primaries: str
    transfer: str
    interlaced: bool


def probe(path: Path) -> VideoInfo:
    """Size as displayed, frame rate, duration and sound of a video.

    Raises:
        BadInput: no such file, not a video, no video stream, or zero length.
    """
    return probe_stream(path).info


def probe_stream(path: Path) -> VideoStream:
    """Like `probe`, with the colours' tags."""
    require_file(path, "video")
    text = _describe(path)
    if "Duration:" not in text:
        raise BadInput(
            f"{path} is not a video: {last_line(text)}",
            hint="Give a video file such as .mp4, .mov, .mkv or .webm.",
        )
    line = _video_line(text)
    if line is None:
        raise BadInput(
            f"{path} has no picture, only sound or other data.",
            hint="Give a video file that shows a face.",
        )
    duration_s = _duration_s(text)
    if duration_s is None:
        duration_s = _measured_duration_s(path)
    if duration_s <= 0:
        raise BadInput(f"{path} is a video of zero length.", hint="Give a longer video.")
    rate, constant = _frame_rate(line)
    info = VideoInfo(
        size=_displayed_size(line, text),
        frame_rate=rate,
        duration_s=duration_s,
        has_audio=re.search(r"Stream #\S+.*: Audio: (?!none)", text) is not None,
        constant_rate=constant,
    )
    interlaced = re.search(r"\b(top|bottom) first|\binterlaced", line) is not None
    pixels, full_range = _pixel_format(line)
    return VideoStream(info, pixels, full_range, **_colour_tags(line), interlaced=interlaced)


def picture_duration_s(path: Path) -> float:
    """How long there is a picture: the file's own duration is that of its longest stream.

    Every packet is read, none decoded.
    """
    require_file(path, "video")
    return _measured_duration_s(path)


def sound_duration_s(path: Path) -> float | None:
    """How long a file with sound says that it is; None where it doesn't say.

    ffmpeg believes a wav's size rather than its header, which hides that the end is missing.
    """
    said_s = _duration_s(_describe(path))
    try:
        with wave.open(str(path), "rb") as file:
            promised_s = file.getnframes() / file.getframerate()
            size = file.getnframes() * file.getnchannels() * file.getsampwidth()
    except (wave.Error, EOFError, OSError, ZeroDivisionError):
        return said_s
    unknown = size >= 2**31 - 2**16  # programs that write to a pipe put the largest number there
    return said_s if unknown else promised_s


def _describe(path: Path) -> str:
    """What `ffmpeg -i` says; it always fails, since no output is asked for."""
    command = [ffmpeg_program(), "-hide_banner", "-protocol_whitelist", LOCAL_FILES_ONLY]
    said = subprocess.run(
        [*command, "-i", file_url(path)], capture_output=True, stdin=subprocess.DEVNULL
    )
    return said.stderr.decode("utf-8", "replace")


def _video_line(text: str) -> str | None:
    for line in text.splitlines():
        found = re.search(r"Stream #\S+.*: Video: (\w+)", line)
        if found and "attached pic" not in line and found[1] not in NOT_VIDEO_CODECS:
            return line
    return None


def _duration_s(text: str) -> float | None:
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    if found is None:
        return None
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def _measured_duration_s(path: Path) -> float:
    """Read the whole stream without decoding: browser recordings carry no duration."""
    command = [ffmpeg_program(), "-hide_banner", "-protocol_whitelist", LOCAL_FILES_ONLY]
    said = subprocess.run(
        [*command, "-i", file_url(path), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    times = re.findall(r"time=(\d+):(\d+):([\d.]+)", said.stderr.decode("utf-8", "replace"))
    if not times:
        return 0.0
    hours, minutes, seconds = times[-1]
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _displayed_size(line: str, text: str) -> tuple[int, int]:
    """(height, width) with square pixels and the phone's rotation applied."""
    found = re.search(r", (\d+)x(\d+)", line)
    if found is None or int(found[1]) * int(found[2]) == 0:
        raise BadInput("The video does not say how large it is.", hint="Convert it to mp4 first.")
    width, height = int(found[1]), int(found[2])
    if shape := re.search(r"SAR (\d+):(\d+)", line):
        across, down = int(shape[1]), int(shape[2])
        if across and down:
            width = round(width * across / down)
    after = text[text.index(line) + len(line) :].partition("Stream #")[0]
    turned = re.search(r"rotation of (-?[\d.]+) degrees", after)
    if turned and round(float(turned[1]) / 90) % 2:
        height, width = width, height
    return height, width


def _frame_rate(line: str) -> tuple[Fraction, bool]:
    """(average rate, whether it is constant)."""
    average = re.search(r", ([\d.]+k?) fps", line)
    base = re.search(r", ([\d.]+k?) tbr", line)
    if average is None and base is None:
        return Fraction(25), False
    base_rate = _exact_rate(base[1]) if base else None
    average_rate = _exact_rate(average[1]) if average else base_rate
    assert average_rate is not None
    if average_rate == 0:
        return Fraction(25), False
    if base_rate is None:
        return average_rate, True
    for multiple in (1, 2):  # field rate counts as constant
        if abs(average_rate * multiple / base_rate - 1) < Fraction(1, 2000):
            return base_rate / multiple, True
    return average_rate, False


def _exact_rate(text: str) -> Fraction:
    """29.97 -> 30000/1001: ffmpeg prints two digits of what is a fraction."""
    rate = Fraction(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)
    for exact in NTSC_RATES:
        if abs(rate - exact) <= Fraction(6, 1000):
            return exact
    return rate


def _pixel_format(line: str) -> tuple[str, bool]:
    """(pixel format, whether its range is the full one)."""
    found = re.search(r"Video: [^(,]+(?:\([^)]*\) ?)*, (\w+)(\(pc\b)?", line)
    if found is None:
        return "", False
    return found[1], bool(found[2]) or found[1].startswith("yuvj")


def _colour_tags(line: str) -> dict[str, str]:
    """Matrix, primaries and transfer as tagged; "" where unknown."""
    found = re.search(r"Video: [^(,]+(?:\([^)]*\) ?)*, \w+\(([^)]*)\)", line)
    words = [word.strip() for word in found[1].split(",")] if found else []
    for word in words:
        if word in ("tv", "pc", "progressive") or "first" in word or "interlaced" in word:
            continue
        parts = word.split("/")
        tags = parts if len(parts) == 3 else [parts[0]] * 3
        known = ("" if tag in ("unknown", "reserved") else tag for tag in tags)
        return dict(zip(COLOUR_TAGS, known, strict=True))
    return dict.fromkeys(COLOUR_TAGS, "")
