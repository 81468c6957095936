"""Chooses the fixed square of a clip that holds the head in every frame; it reads no pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows
from talkgs_cli.landmark_points import OVAL
from talkgs_cli.types import Crop

FOREHEAD, CHIN = 10, 152
MARGIN_ABOVE = 0.30  # face heights: hair above the hairline
MARGIN_BELOW = 0.38  # face heights: neck strip and a little of the shoulders
MARGIN_BESIDE = 0.18  # face widths: ears and hair
OUTLIERS = (1.0, 99.0)  # percentiles: a single stray frame must not widen the crop
BLOCK = 16  # the size of crop frames is a multiple of this


def face_height_px(landmarks: Rows, valid: NDArray[np.bool_] | slice = slice(None)) -> float:
    """Median distance from hairline to chin.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
        valid: [T] frames that count.
    """
    ends = landmarks[:, [CHIN, FOREHEAD], :2]
    length = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
    return float(np.median(length[valid]))


def choose_crop(
    landmarks: Rows,
    frame_size: tuple[int, int],
    crop_size: int,
    valid: NDArray[np.bool_] | slice = slice(None),
) -> Crop:
    """The square around head and neck over all frames.

    It lies inside the frame, shifted rather than padded. A crop that is not larger than
    `crop_size` is stored pixel for pixel.

    Args:
        landmarks: [T, 478, 2 or 3], pixels.
        frame_size: (height, width) of the frames.
        crop_size: Largest side of the stored crop frames, a multiple of 16.
        valid: [T] frames that count.
    """
    oval = landmarks[:, OVAL, :2][valid]  # [T, 36, 2]
    low, high = oval.min(1), oval.max(1)  # [T, 2] each
    width, height = (high - low).T
    margins_low = np.stack([MARGIN_BESIDE * width, MARGIN_ABOVE * height], axis=1)
    margins_high = np.stack([MARGIN_BESIDE * width, MARGIN_BELOW * height], axis=1)
    low = np.percentile(low - margins_low, OUTLIERS[0], axis=0)
    high = np.percentile(high + margins_high, OUTLIERS[1], axis=0)
    side = _side(float((high - low).max()), min(frame_size), crop_size)
    left, top = (
        int(np.clip(round(centre - side / 2), 0, length - side))
        for centre, length in zip((low + high) / 2, frame_size[::-1], strict=True)
    )
    return Crop(left=left, top=top, side=side, size=min(side, crop_size) // BLOCK * BLOCK)


def _side(wanted: float, largest: int, crop_size: int) -> int:
    """An even side; a multiple of 16 where that avoids resampling."""
    if wanted > crop_size and largest > crop_size:
        return min(int(np.ceil(wanted / 2)) * 2, largest // 2 * 2)
    return max(min(int(np.ceil(wanted / BLOCK)), largest // BLOCK), 1) * BLOCK
