"""How far the eyes are open. A pure function of landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows

# Lids and corners among the tracker's points: upper, lower, inner, outer.
LIDS = ((159, 145, 133, 33), (386, 374, 362, 263))
CLOSED_SHARE = 0.62  # of the usual opening: below it a lid is on its way down


def eye_opening(landmarks: Rows) -> NDArray[np.float64]:
    """[T] mean opening of both eyes over their width.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
    """
    points = landmarks[:, np.array(LIDS), :2].astype(np.float64)  # [T, 2 eyes, 4, 2]
    shares = [
        np.linalg.norm(up - down, axis=1) / np.linalg.norm(inner - outer, axis=1)
        for up, down, inner, outer in points.transpose(1, 2, 0, 3)
    ]
    return np.asarray(np.mean(shares, axis=0), np.float64)
