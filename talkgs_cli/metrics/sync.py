"""LSE-D and LSE-C: how well embedded lips and sound agree, and at which shift; it embeds nothing.

Source: Prajwal et al., A lip sync expert is all you need, ACM MM 2020; Chung & Zisserman, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SHIFT = 15  # frames of 1/25 s either way

Embeddings = NDArray[np.floating]


@dataclass(frozen=True)
class Sync:
    """How lips and sound agree.

    Attributes:
        lse_d: Least mean distance over all shifts; lower is better.
        lse_c: Confidence: median over the shifts minus the least; higher is better.
        shift_frames: Where it lies; positive: the sound is late, by frames of 1/25 s.
    """

    lse_d: float
    lse_c: float
    shift_frames: int


def sync(lips: Embeddings, sound: Embeddings, max_shift: int = MAX_SHIFT) -> Sync:
    """Compare lips with sound at every shift.

    Beyond the ends the sound counts as zeros, as in the published measure.

    Args:
        lips: [T, D], one a frame.
        sound: [T, D], of the same moments.
        max_shift: Frames either way.

    >>> lips = np.eye(40)
    >>> sync(lips, lips).shift_frames, round(sync(lips, lips).lse_d, 3)
    (0, 0.0)
    >>> sync(lips, np.roll(lips, 3, axis=0)).shift_frames
    3
    """
    distances = shifted_distances(lips, sound, max_shift).mean(0)
    best = int(distances.argmin())
    least = float(distances[best])
    return Sync(least, float(np.median(distances)) - least, best - max_shift)


def shifted_distances(lips: Embeddings, sound: Embeddings, max_shift: int) -> NDArray[np.float64]:
    """[T, 2 * max_shift + 1] distances of each frame's lips to the sound around it."""
    count, dimensions = lips.shape
    padded = np.zeros((count + 2 * max_shift, dimensions))
    padded[max_shift : max_shift + count] = sound
    # The published code adds 1e-6 to each difference; kept, so that figures agree to all digits.
    return np.stack(
        [
            np.linalg.norm(lips - padded[shift : shift + count] + 1e-6, axis=1)
            for shift in range(2 * max_shift + 1)
        ],
        axis=1,
    )
