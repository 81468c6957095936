"""Exposure: how bright the camera showed each frame of a clip, and in which tint.

Cameras adjust themselves, clouds pass, lamps are switched. Gaussians hold the face in the clip's
average light; a render takes the light of the frame it is laid on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Exposure:
    """Gain of red, green and blue of every frame, against the clip's average.

    Args:
        gains: [T, 3], above 0; None: the light is steady, and every method returns its input.
    """

    def __init__(self, gains: Floats | None = None) -> None:
        self.gains = gains

    def laid_on(self, rgb: Floats, frame: int) -> Floats:
        """A render [.., 3] in the light of a frame; alpha stays as it is.

        >>> Exposure(np.float32([[1, 1, 1], [2, 1, 1]])).laid_on(np.float32([0.25, 0.5, 0.5]), 1)
        array([0.5, 0.5, 0.5], dtype=float32)
        """
        return rgb if self.gains is None else rgb * self.gains[frame]

    def moved(self, image: Bytes, source: int, target: int | None = None) -> Bytes:
        """Frame `source` [.., 3] in the light of frame `target`; None: in the average light.

        >>> Exposure(np.float32([[1, 1, 1], [2, 1, 1]])).moved(np.uint8([200, 80, 10]), 1, 0)
        array([100,  80,  10], dtype=uint8)
        """
        if self.gains is None or source == target:
            return image
        wanted = 1.0 if target is None else self.gains[target]
        lit = image * (wanted / self.gains[source])
        return np.clip(lit + 0.5, 0, 255).astype(np.uint8)
