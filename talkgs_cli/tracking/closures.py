"""How far lids and lips are apart: what must not be lost while the rest of a track is refined.

Points a few pixels apart share the tracker's errors, so their distance is known better than either
of them; and a blink or a closed mouth that stays open by a pixel is seen by everyone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.tracking.head_fitting import landmarks_in_parts
from talkgs_cli.types import HeadModel, Tracking

LID_PAIRS = (
    *((159, 145), (158, 153), (157, 154), (160, 144), (161, 163)),
    *((386, 374), (385, 380), (384, 381), (387, 373), (388, 390)),
)
LIP_PAIRS = ((13, 14), (82, 87), (81, 178), (80, 88), (312, 317), (311, 402), (310, 318))
NOISE = 0.0015  # of the eye distance: how well the tracker knows such a distance


@dataclass(frozen=True)
class Equations:
    """A quadratic of the correctives but the mean: curvature [C - 1, C - 1] and pull [C - 1]."""

    curvature: NDArray[np.float64]
    pull: NDArray[np.float64]


class Closures:
    """The pairs of points that meet when eyes and mouth close, over a clip.

    Args:
        head: The head model of the tracking.
        tracking: T frames.
        scale: Pixels of the refinement for each frame pixel.
    """

    def __init__(self, head: HeadModel, tracking: Tracking, scale: float) -> None:
        row = {int(index): k for k, index in enumerate(head.landmark_index)}
        pairs = [pair for pair in (*LID_PAIRS, *LIP_PAIRS) if pair[0] in row and pair[1] in row]
        rows = torch.tensor([[row[upper], row[lower]] for upper, lower in pairs]).reshape(-1, 2)
        apart = np.empty((len(tracking), len(pairs), 2), np.float32)  # pixels
        for part, fitted in landmarks_in_parts(head, tracking):
            apart[part] = (fitted[:, rows[:, 1]] - fitted[:, rows[:, 0]]).numpy()
        seen = tracking.landmarks[:, np.reshape(pairs, (-1, 2)).astype(int), :2]  # [T, P, 2, 2]
        self._missing: NDArray[np.float32] = (seen[:, :, 1] - seen[:, :, 0] - apart) * scale
        corners, weights = head.landmark_vertices[rows], head.landmark_weights[rows]
        basis = tracking.corrective_basis[:-1, corners]  # [C - 1, P, 2, 3 corners, 3]
        moved = (basis * weights[..., None]).sum(3)  # [C - 1, P, 2, 3] metres
        self._opening = (
            (moved[:, :, 1] - moved[:, :, 0]).permute(1, 2, 0).double().numpy()
        )  # [P, 3, C - 1]

    def equations(
        self, index: int, rotation: NDArray[np.float32], px_per_metre: float, eye_px: float
    ) -> Equations:
        """What frame `index` asks of the correctives, in squared standard deviations.

        Args:
            index: The frame.
            rotation: [3, 3] head frame to camera.
            px_per_metre: Pixels of a metre at the face.
            eye_px: Distance of the outer eye corners, pixels.
        """
        slopes = np.einsum("ij,pjc->pic", rotation[:2].astype(np.float64), self._opening)
        slopes = (slopes * (px_per_metre / (NOISE * eye_px))).reshape(-1, slopes.shape[-1])
        missing = self._missing[index].ravel() / (NOISE * eye_px)
        return Equations(slopes.T @ slopes, slopes.T @ missing)
