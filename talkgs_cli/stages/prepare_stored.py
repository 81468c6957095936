"""What `prepare` keeps of a video: its frame rate and size, within limits; it copies nothing."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from talkgs_cli.config import PrepareConfig
from talkgs_cli.types import VideoInfo

ABOVE = Fraction(21, 20)  # screens and browsers record at 30.3 where they say 30
SAME_RATE = 1.2  # a varying rate that becomes the nearest usual one loses nothing to speak of


def stored_rate(info: VideoInfo, config: PrepareConfig) -> Fraction:
    """The constant frame rate of the speaker: the video's own, halved until it is low enough.

    A varying rate becomes the nearest usual one, so that time stays exact. A hair above the limit
    is low enough: half of it would miss fast mouth movements.
    """
    rate = _whole_rate(info)
    while rate > config.max_frame_rate * ABOVE:
        rate /= 2
    return rate


def _whole_rate(info: VideoInfo) -> Fraction:
    """The constant rate that keeps all of a video."""
    from talkgs_cli.media.probe import STANDARD_RATES

    if info.constant_rate:
        return info.frame_rate
    return min(STANDARD_RATES, key=lambda usual: abs(usual / info.frame_rate - 1))


def what_is_reduced(info: VideoInfo, rate: Fraction, size: tuple[int, int]) -> str | None:
    """One sentence for the user where less is stored than the video has, and how to keep all.

    Args:
        info: Of the video, upright.
        rate: Frames a second that are stored.
        size: (height, width) that is stored.
    """
    lost, options = [], []
    if rate < info.frame_rate / SAME_RATE:
        lost.append(f"{float(info.frame_rate):g} frames a second, stored are {float(rate):g}")
        options.append(f"--max-frame-rate {ceil(_whole_rate(info))}")
    if min(size) < min(info.size) - 1:
        lost.append(f"{min(info.size)} pixels on its shorter side, stored are {min(size)}")
        options.append(f"--short-side {min(info.size)}")
    if not lost:
        return None
    return f"The video has {' and '.join(lost)}: {' '.join(options)} would keep all of it."


def stored_size(info: VideoInfo, config: PrepareConfig) -> tuple[int, int]:
    """(height, width) of the stored frames: even, and not above `max_short_side`."""
    from talkgs_cli.media.encoding import even_size

    short = min(info.size)
    if short <= config.max_short_side:
        return even_size(info.size)
    height, width = (round(length * config.max_short_side / short) for length in info.size)
    return even_size((height, width))
