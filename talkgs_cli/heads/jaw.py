"""A real jaw rotation out of a "jaw open" shape: hinge, per-vertex weights, and what is left over.

A point of weight w turns by w times the jaw's rotation about the hinge. What a turn can't do (the
skin that stretches) is kept as an offset that grows with the opening angle, so that at the
reference angle the artist's shape comes out exactly. It knows nothing of files or landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor


@dataclass(frozen=True)
class JawRig:
    """How vertices follow the jaw.

    Attributes:
        hinge: [3] a point on the axis between the jaw joints.
        reference_rad: Opening angle at which the source shape is reproduced.
        weights: [V] share of the jaw's rotation each vertex follows, 0 to 1.
        remainder: [V, 3] offset added at the reference angle.
    """

    hinge: NDArray[np.float64]
    reference_rad: float
    weights: NDArray[np.float64]
    remainder: NDArray[np.float64]


def fit_jaw(
    points: NDArray[np.float64], opened: NDArray[np.float64], rigid: NDArray[np.bool_]
) -> JawRig:
    """Find the hinge and the weights.

    Args:
        points: [V, 3] closed, symmetric about x = 0.
        opened: [V, 3] displacement of the open shape.
        rigid: [V] bool, vertices that are bone: weight 1, no remainder (lower teeth, tongue).

    Returns:
        The rig; the hinge lies in the plane x = 0.
    """
    before = points[rigid]
    after = before + opened[rigid]
    turn, _ = Rotation.align_vectors(after - after.mean(0), before - before.mean(0))
    angle = float(turn.as_rotvec()[0])
    turn_yz = Rotation.from_rotvec([angle, 0, 0]).as_matrix()[1:, 1:]
    # The fixed point of x -> R x + t, in the plane of symmetry.
    shift = after.mean(0)[1:] - turn_yz @ before.mean(0)[1:]
    hinge = np.concatenate([[0.0], np.linalg.solve(np.eye(2) - turn_yz, shift)])

    steps = np.linspace(0.0, 1.0, 201)
    error = np.stack(
        [np.linalg.norm(_turned(points - hinge, w * angle) - opened, axis=1) for w in steps]
    )  # [201, V]
    weights = steps[error.argmin(axis=0)]
    weights[np.linalg.norm(opened, axis=1) < 1e-9] = 0.0
    weights[rigid] = 1.0
    remainder = opened - _turned(points - hinge, weights * angle)
    remainder[rigid] = 0.0
    return JawRig(hinge, angle, weights, remainder)


def _turned(arms: NDArray[np.float64], angle: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Displacement of [V, 3] arms turned about +x by an angle each."""
    cos, sin = np.cos(angle), np.sin(angle)
    y, z = arms[:, 1], arms[:, 2]
    return np.stack([np.zeros_like(y), y * cos - z * sin - y, y * sin + z * cos - z], axis=1)


def rotate_jaw(arms: Tensor, jaw: Tensor, weights: Tensor) -> Tensor:
    """Turn vertices about the hinge by their share of the jaw's rotation.

    Args:
        arms: [B, V, 3] vertices relative to the hinge.
        jaw: [B, 3] axis-angle, radians.
        weights: [V] share of the angle.

    Returns:
        [B, V, 3], relative to the hinge. Rodrigues' formula; smooth at jaw = 0.
    """
    squared = jaw.square().sum(-1, keepdim=True)  # [B, 1]
    angle = (squared + 1e-14).sqrt()
    axis = (jaw / angle)[:, None]  # [B, 1, 3]
    share = angle * weights  # [B, V]
    across = torch.linalg.cross(axis.expand_as(arms), arms)
    twice = torch.linalg.cross(axis.expand_as(arms), across)
    return arms + share.sin()[..., None] * across + (1 - share.cos())[..., None] * twice
