"""Sound to the mouths of a video's frames, as the sound comes in: memory stays the same.

The number of frames follows the sound's length exactly. What a mouth looks like is the networks'.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from talkgs_cli.networks.audio_encoder import AudioEncoder, Loudness

if TYPE_CHECKING:
    from talkgs_cli.media.audio import SoundStream
    from talkgs_cli.networks.motion_translator import MotionTranslator

HELD_BACK = 8  # frames; features reach a little further than the sound, 20 ms at most
# The level of a recording is that of its first minutes of speech: reading it all would delay. Quiet
# minutes don't count: a pause in front would set the gain of its hiss, and mouths would hang open.
LEVEL_S = 120


def mouths(
    translator: MotionTranslator,
    encoder: AudioEncoder,
    sound: SoundStream,
    frame_rate: Fraction,
    gain: float = 1.0,
) -> Iterator[Tensor]:
    """Mouth vectors of a video's frames.

    Args:
        translator: Of the speaker.
        encoder: The one that the translator reads.
        sound: At the encoder's rate.
        frame_rate: Of the video.
        gain: How far mouths depart from rest; 1 is the speaker's own liveliness.

    Yields:
        [k, M]; in all, as many as `frames_of` the sound's length.
    """
    features = encoder.encode_stream(sound, level_of(sound))
    pieces = translator.stream(features, frame_rate, gain=gain)
    made, held = 0, torch.zeros(0)
    # The length is known at the end only, so the last mouths of each piece wait for the next one.
    for piece in pieces:
        held = torch.cat([held, piece]) if len(held) else piece
        if len(held) > HELD_BACK:
            yield held[:-HELD_BACK]
            made, held = made + len(held) - HELD_BACK, held[-HELD_BACK:]
    length_s = Fraction(sound.samples, sound.sample_rate_hz)
    left = frames_of(length_s, frame_rate) - made
    if left > 0 and len(held):
        yield torch.cat([held, held[-1:].expand(left, -1)])[:left]


def level_of(sound: SoundStream) -> Loudness:
    """The level of the speech in a sound, which is not used up."""
    loudness = Loudness()
    with closing(iter(sound.again())) as blocks:
        for block in blocks:
            loudness.add(block)
            if loudness.heard_s >= LEVEL_S:
                break
    return loudness


def frames_of(duration_s: Fraction, frame_rate: Fraction) -> int:
    """Frames that show a sound of this length: duration x rate, rounded half up.

    >>> frames_of(Fraction(7, 1), Fraction(30000, 1001))
    210
    """
    return int(duration_s * frame_rate + Fraction(1, 2))
