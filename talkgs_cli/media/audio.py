"""Sound in and out as mono float arrays; it computes no features.

Any file ffmpeg can read is taken by what is in it, not by its name.
"""

from __future__ import annotations

import wave
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.media.ffmpeg import LOCAL_FILES_ONLY, file_url, last_line, require_file, running
from talkgs_cli.runtime import atomic_path

SAMPLE_RATE_HZ = 16_000


def read_audio(path: Path, sample_rate_hz: int = SAMPLE_RATE_HZ) -> NDArray[np.float32]:
    """Decode the first sound stream of a file to mono.

    Args:
        path: Sound or video file.
        sample_rate_hz: Rate to resample to.

    Returns:
        [S] float32 in -1..1; sample 0 is at time 0 of the file.

    Raises:
        BadInput: no such file, no sound in it, or no samples.
    """
    require_file(path, "sound")
    sound = ffmpeg.input(file_url(path), protocol_whitelist=LOCAL_FILES_ONLY)["a:0"]
    mono = {"ochl": "mono", "rematrix_maxval": 1}  # without the limit two channels add up over 1
    output = ffmpeg.output(
        sound.filter("aresample", sample_rate_hz, **{"async": 1, "first_pts": 0}, **mono),
        "pipe:",
        format="f32le",
    )
    with running(output) as process:
        data = process.pipe.read()
        status, said = process.finish(), process.said()
    if status != 0 and not data:
        raise BadInput(_reason(path, said), hint="Give a sound file such as .wav, .mp3 or .m4a.")
    samples = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    if len(samples) == 0:
        raise BadInput(f"{path} is empty: it holds no sound.", hint="Give a longer recording.")
    return np.nan_to_num(samples)


def _reason(path: Path, said: str) -> str:
    if path.stat().st_size == 0:
        return f"{path} is empty: it holds no sound."
    if "matches no streams" in said:
        return f"{path} has no sound."
    return f"{path} is not a sound file: {last_line(said)}."


def write_wav(
    path: Path, samples: NDArray[np.floating], sample_rate_hz: int = SAMPLE_RATE_HZ
) -> None:
    """Write [S] mono samples in -1..1 as a 16-bit wav; louder ones are clipped."""
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with atomic_path(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(whole.tobytes())
