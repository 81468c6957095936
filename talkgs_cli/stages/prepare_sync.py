"""Estimates how far sound and picture are apart, from the mouth and the loudness alone.

It is a check for badly muxed files, good to about a frame; the translator learns its own lag.
Loudness follows the mouth only loosely, so the answer is often that nothing can be said.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.tracking.landmark_points import INNER_LIP_LOWER, INNER_LIP_UPPER

RANGE_S = 0.5
STEP_S = 0.01
WINDOW_S = 0.06  # loudness is measured over this much sound
SLOW_S = 0.6  # slower changes than this are posture and phrase, not articulation
LEAST_FRAMES = 100
FRAMES_PER_SAMPLE = 2.5  # neighbouring frames say much the same
LEAST_SIGMAS = 3.0  # of the correlation that unrelated curves of this length would have
STANDS_OUT = 1.3  # the best peak over the best one elsewhere
ELSEWHERE_S = 0.1


def estimate_offset_s(
    landmarks: NDArray[np.floating],
    valid: NDArray[np.bool_],
    samples: NDArray[np.float32],
    sample_rate_hz: int,
    frame_rate: Fraction,
) -> float | None:
    """Seconds by which the sound comes after the mouth; about 0 to 0.1 in a well muxed video.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
        valid: [T].
        samples: [S] mono sound of the same clip.
        sample_rate_hz: Of the samples.
        frame_rate: Of the video.

    Returns:
        The lag of the highest correlation, or None where none stands out.
    """
    opening = np.linalg.norm(
        landmarks[:, INNER_LIP_LOWER, :2] - landmarks[:, INNER_LIP_UPPER, :2], axis=-1
    )
    slow_frames = max(1, round(SLOW_S * float(frame_rate)))
    mouth = _detail(opening, slow_frames)
    times_s = (np.arange(len(opening)) + 0.5) / float(frame_rate)
    lags_s = np.arange(-RANGE_S, RANGE_S + STEP_S / 2, STEP_S)
    inside = valid & (times_s > RANGE_S) & (times_s < times_s[-1] - RANGE_S)
    if inside.sum() < LEAST_FRAMES:
        return None
    scores = np.array(
        [
            _correlation(
                mouth[inside],
                _detail(_loudness(samples, sample_rate_hz, times_s + lag_s), slow_frames)[inside],
            )
            for lag_s in lags_s
        ]
    )
    best = int(scores.argmax())
    elsewhere = scores[np.abs(lags_s - lags_s[best]) > ELSEWHERE_S].max()
    sigmas = scores[best] * np.sqrt(inside.sum() / FRAMES_PER_SAMPLE)
    if (
        best in (0, len(scores) - 1)
        or sigmas < LEAST_SIGMAS
        or scores[best] < STANDS_OUT * elsewhere
    ):
        return None
    return round(float(lags_s[best]), 3)


def _loudness(
    samples: NDArray[np.float32], sample_rate_hz: int, times_s: NDArray[np.floating]
) -> NDArray[np.float64]:
    """[T] root of the mean energy around each time, compressed."""
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    first, last = (
        np.clip(np.round((times_s + side) * sample_rate_hz), 0, len(samples)).astype(int)
        for side in (-WINDOW_S / 2, WINDOW_S / 2)
    )
    mean = (energy[last] - energy[first]) / (WINDOW_S * sample_rate_hz)
    return np.asarray(np.maximum(mean, 0) ** 0.25)


def _detail(values: NDArray[np.floating], slow_frames: int) -> NDArray[np.float64]:
    """[T] what is left after a moving average over `slow_frames` is taken off."""
    kernel = np.ones(slow_frames)
    mean = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    return np.asarray(values - mean, np.float64)


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0
