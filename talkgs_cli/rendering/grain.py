"""Grain: the finest texture of a camera's picture, which no model of a face can know.

About half of what a frame holds below one pixel is its own: sensor noise, what the codec made of
it. A face without it looks waxed beside the frame round it. As video codecs do with film grain,
only its strength is kept and new grain is laid over each frame.
"""

from __future__ import annotations

import zlib
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FINEST_PX = 1.0  # sigma below which texture counts as grain
SOFTNESS_PX = 0.6  # sigma of the grain itself: cameras and codecs blur it
SPARE = 64  # the pattern is larger than a frame by this much, and is cut out at another place


def finest(light: Floats) -> Floats:
    """[h, w] what is finer than `FINEST_PX` in a brightness image."""
    return np.asarray(light - cv2.GaussianBlur(light, (0, 0), FINEST_PX), np.float32)


class Grain:
    """Grain of a given strength for renders of a given size.

    Args:
        strength: Standard deviation of its finest band, full range 1; 0 leaves renders as they are.
        size: Side of the renders, pixels.
    """

    def __init__(self, strength: float, size: int) -> None:
        self.strength, self.size = strength, size

    @cached_property
    def _pattern(self) -> Floats:
        side = self.size + SPARE
        noise = np.random.default_rng(0).standard_normal((side, side), np.float32)
        soft: Floats = np.asarray(cv2.GaussianBlur(noise, (0, 0), SOFTNESS_PX), np.float32)
        return np.asarray(soft * (self.strength / finest(soft).std()), np.float32)

    def lay(self, rgb: Floats, alpha: Floats, frame: bytes) -> None:
        """Add grain to a premultiplied render, in place.

        Args:
            rgb: [S, S, 3].
            alpha: [S, S].
            frame: What tells frames apart; the same bytes get the same grain.
        """
        if not self.strength:
            return
        place = zlib.crc32(frame)
        top, left = place % SPARE, place // SPARE % SPARE
        grain = self._pattern[top : top + self.size, left : left + self.size] * alpha
        rgb += grain[..., None]
