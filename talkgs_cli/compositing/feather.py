"""The feathered edge: how much of a rendered face shows in each pixel of a composite."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.types import LABELS

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

FEATHER = 0.006  # of the crop's side: width of the soft edge
ALPHA_GAIN = 1.4  # most weight of a render per alpha
SOLID = 0.7  # alpha from which the render counts as there


def feather_px(side: int) -> float:
    """Width of the soft edge in a crop of this side."""
    return max(1.0, side * FEATHER)


def blend_mask(alpha: Floats, label: Bytes | None, feather: float) -> Floats:
    """[h, w] weight of the render: its solid part, shrunk and feathered.

    A jaw that opens pushes the rendered neck down; where the frame underneath shows a collar
    (`label`), the collar stays.

    Args:
        alpha: [h, w] of the render.
        label: [h, w] label image of the frame underneath.
        feather: Width of the soft edge, pixels.
    """
    shrink = 2 * round(2 * feather) + 1
    solid = (alpha > SOLID).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (shrink, shrink))
    # Closing first: a pinhole in the middle of the face must not become a feathered hole.
    closed = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, kernel)
    if label is not None:
        bare = (label >= LABELS["neck"]).astype(np.uint8)
        closed = cv2.bitwise_and(closed, cv2.dilate(bare, kernel))
    inner = cv2.erode(closed, kernel).astype(np.float32)
    return np.minimum(cv2.GaussianBlur(inner, (0, 0), feather), np.clip(alpha * ALPHA_GAIN, 0, 1))


def straight(rgb: Floats, alpha: Floats) -> Floats:
    """Undo the premultiplication, where there is anything to undo."""
    return np.clip(rgb / np.maximum(alpha, 1e-3)[..., None], 0, 1)
