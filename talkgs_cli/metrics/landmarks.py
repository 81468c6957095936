"""Landmark distance (LMD) and jitter of tracked points; it detects nothing.

Points are the 478 of MediaPipe's face mesh, pixels. The field computes LMD with a 68-point
detector; the 20 lip points of that scheme (48-67) are picked here from the 478, so numbers compare
between methods scored by us, and only roughly with published ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]

# fmt: off
LIPS_68 = (
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # 48-59: outer, from the right corner
    78, 82, 13, 312, 308, 317, 14, 87,                     # 60-67: inner
)
"""Points 48-67 of the 68-point scheme as indices into the 478."""

LIPS_68_MIRRORED = (6, 5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 16, 15, 14, 13, 12, 19, 18, 17)
"""Where each lip point goes when the image is mirrored: positions in `LIPS_68`."""

STEADY = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4)
"""Eye corners and nose: points that move with the head and not with speech."""
# fmt: on


def lip_points(landmarks: Points) -> Points:
    """[..., 478, 2 or 3] landmarks to the [..., 20, 2] lip points of the 68-point scheme."""
    picked: Points = landmarks[..., LIPS_68, :2]
    return picked


def unmirrored(lips: Points, width_px: float) -> Points:
    """Lip points seen in a mirrored image, put back into the image as it is.

    Args:
        lips: [..., 20, 2] found in the mirrored image, centres at +0.5.
        width_px: Width of the image.

    Returns:
        [..., 20, 2].
    """
    points = lips[..., LIPS_68_MIRRORED, :].copy()
    points[..., 0] = width_px - points[..., 0]
    return points


def lmd(generated: Points, real: Points) -> NDArray[np.float64]:
    """Landmark distance of each frame: each set centred on its own mean, scale and turn kept.

    Source: the evaluation scripts of the AD-NeRF family of papers.

    Args:
        generated: [T, 20, 2] lip points, pixels.
        real: [T, 20, 2].

    Returns:
        [T] mean Euclidean distances, pixels.

    >>> real = np.array([[[0.0, 0.0], [2.0, 0.0]]])
    >>> lmd(real + 7, real)  # a shift does not count
    array([0.])
    >>> lmd(2 * real, real)  # each point is one pixel off
    array([1.])
    """
    apart = _centred(generated) - _centred(real)
    return np.asarray(np.linalg.norm(apart, axis=-1).mean(-1), np.float64)


def jitter(points: Points) -> float | None:
    """Mean length of the second difference over consecutive frames, pixels; None below 3 frames.

    >>> steady = np.arange(5.0)[:, None, None] * np.ones((1, 1, 2))  # even motion
    >>> jitter(steady)
    0.0
    >>> jitter(np.array([0.0, 1.0, 0.0])[:, None, None])
    2.0
    >>> jitter(steady[:2]) is None
    True

    Args:
        points: [T, P, D].
    """
    if len(points) < 3:
        return None
    return float(np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean())


def _centred(points: Points) -> Points:
    return points - points.mean(-2, keepdims=True)
