"""Sound in and out as mono float arrays; block by block or whole; it computes no features.

Any file ffmpeg can read is taken by what is in it, not by its name.
"""

from __future__ import annotations

import wave
from collections.abc import Generator, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.media.ffmpeg import LOCAL_FILES_ONLY, file_url, last_line, require_file, running
from talkgs_cli.runtime import atomic_path

SAMPLE_RATE_HZ = 16_000
SOUND_AT_ZERO = {"async": 1, "first_pts": 0}  # sound that starts late is led in by silence


def read_audio(
    path: Path, sample_rate_hz: int = SAMPLE_RATE_HZ, *, duration_s: Fraction | None = None
) -> NDArray[np.float32]:
    """Decode the first sound stream of a file to mono.

    Args:
        path: Sound or video file.
        sample_rate_hz: Rate to resample to.
        duration_s: How much to read; without it, all.

    Returns:
        [S] float32 in -1..1; sample 0 is at time 0 of the file.

    Raises:
        BadInput: no such file, no sound in it, or no samples.
    """
    return np.concatenate(list(SoundStream(path, sample_rate_hz, duration_s=duration_s)))


class SoundStream:
    """The first sound stream of a file, mono, block by block: a recording of any length.

    Iterate over it once.

    Args:
        path: Sound or video file.
        sample_rate_hz: Rate to resample to.
        start_s: Where to start in the file.
        duration_s: How much to read; without it, to the end.
        block_s: Length of a block.

    Attributes:
        samples: How many samples were read so far.
        damage: What the decoder complained of, once it is at the end; None if nothing.
    """

    def __init__(
        self,
        path: Path,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        start_s: Fraction = Fraction(0),
        duration_s: Fraction | None = None,
        block_s: float = 2.0,
    ) -> None:
        require_file(path, "sound")
        self.path = path
        self.sample_rate_hz = sample_rate_hz
        self.start_s = start_s
        self.duration_s = duration_s
        self.samples = 0
        self.damage: str | None = None
        self._block = max(1, round(block_s * sample_rate_hz))

    def __iter__(self) -> Generator[NDArray[np.float32]]:
        """Yield [n] float32 in -1..1; the first sample is at `start_s` of the file.

        Raises:
            BadInput: no sound in the file, or no samples from `start_s` on.
        """
        mono = {"ochl": "mono", "rematrix_maxval": 1}  # else two channels add up to more than 1
        output = ffmpeg.output(
            sound_input(self.path, self.start_s, self.duration_s).filter(
                "aresample", self.sample_rate_hz, **SOUND_AT_ZERO, **mono
            ),
            "pipe:",
            format="f32le",
        )
        with running(output) as process:
            while data := process.pipe.read(4 * self._block):
                samples = np.nan_to_num(np.frombuffer(data[: len(data) // 4 * 4], np.float32))
                self.samples += len(samples)
                if len(samples):
                    yield samples
            status, said = process.finish(), process.said()
        if self.samples == 0:
            self._refuse(status, said)
        if said.strip():
            self.damage = last_line(said)

    def again(self) -> SoundStream:
        """The same part of the same file, not read yet."""
        block_s = self._block / self.sample_rate_hz
        return SoundStream(self.path, self.sample_rate_hz, self.start_s, self.duration_s, block_s)

    def _refuse(self, status: int, said: str) -> None:
        hint = "Give a sound file such as .wav, .mp3 or .m4a."
        if status != 0:
            raise BadInput(_reason(self.path, said), hint=hint)
        if self.start_s > 0:
            raise BadInput(
                f"{self.path} has no sound from {float(self.start_s):g} s on.",
                hint="Start earlier, with --start.",
            )
        raise BadInput(f"{self.path} is empty: it holds no sound.", hint="Give a longer recording.")


def sound_input(
    path: Path, start_s: Fraction = Fraction(0), duration_s: Fraction | None = None
) -> Any:
    """The first sound stream of a file, or a part of it, as an ffmpeg-python stream."""
    options: dict[str, Any] = {"protocol_whitelist": LOCAL_FILES_ONLY}
    if start_s > 0:
        options["ss"] = f"{float(start_s):.6f}"
    if duration_s is not None:
        options["t"] = f"{float(duration_s):.6f}"
    return ffmpeg.input(file_url(path), **options)["a:0"]


def _reason(path: Path, said: str) -> str:
    if path.stat().st_size == 0:
        return f"{path} is empty: it holds no sound."
    if "matches no streams" in said:
        return f"{path} has no sound."
    return f"{path} is not a sound file: {last_line(said)}."


def write_wav(
    path: Path,
    samples: NDArray[np.floating] | Iterable[NDArray[np.floating]],
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> None:
    """Write [S] mono samples in -1..1, or blocks of them, as a 16-bit wav; louder ones clip."""
    blocks = [samples] if isinstance(samples, np.ndarray) else samples
    with atomic_path(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        for block in blocks:
            file.writeframes(np.round(np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
