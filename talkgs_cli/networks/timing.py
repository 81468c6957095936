"""Where features and video frames lie in time, and features read at any time.

Everything is in seconds from the start of the sound. Feature k describes the sound around
k / rate seconds; frame t of a video is on screen from t / R to (t + 1) / R and stands for the
middle of that. No rate is ever rounded, so nothing drifts at 29.97 frames a second.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows

FEATURE_RATE_HZ = 50


def frame_times_s(frame_count: int, frame_rate: Fraction) -> NDArray[np.float64]:
    """Middles of the first frames of a video, seconds.

    >>> frame_times_s(3, Fraction(25))
    array([0.02, 0.06, 0.1 ])
    """
    middles = np.arange(frame_count, dtype=np.float64) + 0.5
    return np.asarray(middles / float(Fraction(frame_rate)), np.float64)


def sample_at(
    features: Rows,
    times_s: NDArray[np.floating],
    rate_hz: float = FEATURE_RATE_HZ,
) -> NDArray[np.float32]:
    """Read features at any times, linearly between samples, held at both ends.

    Args:
        features: [K, D], sample k at k / rate_hz seconds.
        times_s: [...] seconds.
        rate_hz: Samples a second.

    Returns:
        [..., D].
    """
    position = np.clip(np.asarray(times_s, np.float64) * rate_hz, 0, len(features) - 1)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(features) - 1)
    share = (position - before).astype(np.float32)[..., None]
    return features[before] * (1 - share) + features[after] * share
