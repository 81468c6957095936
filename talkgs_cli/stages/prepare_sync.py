"""Estimates how far sound and picture are apart, from the mouth and the loudness alone.

It is a check for badly muxed files, good to about a frame; the translator learns its own lag.
Loudness follows the mouth only loosely, so the answer is often that nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows
from talkgs_cli.landmark_points import INNER_LIP_LOWER, INNER_LIP_UPPER

RANGE_S = 0.5
STEP_S = 0.01
HOP_S = 0.002  # energy is added up over so much sound
WINDOW_S = 0.06  # loudness is measured over this much sound
SLOW_S = 0.6  # slower changes than this are posture and phrase, not articulation
LEAST_FRAMES = 100
FRAMES_PER_SAMPLE = 2.5  # neighbouring frames say much the same
LEAST_SIGMAS = 3.0  # of the correlation that unrelated curves of this length would have
STANDS_OUT = 1.3  # the best peak over the best one elsewhere
ELSEWHERE_S = 0.1


class EnergyCurve:
    """How much energy a sound has had up to any time, gathered as it comes in.

    Args:
        sample_rate_hz: Of the sound.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.samples = 0
        self.loudest = 0.0  # sample
        self._rate = sample_rate_hz
        self._hop = max(1, round(HOP_S * sample_rate_hz))
        self._rest = np.zeros(0, np.float32)
        self._parts: list[NDArray[np.float64]] = []
        self._curve = np.zeros(0)  # at every hop and at the end; made when it is first asked for

    def listen(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Pass blocks on and add them up."""
        for block in blocks:
            self.samples += len(block)
            self.loudest = max(self.loudest, float(np.abs(block).max(initial=0)))
            held = np.concatenate([self._rest, block])
            whole = len(held) // self._hop * self._hop
            squares = np.square(held[:whole], dtype=np.float64).reshape(-1, self._hop)
            self._parts.append(squares.sum(1))
            self._rest = held[whole:].copy()
            yield block

    def between(
        self, starts_s: NDArray[np.floating], ends_s: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Energy from each start to its end."""
        if not len(self._curve):
            last = np.square(self._rest, dtype=np.float64).sum()
            self._curve = np.concatenate([[0.0], *self._parts, [last]]).cumsum()
        at_s = np.arange(len(self._curve)) * (self._hop / self._rate)
        at_s[-1] = self.samples / self._rate
        until = [np.interp(times_s, at_s, self._curve) for times_s in (starts_s, ends_s)]
        return np.asarray(until[1] - until[0], np.float64)

    def loudness_db(self, frame_count: int, frame_rate: Fraction) -> NDArray[np.float64]:
        """[T] root mean square of each frame's sound; full scale is 0, at least -100."""
        bounds_s = np.arange(frame_count + 1) / float(frame_rate)
        power = self.between(bounds_s[:-1], bounds_s[1:]) * float(frame_rate) / self._rate
        return np.asarray(10 * np.log10(np.maximum(power, 1e-10)), np.float64)


def estimate_offset_s(
    landmarks: Rows,
    valid: NDArray[np.bool_],
    energy: EnergyCurve,
    frame_rate: Fraction,
) -> float | None:
    """Seconds by which the sound comes after the mouth; about 0 to 0.1 in a well muxed video.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
        valid: [T].
        energy: Of the sound of the same clip.
        frame_rate: Of the video.

    Returns:
        The lag of the highest correlation, or None where none stands out.
    """
    lips = landmarks[:, [INNER_LIP_UPPER, INNER_LIP_LOWER], :2]  # [T, 2, 2]
    opening = np.linalg.norm(lips[:, 1] - lips[:, 0], axis=-1)
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
                _detail(_loudness(energy, times_s + lag_s), slow_frames)[inside],
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


def _loudness(energy: EnergyCurve, times_s: NDArray[np.floating]) -> NDArray[np.float64]:
    """[T] root of the mean energy around each time, compressed."""
    around = energy.between(times_s - WINDOW_S / 2, times_s + WINDOW_S / 2)
    return np.asarray(np.maximum(around, 0) ** 0.25)


def _detail(values: NDArray[np.floating], slow_frames: int) -> NDArray[np.float64]:
    """[T] what is left after a moving average over `slow_frames` is taken off."""
    kernel = np.ones(slow_frames)
    mean = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    return np.asarray(values - mean, np.float64)


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0
