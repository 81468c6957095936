"""The translator's linear part: a ridge-regressed filter over time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import in_parts
from talkgs_cli.networks.timing import sample_at

Array = NDArray[np.float32]

STRENGTHS = (0.3, 1.0, 3.0)
SILENCE_STRENGTH = 0.3
FRAMES_AT_ONCE = 1024


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


class Moments:
    """Sums over weighted pairs of inputs [n, D] and targets [n, Z]: all that a regression needs.

    A clip's inputs, side by side, would take 7 kB a frame.
    """

    def __init__(self, inputs: int, targets: int) -> None:
        self.count = 0.0
        self.mean_in, self.mean_out = np.zeros(inputs), np.zeros(targets)  # sums until `ridge`
        self.inputs = np.zeros((inputs, inputs))
        self.both = np.zeros((inputs, targets))

    def add(self, inputs: Array, targets: Array, weight: float = 1.0) -> None:
        """Count pairs; a negative weight takes them out again."""
        self.count += weight * len(inputs)
        self.mean_in += weight * inputs.sum(0, dtype=np.float64)
        self.mean_out += weight * targets.sum(0, dtype=np.float64)
        self.inputs += weight * (inputs.T @ inputs).astype(np.float64)
        self.both += weight * (inputs.T @ targets).astype(np.float64)

    def ridge(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ridge regression; `strength` is relative to a row of unit mean square.

        Returns:
            Weight [D, Z] and bias [Z].
        """
        size = len(self.mean_in)
        mean_in, mean_out = self.mean_in / self.count, self.mean_out / self.count
        gram = (self.inputs - self.count * np.outer(mean_in, mean_in)) / size
        gram[np.diag_indices(size)] += strength
        weight = np.linalg.solve(
            gram, (self.both - self.count * np.outer(mean_in, mean_out)) / size
        )
        return np.asarray(weight, np.float64), mean_out - mean_in @ weight


def _heard(lesson: LinearLesson, rows: NDArray[np.intp], taps: int) -> Moments:
    """Lip codes of some frames and the sound around them."""
    found = Moments(lesson.components.shape[1] * taps, lesson.codes.shape[1])
    for part in in_parts(len(rows), FRAMES_AT_ONCE):
        inputs = design(lesson.components, lesson.positions[rows[part]], taps)
        found.add(inputs, lesson.codes[rows[part]])
    return found


def linear_filter(lesson: LinearLesson, taps: int, strength: float) -> tuple[Array, Array]:
    """Ridge regression of lip codes on the sound around each frame.

    Returns:
        Weight [Z, K, taps] and bias [Z] of a convolution at 50 Hz.
    """
    weight, bias = _heard(lesson, np.flatnonzero(lesson.usable), taps).ridge(strength)
    return _as_kernel(weight, taps), bias.astype(np.float32)


def silence_filter(lesson: LinearLesson, taps: int) -> tuple[Array, Array]:
    """A linear detector: 1 in the pauses given, 0 in the clip, its own short pauses included.

    Returns:
        Weight [1, K, taps] and bias [1] of a convolution at 50 Hz; zeros without pauses.
    """
    if not lesson.silence:
        size = lesson.components.shape[1]
        return np.zeros((1, size, taps), np.float32), np.zeros(1, np.float32)
    rows = np.flatnonzero(lesson.usable)
    moments = Moments(lesson.components.shape[1] * taps, 1)
    for part in in_parts(len(rows), FRAMES_AT_ONCE):
        speech = design(lesson.components, lesson.positions[rows[part]], taps)
        moments.add(speech, np.zeros((len(speech), 1), np.float32))
    pauses = [design(pause, np.arange(0, len(pause), 2.0), taps) for pause in lesson.silence]
    share = len(rows) / sum(map(len, pauses))
    for quiet in pauses:
        moments.add(quiet, np.ones((len(quiet), 1), np.float32), share)
    weight, bias = moments.ridge(SILENCE_STRENGTH)
    return _as_kernel(weight, taps), bias.astype(np.float32)


def best_strength(lesson: LinearLesson, unseen: NDArray[np.bool_], taps: int) -> float:
    """The regularisation with the least error on frames the lesson leaves out."""
    known = _heard(lesson, np.flatnonzero(lesson.usable), taps)
    filters = [known.ridge(strength) for strength in STRENGTHS]
    errors = np.zeros(len(STRENGTHS))
    rows = np.flatnonzero(unseen)
    for part in in_parts(len(rows), FRAMES_AT_ONCE):
        inputs = design(lesson.components, lesson.positions[rows[part]], taps)
        for k, (weight, bias) in enumerate(filters):
            errors[k] += np.square(inputs @ weight + bias - lesson.codes[rows[part]]).sum()
    return STRENGTHS[int(np.argmin(errors))]


def _as_kernel(weight: NDArray[np.float64], taps: int) -> Array:
    """[K * taps, Z] to [Z, K, taps]."""
    return np.ascontiguousarray(weight.T.reshape(weight.shape[1], -1, taps), np.float32)
