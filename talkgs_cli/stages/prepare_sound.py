"""The sound of a speaker: taken from the video, checked against the mouth, moved if asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import SAMPLE_RATE_HZ, SoundStream, write_wav
from talkgs_cli.media.video import replace_sound
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare_sync import EnergyCurve, estimate_offset_s
from talkgs_cli.stages.prepare_tracking import Observations

SILENCE = 1e-4  # largest sample of a track that is as good as none


@dataclass(frozen=True)
class Sound:
    """What is heard in a video.

    Attributes:
        energy: Of the stored sound, which is as long as the picture to the sample.
        offset_s: How long the sound came after the mouth in the video, None where nothing shows it.
        earlier_s: How much earlier the stored sound is than the video's.
    """

    energy: EnergyCurve
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
    duration_s = len(observations.valid) / rate
    length = round(duration_s * SAMPLE_RATE_HZ)
    try:
        energy = _store(video, speaker.audio, 0.0, length)
    except BadInput:  # a sound stream without a single packet
        return None
    if energy.loudest < SILENCE:
        speaker.audio.unlink()
        return None
    offset_s = estimate_offset_s(observations.landmarks, observations.valid, energy, rate)
    earlier_s = offset_s if fix_offset and offset_s is not None else 0.0
    if earlier_s:
        energy = _store(video, speaker.audio, earlier_s, length)
        replace_sound(speaker.video, video, earlier_s, float(duration_s))
    return Sound(energy, offset_s, earlier_s)


def _store(video: Path, wav: Path, earlier_s: float, length: int) -> EnergyCurve:
    """Write a video's sound, block by block: any length."""
    energy = EnergyCurve(SAMPLE_RATE_HZ)
    write_wav(wav, energy.listen(moved(SoundStream(video), earlier_s, length)))
    return energy


def moved(
    blocks: Iterable[NDArray[np.float32]], earlier_s: float, length: int
) -> Iterator[NDArray[np.float32]]:
    """A sound moved to an earlier (or with a negative time, later) place, cut or padded.

    >>> sound = [np.array([1, 2], np.float32), np.array([3], np.float32)]
    >>> [*moved(sound, 1 / SAMPLE_RATE_HZ, 3)]
    [array([2.], dtype=float32), array([3.], dtype=float32), array([0.], dtype=float32)]
    >>> [*moved(sound, -1 / SAMPLE_RATE_HZ, 3)]
    [array([0.], dtype=float32), array([1., 2.], dtype=float32)]
    """
    skipped = round(earlier_s * SAMPLE_RATE_HZ)
    wanted = length
    for block in itertools.chain(_silence(-skipped), blocks):
        placed = block[max(skipped, 0) :][:wanted]
        skipped -= len(block) - len(block[max(skipped, 0) :])
        wanted -= len(placed)
        if len(placed):
            yield placed
    yield from _silence(wanted)


def _silence(count: int) -> Iterator[NDArray[np.float32]]:
    """Zeros, a second at a time."""
    for start in range(0, count, SAMPLE_RATE_HZ):
        yield np.zeros(min(SAMPLE_RATE_HZ, count - start), np.float32)
