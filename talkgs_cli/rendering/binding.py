"""Triangle-local frames: how a Gaussian that is bound to a triangle follows it.

It knows no parameters and no losses; `gaussian_head.GaussianHead` holds those.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class TriangleFrames:
    """Local frames of F triangles.

    Attributes:
        quats: [F, 4] wxyz rotation from the triangle's axes to the head frame.
        normals: [F, 3] unit normals.
        areas: [F] square metres.
    """

    quats: Tensor
    normals: Tensor
    areas: Tensor


def triangle_frames(corners: Tensor) -> TriangleFrames:
    """Axes along the first edge, across it, and along the normal (GaussianAvatars, section 3.1).

    Args:
        corners: [F, 3, 3] corner positions, metres.
    """
    first_edge = corners[:, 1] - corners[:, 0]
    cross = torch.linalg.cross(first_edge, corners[:, 2] - corners[:, 0])
    areas = cross.norm(dim=1) / 2
    edge = F.normalize(first_edge, dim=1)
    normals = F.normalize(cross, dim=1)
    across = torch.linalg.cross(normals, edge)
    rotations = torch.stack([edge, across, normals], dim=-1)
    flat = areas < 1e-14  # a collapsed triangle has no axes: leave its Gaussians unrotated
    if bool(flat.any()):
        rotations[flat] = torch.eye(3, dtype=corners.dtype, device=corners.device)
    return TriangleFrames(matrix_to_quat(rotations), normals, areas)


def matrix_to_quat(rotations: Tensor) -> Tensor:
    """[..., 3, 3] rotation matrices to [..., 4] wxyz unit quaternions, stable for any angle."""
    m = rotations
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Four times each squared component; the largest is a safe divisor.
    squares = torch.stack(
        [
            1 + trace,
            1 + 2 * m[..., 0, 0] - trace,
            1 + 2 * m[..., 1, 1] - trace,
            1 + 2 * m[..., 2, 2] - trace,
        ],
        dim=-1,
    )
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    candidates = torch.stack(
        [
            torch.stack([squares[..., 0], wx, wy, wz], -1),
            torch.stack([wx, squares[..., 1], xy, xz], -1),
            torch.stack([wy, xy, squares[..., 2], yz], -1),
            torch.stack([wz, xz, yz, squares[..., 3]], -1),
        ],
        dim=-2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    return F.normalize(candidates.gather(-2, best)[..., 0, :], dim=-1)


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of [..., 4] wxyz quaternions: rotate by b, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )
