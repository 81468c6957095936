"""Frames into a video file or a pipe, through ffmpeg: formats, and `VideoWriter` that fills one.

Colours go out as tagged BT.709. It reads no video.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.audio import SOUND_AT_ZERO, sound_input
from talkgs_cli.media.ffmpeg import failure, file_url, last_line, require_file, running
from talkgs_cli.runtime import atomic_path

AUDIO_BITRATE = "192k"
TAGGED_MP4 = "+faststart+use_metadata_tags"


@dataclass(frozen=True)
class Format:
    """How pictures and sound are stored.

    Attributes:
        pixels: ffmpeg's pixel format in the file.
        alpha: Whether frames are RGBA.
        picture: ffmpeg options of the picture.
        sound: ffmpeg options of the sound.
        container: ffmpeg's name of it, for pipes; None follows the file's name.
        graded: Whether a crf and a preset of x264 apply.
    """

    pixels: str
    alpha: bool = False
    picture: Mapping[str, Any] = field(default_factory=dict)
    sound: Mapping[str, Any] = field(default_factory=dict)
    container: str | None = None
    graded: bool = False


AAC = {"acodec": "aac", "audio_bitrate": AUDIO_BITRATE}
OPUS = {"acodec": "libopus", "audio_bitrate": "128k"}
PCM = {"acodec": "pcm_s16le"}
FAST_VP9 = {"vcodec": "libvpx-vp9", "b:v": 0, "deadline": "realtime", "cpu-used": 5, "row-mt": 1}
H264 = Format(
    "yuv420p", picture={"vcodec": "libx264", "movflags": TAGGED_MP4}, sound=AAC, graded=True
)
PRORES = Format(
    "yuva444p10le",
    alpha=True,
    picture={"vcodec": "prores_ks", "profile:v": 4, "vendor": "apl0", "alpha_bits": 16},
    sound=PCM,
)
VP9 = Format("yuv420p", picture={**FAST_VP9, "crf": 24}, sound=OPUS)
VP9_ALPHA = Format(
    "yuva420p", alpha=True, picture={**FAST_VP9, "crf": 20, "auto-alt-ref": 0}, sound=OPUS
)
STREAMS = {
    "nut": Format("rgb24", picture={"vcodec": "rawvideo"}, sound=PCM, container="nut"),
    "mp4": Format(
        "yuv420p",
        picture={
            "vcodec": "libx264",
            "tune": "zerolatency",
            "movflags": "+frag_keyframe+empty_moov+default_base_moof",
        },
        sound=AAC,
        container="mp4",
        graded=True,
    ),
}
"""What can be written to a pipe, by name."""


def format_for(path: Path, alpha: bool) -> Format:
    """The format that a file's name asks for.

    Raises:
        UsageError: none, or one that can't hold what it must.
    """
    suffix = path.suffix.lower()
    if alpha:
        known = {".mov": PRORES, ".webm": VP9_ALPHA}
        if suffix not in known:
            raise UsageError(
                f"A {suffix or 'nameless'} file can't hold a transparent background.",
                hint="Name the output .mov (ProRes 4444) or .webm (VP9).",
            )
    else:
        known = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264, ".webm": VP9}
        if suffix not in known:
            raise UsageError(
                f"{path} does not say what kind of video it is to be.",
                hint="Name it .mp4, .mov, .mkv or .webm.",
            )
    return known[suffix]


def even_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size a yuv420p file can hold: an odd last row or column is left out."""
    return size[0] // 2 * 2, size[1] // 2 * 2


def x264(crf: int, preset: str, frame_rate: Fraction) -> dict[str, Any]:
    """x264 options of every mp4 file we write; the rate is an exact fraction."""
    rate = {"crf": crf, "preset": preset, "pix_fmt": H264.pixels, "r": f"{frame_rate}"}
    return {**H264.picture, **rate}


def to_bt709(picture: Any, size: tuple[int, int], pixels: str = "yuv420p") -> Any:
    """Filters from RGB to tagged BT.709 of an even size.

    Args:
        picture: An ffmpeg-python stream.
        size: (height, width) as it comes.
        pixels: ffmpeg's pixel format to make.
    """
    height, width = even_size(size)
    return (
        picture.filter("crop", width, height, 0, 0, exact=1)
        .filter(
            "scale",
            out_color_matrix="bt709",
            out_range="tv",
            flags="bicubic+accurate_rnd+full_chroma_int+full_chroma_inp",
        )
        .filter("format", pixels)
        .filter(
            "setparams", colorspace="bt709", color_primaries="bt709", color_trc="bt709", range="tv"
        )
    )


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Encodes frames into a file that appears only when all went well, or into a pipe.

    Args:
        target: The file to make, or where the bytes go.
        size: (height, width) of the frames; an odd last row or column is left out.
        frame_rate: Exact rate.
        audio: Any file with sound to put beside the picture.
        crf: x264 quality, lower is better.
        metadata: Tags of the file, such as a comment.
        preset: x264 speed.
        kind: How it is stored.
        audio_start_s: Where the sound starts in its file.
        audio_duration_s: How much of it is used.
    """

    def __init__(
        self,
        target: Path | BinaryIO,
        size: tuple[int, int],
        frame_rate: Fraction,
        audio: Path | None = None,
        crf: int = 18,
        metadata: Mapping[str, str] | None = None,
        preset: str = "veryfast",
        *,
        kind: Format = H264,
        audio_start_s: Fraction = Fraction(0),
        audio_duration_s: Fraction | None = None,
    ) -> None:
        if audio is not None:
            require_file(audio, "sound")
        self._target = target
        self._shape = (*size, 4 if kind.alpha else 3)
        self._audio = audio
        self._audio_part = (audio_start_s, audio_duration_s)
        self._kind = kind
        grade = {"crf": crf, "preset": preset} if kind.graded else {}
        rate = {"pix_fmt": kind.pixels, "r": f"{frame_rate}"}
        self._options = {**kind.picture, **grade, **rate, **_tags(metadata or {})}
        self._frame_rate = frame_rate
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        height, width, _ = self._shape
        picture = ffmpeg.input(
            "pipe:",
            format="rawvideo",
            pix_fmt="rgba" if self._kind.alpha else "rgb24",
            s=f"{width}x{height}",
            framerate=f"{self._frame_rate}",
        )
        if self._kind.pixels != "rgb24":
            picture = to_bt709(picture, (height, width), self._kind.pixels)
        streams = [picture]
        if self._audio is not None:
            sound = sound_input(self._audio, *self._audio_part)
            streams.append(sound.filter("aresample", **SOUND_AT_ZERO))
        options = {**self._options, **self._kind.sound}
        if self._kind.container is not None:
            options["format"] = self._kind.container
        try:
            if isinstance(self._target, Path):
                place = file_url(self._stack.enter_context(atomic_path(self._target)))
            else:
                place = "pipe:1"
            self._process = self._stack.enter_context(
                running(
                    ffmpeg.output(*streams, place, **options),
                    reads_stdin=True,
                    stdout=None if isinstance(self._target, Path) else self._target,
                )
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a [H, W, 3] uint8 RGB frame, or RGBA where the format has alpha."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, not uint8 {self._shape}")
        try:
            self._process.pipe.write(np.ascontiguousarray(frame).data.cast("B"))
        except BrokenPipeError:
            raise self._failure() from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                status = self._process.finish()
            except BrokenPipeError:
                status = 1
            if status != 0:
                error = self._failure()
                self._stack.__exit__(type(error), error, None)
                raise error
        self._stack.__exit__(kind, error, traceback)

    def _failure(self) -> Exception:
        self._process.kill()
        said = self._process.said()
        if self._audio is not None and str(self._audio) in said:
            return BadInput(
                f"{self._audio} has no sound that can be read: {last_line(said)}.",
                hint="Give a sound file such as .wav, .mp3 or .m4a.",
            )
        if isinstance(self._target, Path):
            return failure(self._target, said)
        if "Broken pipe" in said:
            return BrokenPipeError(errno.EPIPE, "whoever read the stream has enough")
        return failure(Path("the stream"), said)


def _tags(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"metadata:g:{i}": f"{key}={value}" for i, (key, value) in enumerate(metadata.items())}
