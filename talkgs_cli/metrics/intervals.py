"""Confidence intervals over video frames; neighbouring frames are not independent, so by blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
BLOCK_FRAMES = 10  # neighbouring frames of a talking head are alike for about half a second


def mean_interval(values: Sequence[float], seed: int = 0) -> dict[str, float] | None:
    """Mean of per-frame values with its 95 % interval from a moving-block bootstrap.

    Source: Künsch, The jackknife and the bootstrap for general stationary observations, 1989.

    Args:
        values: [T] one value a frame, in order; NaN marks a frame without one.
        seed: Of the resampling.

    Returns:
        mean, low, high; None without any value.

    >>> mean_interval([2.0] * 30)
    {'mean': 2.0, 'low': 2.0, 'high': 2.0}
    >>> mean_interval([]) is None
    True
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    count = len(known)
    if count == 0:
        return None
    block = min(BLOCK_FRAMES, max(1, count // 3))
    starts = np.random.default_rng(seed).integers(
        0, count - block + 1, (RESAMPLES, -(-count // block))
    )
    picked = (starts[..., None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :count]
    low, high = np.quantile(known[picked].mean(1), [0.025, 0.975])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high)}
