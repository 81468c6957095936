"""How the mouth behaves: does it open with the sound, does it close, does it shut up in silence.

Pure functions of the mouth's opening over time; it detects nothing and reads no sound files.
The opening is the inner lips' distance divided by that of the outer eye corners.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows
from talkgs_cli.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
)

CLOSED_SHARE = 0.2  # of the speaker's own range, from the 5th to the 95th percentile
OVER_OPEN_QUANTILE = 0.995
SILENT_SHARE = 0.25  # of the range of loudness, from the 5th to the 95th percentile
SILENT_FLOOR_DB = -60.0  # below full scale: quieter than this is silent whatever the rest does
SILENT_RUN_S = 0.24  # shorter gaps are part of speech
SILENT_MARGIN_S = 0.08  # the mouth may still be closing, or already be opening

Openings = NDArray[np.floating]


def opening(landmarks: Rows) -> NDArray[np.float64]:
    """Opening of the mouth, as a share of the inter-ocular distance, in three dimensions.

    Args:
        landmarks: [T, 478, 3], pixels.

    Returns:
        [T].
    """
    marks = [INNER_LIP_UPPER, INNER_LIP_LOWER, OUTER_EYE_RIGHT, OUTER_EYE_LEFT]
    points = landmarks[:, marks]  # [T, 4, 3]
    lips = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
    eyes = np.linalg.norm(points[:, 2] - points[:, 3], axis=-1)
    return np.asarray(lips / eyes, np.float64)


def closed_threshold(openings: Openings) -> float:
    """Below this a mouth counts as closed, from a speaker's own (training) openings.

    >>> round(closed_threshold(np.linspace(0, 1, 101)), 4)
    0.23
    """
    low, high = np.quantile(openings, [0.05, 0.95])
    return float(low + CLOSED_SHARE * (high - low))


def opening_r(generated: Openings, real: Openings) -> float | None:
    """Pearson correlation of two openings; None when the real mouth never moves.

    >>> round(opening_r(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0])), 6)
    1.0
    >>> opening_r(np.zeros(3), np.array([1.0, 2.0, 3.0]))  # a frozen mouth follows nothing
    0.0
    """
    if len(real) < 2 or np.std(real) < 1e-9:
        return None
    if np.std(generated) < 1e-9:
        return 0.0
    return float(np.corrcoef(generated, real)[0, 1])


def opening_spread(generated: Openings, real: Openings) -> float | None:
    """Ratio of the openings' standard deviations: below 1 the mouth mumbles, above it shouts.

    >>> opening_spread(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    0.5
    """
    spread = float(np.std(real))
    return float(np.std(generated)) / spread if spread > 1e-9 else None


def closure_recall(generated: Openings, real: Openings, threshold: float) -> float | None:
    """Share of the real closed frames that are closed in the generated video.

    >>> real = np.array([0.0, 0.0, 1.0, 1.0])
    >>> closure_recall(np.array([0.0, 1.0, 0.0, 1.0]), real, 0.5)
    0.5
    """
    closed = real < threshold
    return float((generated < threshold)[closed].mean()) if closed.any() else None


def closure_precision(generated: Openings, real: Openings, threshold: float) -> float | None:
    """Share of the generated closed frames that are closed in reality; recall alone is gamed.

    >>> real = np.array([0.0, 0.0, 1.0, 1.0])
    >>> closure_precision(np.zeros(4), real, 0.5)  # always shut: recall 1, precision chance
    0.5
    """
    return closure_recall(real, generated, threshold)


def silence_open_share(
    generated: Openings, silent: NDArray[np.bool_], threshold: float
) -> float | None:
    """Share of the silent frames in which the mouth hangs open; None without silence.

    >>> silence_open_share(np.array([0.1, 0.9, 0.9]), np.array([True, True, False]), 0.5)
    0.5
    """
    return float((generated[silent] >= threshold).mean()) if silent.any() else None


def over_open_limit(openings: Openings) -> float:
    """The widest this speaker opens the mouth: 99.5th percentile of the (training) openings."""
    return float(np.quantile(openings, OVER_OPEN_QUANTILE))


def over_open_share(generated: Openings, limit: float) -> float | None:
    """Share of the frames in which the mouth opens wider than the speaker ever does.

    >>> over_open_share(np.array([0.1, 0.2, 0.9, 0.1]), 0.5)
    0.25
    """
    return float((generated > limit).mean()) if len(generated) else None


def silent_frames(
    samples: NDArray[np.floating], sample_rate_hz: int, frame_count: int, frame_rate: Fraction
) -> NDArray[np.bool_]:
    """Which video frames lie well inside a silence.

    A frame is quiet when its loudness is in the lowest quarter of the sound's own range, or under
    -60 dB; silence is at least 0.24 s of it, without 0.08 s at either end.

    Args:
        samples: [N] mono sound in [-1, 1].
        sample_rate_hz: Samples a second.
        frame_count: Frames to judge, T.
        frame_rate: Frames a second.

    Returns:
        [T].

    >>> tone = np.sin(np.arange(16000) * 0.3)
    >>> sound = np.concatenate([tone, np.zeros(16000), tone])
    >>> np.flatnonzero(silent_frames(sound, 16000, 75, Fraction(25)))[[0, -1]]
    array([27, 47])
    """
    level_db = loudness_db(samples, sample_rate_hz, frame_count, frame_rate)
    low, high = np.quantile(level_db, [0.05, 0.95])
    # A sound that is loud throughout has no silence, though it has a quietest quarter.
    limit = low + SILENT_SHARE * (high - low) if high - low > 20 else SILENT_FLOOR_DB
    quiet = level_db < max(limit, SILENT_FLOOR_DB)
    run, margin = round(SILENT_RUN_S * frame_rate), round(SILENT_MARGIN_S * frame_rate)
    silent = np.zeros(frame_count, bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= run:
            silent[start + margin : stop - margin] = True
    return silent


def loudness_db(
    samples: NDArray[np.floating], sample_rate_hz: int, frame_count: int, frame_rate: Fraction
) -> NDArray[np.float64]:
    """Root mean square of each frame's sound.

    Args:
        samples: [N] mono sound in [-1, 1].
        sample_rate_hz: Samples a second.
        frame_count: Frames, T.
        frame_rate: Frames a second.

    Returns:
        [T] dB, full scale is 0, at least -100.
    """
    bounds = [round(t * sample_rate_hz / frame_rate) for t in range(frame_count + 1)]
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    at = np.minimum(bounds, len(samples))
    power = np.diff(energy[at]) / np.maximum(np.diff(bounds), 1)
    return np.asarray(10 * np.log10(np.maximum(power, 1e-10)), np.float64)
