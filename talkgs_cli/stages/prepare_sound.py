"""The sound of a speaker: taken from the video, checked against the mouth, moved if asked."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import SAMPLE_RATE_HZ, read_audio, write_wav
from talkgs_cli.media.video import replace_sound
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare_sync import estimate_offset_s
from talkgs_cli.stages.prepare_tracking import Observations

SILENCE = 1e-4  # largest sample of a track that is as good as none


@dataclass(frozen=True)
class Sound:
    """What is heard in a video.

    Attributes:
        samples: [N] mono, 16 kHz, as long as the picture to the sample; as stored.
        offset_s: How long the sound came after the mouth in the video, None where nothing shows it.
        earlier_s: How much earlier the stored sound is than the video's.
    """

    samples: NDArray[np.float32]
    offset_s: float | None
    earlier_s: float = 0.0


def extract_sound(
    video: Path,
    speaker: SpeakerFolder,
    observations: Observations,
    rate: Fraction,
    *,
    fix_offset: bool,
) -> Sound | None:
    """Write media/audio.wav.

    Args:
        video: The user's video, known to have a sound stream.
        speaker: Where the sound goes; its video gets the moved sound too.
        observations: What the mouth did.
        rate: Frames per second.
        fix_offset: Move the sound by the offset, if there is one.

    Returns:
        The sound; None where the stream is empty or silent.
    """
    try:
        heard = read_audio(video)
    except BadInput:  # a sound stream without a single packet
        return None
    duration_s = len(observations.valid) / rate
    length = round(duration_s * SAMPLE_RATE_HZ)
    samples = moved(heard, 0.0, length)
    if np.abs(samples).max() < SILENCE:
        return None
    offset_s = estimate_offset_s(
        observations.landmarks, observations.valid, samples, SAMPLE_RATE_HZ, rate
    )
    earlier_s = offset_s if fix_offset and offset_s is not None else 0.0
    if earlier_s:
        samples = moved(heard, earlier_s, length)
        replace_sound(speaker.video, video, earlier_s, float(duration_s))
    write_wav(speaker.audio, samples)
    return Sound(samples, offset_s, earlier_s)


def moved(samples: NDArray[np.float32], earlier_s: float, length: int) -> NDArray[np.float32]:
    """The sound moved to an earlier (or with a negative time, later) place, cut or padded.

    >>> moved(np.array([1, 2, 3], np.float32), 1 / SAMPLE_RATE_HZ, 3)
    array([2., 3., 0.], dtype=float32)
    >>> moved(np.array([1, 2, 3], np.float32), -1 / SAMPLE_RATE_HZ, 3)
    array([0., 1., 2.], dtype=float32)
    """
    shift = round(earlier_s * SAMPLE_RATE_HZ)
    placed = np.pad(samples[max(shift, 0) :], (max(-shift, 0), 0))[:length]
    return np.pad(placed, (0, length - len(placed)))
