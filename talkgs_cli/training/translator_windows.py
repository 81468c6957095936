"""Windows of sound and mouth for the networks' optimiser, with noise mixed in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.networks.timing import FEATURE_RATE_HZ

Array = NDArray[np.float32]

WINDOW_S = 2.0
BATCH = 8
# Noise on components of unit variance: on each sample, and on each component of a whole window
# (which stands for another voice or microphone).
FEATURE_NOISE = 0.6
CHANNEL_NOISE = 0.3


@dataclass
class Lesson:
    """Everything the parts learn from, on one clip.

    Attributes:
        components: [n, K] of the clip's sound, 50 Hz.
        positions: [T] where each frame reads the components (lag included), in samples.
        codes: [T, Z] lip codes.
        usable: [T] bool.
        silence: Components of pauses, each [n, K].
    """

    components: Array
    positions: NDArray[np.float64]
    codes: Array
    usable: NDArray[np.bool_]
    silence: list[Array]

    def seeing(self, part: slice) -> Lesson:
        """The same lesson with some of the components."""
        pauses = [pause[:, part] for pause in self.silence]
        return replace(self, components=self.components[:, part], silence=pauses)


@dataclass
class Batch:
    """Windows of one step.

    Attributes:
        components: [B, K, n].
        before: [B, L] sample before each frame.
        share: [B, L] how far to the next sample.
        codes: [B, L, Z] targets.
        weight: [B, L] 0 where there is nothing to learn.
    """

    components: Tensor
    before: Tensor
    share: Tensor
    codes: Tensor
    weight: Tensor

    def read(self, curve: Tensor) -> Tensor:
        """Read a [B, Z, n] curve at the frames' own times: [B, L, Z]."""
        index = self.before[:, None].expand(-1, curve.shape[1], -1)
        share = self.share[:, None]
        value = curve.gather(2, index) * (1 - share) + curve.gather(2, index + 1) * share
        return value.transpose(1, 2)


class WindowSampler:
    """Draws windows of 2 s at random places, with noisy components."""

    def __init__(self, lesson: Lesson, rng: np.random.Generator) -> None:
        self.lesson = lesson
        self.rng = rng
        spacing = float(np.diff(lesson.positions).mean())
        self.length = min(len(lesson.positions), round(WINDOW_S * FEATURE_RATE_HZ / spacing))
        self.span = int(np.ceil(self.length * spacing)) + 2
        starts = len(lesson.positions) - self.length + 1
        usable = np.convolve(lesson.usable, np.ones(self.length), "valid")[:starts]
        self.chance = usable / usable.sum()

    def draw(self) -> Batch:
        """One batch."""
        items = [self._window() for _ in range(BATCH)]
        sound, before, share, codes, weight = (
            torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)
        )
        channel = 1 + CHANNEL_NOISE * torch.randn(len(items), 1, sound.shape[2])
        offset = CHANNEL_NOISE * torch.randn(len(items), 1, sound.shape[2])
        noisy = sound * channel + offset + FEATURE_NOISE * torch.randn_like(sound)
        return Batch(noisy.transpose(1, 2), before, share, codes, weight)

    def _window(self) -> tuple[NDArray[np.generic], ...]:
        lesson = self.lesson
        start = int(self.rng.choice(len(self.chance), p=self.chance))
        part = slice(start, start + self.length)
        position = np.clip(lesson.positions[part], 0, len(lesson.components) - 1)
        first = int(position[0])
        rows = np.clip(np.arange(first, first + self.span), 0, len(lesson.components) - 1)
        before = np.minimum((position - first).astype(np.int64), self.span - 2)
        share = (position - first - before).astype(np.float32)
        return (
            lesson.components[rows],
            before,
            share,
            lesson.codes[part].astype(np.float32),
            lesson.usable[part].astype(np.float32),
        )
