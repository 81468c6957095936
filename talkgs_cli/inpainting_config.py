"""How the Inpainting Generator of a speaker is trained; it knows no tensors and reads no files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import check_seed


@dataclass(frozen=True)
class InpaintingConfig:
    """How the network that joins face and frame is trained on the speaker's own clip."""

    # Seed of the network's start, of pairs, order and augmentation.
    seed: int = 0
    # Optimiser steps.
    iterations: int = 800
    # Pairs of frames in a step.
    batch: int = 2
    # Pairs that training draws from; each is held in memory, about 0.4 MB.
    pairs: int = 240
    # Channels of the inpainting blocks.
    width: int = 24
    # How far the hole reaches beyond the face, share of the crop's side; varied in training.
    hole: float = 0.015
    # The furthest that pixels under the hole are fetched from, share of the crop's side.
    reach: float = 0.06
    # Loss weights: difference of colours, LPIPS of a patch, unevenness of shift and colour.
    l1_weight: float = 1.0
    lpips_weight: float = 1.0
    smoothness_weight: float = 0.01
    # LPIPS joins every so many steps.
    lpips_every: int = 1
    # Side of LPIPS's patch, working pixels.
    lpips_patch: int = 96
    # Learning rate at the start; it falls to nothing along a cosine.
    learning_rate: float = 2e-3
    # A checkpoint is written this often.
    checkpoint_every_s: float = 30.0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.iterations < 1 or self.batch < 1 or self.pairs < 1:
            raise UsageError("The inpainting network needs iterations, batch and pairs above 0.")
        if self.width < 4 or self.width % 2:
            raise UsageError(f"width is {self.width}: an even number, at least 4.")
        if not (0 < self.hole <= 0.1 and 0 <= self.reach <= 0.2):
            raise UsageError("hole is at most 0.1 and reach at most 0.2 of the crop's side.")


STANDARD = InpaintingConfig()
DRAFT = InpaintingConfig(iterations=250, pairs=120)


def inpainting_of(preset: str, seed: int) -> InpaintingConfig:
    """The settings that go with a preset of `fit`: fewer steps and pairs for a draft."""
    return replace(DRAFT if preset == "draft" else STANDARD, seed=seed)
