"""Points scattered over the front of a head: where they are in any pose, and how they can move.

It knows no pixels and no camera.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LEFT_EYE,
    RIGHT_EYE,
)
from talkgs_cli.types import REGIONS, HeadModel, HeadMotion

Floats = NDArray[np.float32]

POINT_REGIONS = ("skin", "lips")
ROUND_MOUTH = 0.6  # of the way from mouth to eyes
# Half width and height of what a blink folds away, of the distance of the eyes' middles: there is
# no texture that stays.
LID_REACH = (0.32, 0.24)


class SurfacePoints:
    """K points on skin and lips, evenly spread as seen from the front.

    Args:
        settled: The head model with the speaker's identity built in.
        corrective_basis: [C, V, 3] metres.
        count: How many.
        seed: Of the choice.

    Attributes:
        round_mouth: [K] which of them lie round the mouth.
        modes: x, y, z of [K, C - 1] metres for each unit of a corrective; the last, the mean, is
            left out.
    """

    def __init__(self, settled: HeadModel, corrective_basis: Tensor, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        kept = [REGIONS.index(name) for name in POINT_REGIONS]
        faces = settled.faces[torch.isin(settled.face_regions, torch.tensor(kept))]
        neutral = settled.vertices(
            torch.zeros(0), torch.zeros(1, settled.expression_count), torch.zeros(1, 3)
        )[0]
        corners = neutral[faces].double()
        normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        mouth, eyes = _mouth_and_eyes(settled, neutral)
        between_eyes = eyes.mean(0)
        reach = np.array(LID_REACH) * np.linalg.norm(eyes[0] - eyes[1])
        from_eyes = corners.mean(1).numpy()[:, None, :2] - eyes[:, :2]  # [F, 2 eyes, 2]
        folds = (np.linalg.norm(from_eyes / reach, axis=2) < 1).any(1)
        areas = (normals[:, 2].clamp_min(0)).numpy() * ~folds  # as seen from the front
        chosen = rng.choice(len(faces), count, p=areas / areas.sum())
        weights = rng.dirichlet(np.ones(3), count)
        middle = (corners[torch.from_numpy(chosen)].mean(1)).numpy()  # [K, 3]
        reach = ROUND_MOUTH * np.linalg.norm(mouth - between_eyes)
        self.round_mouth = np.linalg.norm((middle - mouth)[:, :2], axis=1) < reach
        used, self._corners = torch.unique(faces[torch.from_numpy(chosen)], return_inverse=True)
        self._head = settled.only(used)
        self._barycentric = torch.from_numpy(weights).float()  # [K, 3]
        self._basis = corrective_basis[:, used]  # [C, V', 3]
        at_points = torch.einsum("ckpd,kp->kcd", self._basis[:, self._corners], self._barycentric)
        self.modes = [axis.contiguous().numpy() for axis in at_points[:, :-1].unbind(-1)]

    def posed(self, motion: HeadMotion) -> tuple[Floats, Floats]:
        """[B, K, 3] points and [B, K, 3] outward unit normals of B frames, head frame."""
        posed = self._head.vertices(torch.zeros(0), motion.expression, motion.jaw)
        posed = posed + torch.einsum("bc,cvd->bvd", motion.corrective, self._basis)
        triangles = posed[:, self._corners]  # [B, K, 3, 3]
        points = (triangles * self._barycentric[..., None]).sum(2)
        normals = torch.linalg.cross(
            triangles[:, :, 1] - triangles[:, :, 0], triangles[:, :, 2] - triangles[:, :, 0]
        )
        return points.numpy(), torch.nn.functional.normalize(normals, dim=-1).numpy()


def _mouth_and_eyes(settled: HeadModel, neutral: Tensor) -> tuple[Floats, Floats]:
    """[3] of the mouth and [2, 3] of the eyes, head frame."""
    points = (neutral[settled.landmark_vertices] * settled.landmark_weights[..., None]).sum(1)
    row = {int(index): k for k, index in enumerate(settled.landmark_index)}
    mouth = points[[row[INNER_LIP_UPPER], row[INNER_LIP_LOWER]]].mean(0)
    eyes = torch.stack([points[[row[k] for k in lids]].mean(0) for lids in (LEFT_EYE, RIGHT_EYE)])
    return mouth.numpy(), eyes.numpy()
