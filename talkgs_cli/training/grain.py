"""Measures how much finer texture a speaker's frames have than their renders."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.avatar import Avatar
from talkgs_cli.rendering.grain import finest
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import LABELS

LOOKED_AT = 12  # frames
FROM_EDGE_PX = 3  # edges are no grain
# New grain never matches the frame's own, so what is laid over costs PSNR by its square: this share
# of what lacks is most of the gain for an eye (or VGG) at a quarter of the price.
SHARE = 0.5
# More than this, of full range, is noise that a viewer would see; then the render is just soft.
MOST = 0.6 / 255


def measure_grain(avatar: Avatar, speaker: SpeakerFolder, frames: Sequence[int]) -> float:
    """Standard deviation, full range 1, of the grain to lay over renders.

    Frames and renders are compared on skin, by the energy of `rendering.grain.finest`.

    Args:
        avatar: The fitted speaker, without grain.
        speaker: Where its frames are.
        frames: Frame numbers.
    """
    some = list(frames)[:: max(1, len(frames) // LOOKED_AT)]
    lacking = []
    motion = avatar.tracking.motion.at(torch.tensor(some, dtype=torch.long))
    for index, (rgb, alpha) in zip(some, avatar.render(motion), strict=True):
        skin = (speaker.label(index) == LABELS["skin"]) & (alpha > 0.99)
        skin = cv2.erode(skin.astype(np.uint8), np.ones((2 * FROM_EDGE_PX + 1,) * 2)).astype(bool)
        if skin.any():
            real = _light(speaker.frame(index).astype(np.float32) / 255)
            render = _light(avatar.exposure.laid_on(rgb, index))
            lacking.append(finest(real)[skin].var() - finest(render)[skin].var())
    return float(min(SHARE * np.sqrt(max(np.mean(lacking), 0.0)), MOST)) if lacking else 0.0


def _light(rgb: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.float32)
