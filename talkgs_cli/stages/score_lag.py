"""Notices that one video is late against the other; it shifts nothing and changes no figure."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LARGEST_SHIFT = 8  # frames either way
SIDE_PX = 48
CLEARLY = 0.7  # the error must fall to this share before a shift is said
LEAST_FRAMES = 2 * LARGEST_SHIFT + 2  # fewer neighbours can't tell

Frame = NDArray[np.uint8]


class Lag:
    """Compares small grey copies of both videos at several shifts."""

    def __init__(self) -> None:
        self._made: dict[int, NDArray[np.float32]] = {}
        self._real: dict[int, NDArray[np.float32]] = {}
        self._errors: dict[int, list[float]] = {}

    def add(self, index: int, made: Frame, real: Frame) -> None:
        """The next pair of frames; frames more than `LARGEST_SHIFT` back are forgotten."""
        self._made[index], self._real[index] = _small(made), _small(real)
        for kept in (self._made, self._real):
            for old in [number for number in kept if number < index - LARGEST_SHIFT]:
                del kept[old]
        self._compare(index, index)
        for back in range(1, LARGEST_SHIFT + 1):
            if index - back in self._real:
                self._compare(index, index - back)  # the made frame may be late
                self._compare(index - back, index)  # or early

    @property
    def frames(self) -> int | None:
        """Frames by which the made video is late; negative: early; None: can't be told."""
        if len(self._errors.get(0, ())) < LEAST_FRAMES:
            return None
        means = {shift: float(np.mean(errors)) for shift, errors in self._errors.items()}
        best = min(means, key=lambda shift: (means[shift], abs(shift)))
        return best if means[best] < CLEARLY * means[0] else 0

    @property
    def note(self) -> str | None:
        """What to tell the user, or None."""
        shift = self.frames
        if not shift:
            return None
        count = f"{abs(shift)} frame{'s' if abs(shift) > 1 else ''}"
        return f"is {count} {'late' if shift > 0 else 'early'} in the picture; figures include it."

    def _compare(self, made: int, real: int) -> None:
        error = float(np.square(self._made[made] - self._real[real]).mean())
        self._errors.setdefault(made - real, []).append(error)


def _small(frame: Frame) -> NDArray[np.float32]:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
