"""The translator's linear part: a ridge-regressed filter over time, and what it tells of the clip.

It also finds the lag between sound and mouth, because it is quick enough to try many.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.networks.motion_translator import NATURAL_LEAD_S
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, sample_at

Array = NDArray[np.float32]

STRENGTHS = (0.3, 1.0, 3.0)
SILENCE_STRENGTH = 0.3
LAGS_S = np.arange(-0.16, 0.2801, 0.02)
LAG_COMPONENTS = 48
LAG_FOLDS = 4
# The lag is believed where mouth and sound agree at least this well.
LAG_MIN_R = 0.4


class LinearLesson(Protocol):
    """The part of a training lesson that the linear filter needs."""

    components: Array
    positions: NDArray[np.float64]
    codes: Array
    usable: NDArray[np.bool_]
    silence: list[Array]


def design(components: Array, positions: NDArray[np.floating], taps: int) -> Array:
    """Components around each position, side by side.

    Args:
        components: [n, K] at 50 Hz.
        positions: [T] in samples.
        taps: Odd number of samples.

    Returns:
        [T, K * taps], tap fastest (the layout of a convolution's weight).
    """
    offsets = np.arange(taps) - taps // 2
    around = sample_at(components, positions[:, None] + offsets, rate_hz=1)  # [T, taps, K]
    return around.transpose(0, 2, 1).reshape(len(positions), -1)


def linear_filter(lesson: LinearLesson, taps: int, strength: float) -> tuple[Array, Array]:
    """Ridge regression of lip codes on the sound around each frame.

    Returns:
        Weight [Z, K, taps] and bias [Z] of a convolution at 50 Hz.
    """
    inputs = design(lesson.components, lesson.positions[lesson.usable], taps)
    targets = lesson.codes[lesson.usable]
    weight, bias = _ridge(inputs, targets, np.ones(len(inputs), np.float32), strength)
    return _as_kernel(weight, taps), bias.astype(np.float32)


def silence_filter(lesson: LinearLesson, taps: int) -> tuple[Array, Array]:
    """A linear detector: 1 in the pauses given, 0 in the clip, its own short pauses included.

    Returns:
        Weight [1, K, taps] and bias [1] of a convolution at 50 Hz; zeros without pauses.
    """
    if not lesson.silence:
        size = lesson.components.shape[1]
        return np.zeros((1, size, taps), np.float32), np.zeros(1, np.float32)
    speech = design(lesson.components, lesson.positions[lesson.usable], taps)
    quiet = np.concatenate(
        [design(pause, np.arange(0, len(pause), 2.0), taps) for pause in lesson.silence]
    )
    inputs = np.concatenate([speech, quiet])
    targets = np.repeat([0.0, 1.0], [len(speech), len(quiet)])[:, None].astype(np.float32)
    weights = np.repeat([1.0, len(speech) / len(quiet)], [len(speech), len(quiet)])
    weight, bias = _ridge(inputs, targets, weights.astype(np.float32), SILENCE_STRENGTH)
    return _as_kernel(weight, taps), bias.astype(np.float32)


def best_strength(lesson: LinearLesson, unseen: NDArray[np.bool_], taps: int) -> float:
    """The regularisation with the least error on frames the lesson leaves out."""
    inputs = design(lesson.components, lesson.positions[unseen], taps)
    errors = []
    for strength in STRENGTHS:
        weight, bias = linear_filter(lesson, taps, strength)
        guess = inputs @ weight.reshape(len(weight), -1).T + bias
        errors.append(float(np.square(guess - lesson.codes[unseen]).mean()))
    return STRENGTHS[int(np.argmin(errors))]


def _as_kernel(weight: NDArray[np.float64], taps: int) -> Array:
    """[K * taps, Z] to [Z, K, taps]."""
    return np.ascontiguousarray(weight.T.reshape(weight.shape[1], -1, taps), np.float32)


def best_lag_s(
    components: Array, times_s: NDArray[np.float64], amount: Array, usable: NDArray[np.bool_]
) -> float:
    """Where in the sound the mouth's opening is predicted best, across blocked folds.

    Args:
        components: [n, K] at 50 Hz, most important first.
        times_s: [T] of the frames.
        amount: [T] opening.
        usable: [T] bool.

    Returns:
        Seconds by which the sound lies later than the mouth; the natural lead of mouths where
        the clip is too short or too unclear to tell.
    """
    where = np.flatnonzero(usable)
    if len(where) < 100:
        return NATURAL_LEAD_S
    few = components[:, :LAG_COMPONENTS]
    target = amount[where][:, None] - amount[where].mean()
    folds = np.array_split(np.arange(len(where)), 2 * LAG_FOLDS)[::2]
    ones = np.ones(len(where), np.float32)
    agreement = []
    for lag_s in LAGS_S:
        inputs = design(few, (times_s[where] + lag_s) * FEATURE_RATE_HZ, 5)
        guess, truth = [], []
        for fold in folds:
            kept = np.ones(len(where), bool)
            kept[max(0, fold[0] - 12) : fold[-1] + 13] = False
            weight, bias = _ridge(inputs[kept], target[kept], ones[kept], 1.0)
            guess.append((inputs[fold] @ weight + bias)[:, 0])
            truth.append(target[fold, 0])
        agreement.append(np.corrcoef(np.concatenate(guess), np.concatenate(truth))[0, 1])
    if not np.max(agreement) > LAG_MIN_R:
        return NATURAL_LEAD_S
    smoothed = np.convolve(np.pad(agreement, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return float(round(LAGS_S[int(np.argmax(smoothed))], 3))


def _ridge(
    inputs: Array, targets: Array, weights: Array, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted ridge regression; `strength` is relative to a row of unit mean square."""
    total = weights.sum()
    mean_in = (weights @ inputs) / total
    mean_out = (weights @ targets) / total
    centred = inputs - mean_in
    size = inputs.shape[1]
    weighted = centred * weights[:, None]
    gram = (weighted.T @ centred).astype(np.float64) / size
    gram[np.diag_indices(size)] += strength
    weight = np.linalg.solve(gram, (weighted.T @ (targets - mean_out)).astype(np.float64) / size)
    return weight, mean_out - mean_in @ weight
