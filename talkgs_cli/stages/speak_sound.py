"""Sound to the mouths of a video's frames, as the sound comes in: memory stays the same.

The number of frames follows the sound's length exactly. What a mouth looks like is the networks'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.networks.audio_encoder import AudioEncoder, Loudness, measure_loudness
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, sample_at

if TYPE_CHECKING:
    from talkgs_cli.media.audio import SoundStream
    from talkgs_cli.networks.motion_translator import MotionTranslator

LEVEL_S = 120  # the level of a recording is that of its first minutes: reading it all would delay
MARGIN = 2 * FEATURE_RATE_HZ  # features either side of a piece that the translator sees as well


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
    pieces = stream_mouths(translator, features, frame_rate, gain)
    made = 0
    piece = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        if following is None:  # only now the length is known
            length_s = Fraction(sound.samples, sound.sample_rate_hz)
            left = max(0, frames_of(length_s, frame_rate) - made)
            piece = torch.cat([piece, piece[-1:].expand(left, -1)])[:left]
        if len(piece):
            yield piece
        made += len(piece)
        piece = following


def level_of(sound: SoundStream) -> Loudness:
    """The level of the speech in a sound, which is not used up."""
    beginning = sound.again()
    with closing(iter(beginning)) as blocks:
        return measure_loudness(
            takewhile(lambda _: beginning.samples < LEVEL_S * sound.sample_rate_hz, blocks)
        )


def frames_of(duration_s: Fraction, frame_rate: Fraction) -> int:
    """Frames that show a sound of this length: duration x rate, rounded half up.

    >>> frames_of(Fraction(7, 1), Fraction(30000, 1001))
    210
    """
    return int(duration_s * frame_rate + Fraction(1, 2))


def stream_mouths(
    translator: MotionTranslator,
    features: Iterable[NDArray[np.float32]],
    frame_rate: Fraction,
    gain: float,
) -> Iterator[Tensor]:
    """Mouth vectors [k, M] of the frames that features [m, D], coming in, describe."""
    lag_s = translator.about.lag_s - translator.clip_offset_s
    made = 0
    for first, codes, last in _codes(translator, features):
        lively = translator.rest_code + gain * (codes - translator.rest_code)
        known_s = (first + len(codes) - 1) / FEATURE_RATE_HZ - lag_s
        # A frame stands for its middle; the last ones may lie a little behind what is known.
        count = int(known_s * float(frame_rate) + (2 if last else -1))
        if count > made:
            middles_s = (np.arange(made, count) + 0.5) / float(frame_rate)
            places_s = middles_s + lag_s - first / FEATURE_RATE_HZ
            yield translator.decode(torch.from_numpy(sample_at(lively.numpy(), places_s)))
            made = count


@torch.no_grad()
def _codes(
    translator: MotionTranslator, features: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[int, Tensor, bool]]:
    """(place of the first, [n, Z] codes, whether these are the last), a second of overlap kept."""
    held: NDArray[np.float32] | None = None
    first = before = 0  # place of held[0]; features of `held` whose codes are known
    pieces = iter(features)
    piece = next(pieces, None)
    while piece is not None:
        held = piece if held is None else np.concatenate([held, piece])
        piece = next(pieces, None)
        last = piece is None
        stop = len(held) if last else len(held) - MARGIN
        if stop <= before:
            continue
        codes = translator.codes(translator.project(torch.from_numpy(held)))
        start = max(0, before - FEATURE_RATE_HZ)
        yield first + start, codes[start:stop], last
        cut = max(0, stop - MARGIN)
        held, first, before = held[cut:], first + cut, stop - cut
