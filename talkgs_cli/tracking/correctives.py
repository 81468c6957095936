"""The speaker's own correctives: what the head model can't do, as a small linear basis.

Landmark residuals of all frames are compressed to a few modes each of mouth, eyelids and upper
face and their mean, and spread from landmarks to vertices. It moves skin only: teeth, tongue and
eyeballs stay what the model says. It solves no pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.linalg import eigh
from torch import Tensor

from talkgs_cli.types import REGIONS, HeadModel

MOUTH_MODES = 12
LID_MODES = 5
UPPER_MODES = 8
SPREAD = 0.10  # width of the spreading kernel, share of the eye distance
KERNEL_RIDGE = 0.15
COEFFICIENT_RIDGE = 0.02  # keeps coefficients of weak modes from following noise
SHARPENING_RIDGE = 0.09
OPEN_JAW_RAD = 0.3  # parts the lips, so that a lip's residual stays on its own lip
LARGEST = 0.25  # residuals beyond this share of the eye distance are not the face's
RIGID_REGIONS = ("upper_teeth", "lower_teeth", "tongue", "eyes", "mouth_interior")
# The border between mouth and upper face, as heights between lips (0) and eyes (1).
MOUTH_BELOW, UPPER_ABOVE = 0.35, 0.65
# How far the eyelids reach from the lid line, share of the eye distance: all of it, and none.
LIDS_WITHIN, LIDS_NOT_BEYOND = 0.03, 0.10


@dataclass(frozen=True)
class _Group:
    """Modes of one part of the face: what they do at the landmarks, and how to read them off.

    Attributes:
        share: [L used, 1] how much of a landmark's residual belongs to the group.
        readout: [3 L used, C] residual to coefficients of unit variance.
    """

    share: Tensor
    readout: Tensor


@dataclass(frozen=True)
class Correctives:
    """A linear basis, and how to find its coefficients.

    Attributes:
        basis: [C, V, 3] metres; first the mouth modes, then lids and upper face, last the mean.
        mouth_count: How many belong to the mouth.
        mean: [L used, 3] the mean residual.
        limit_m: Residuals longer than this are left out.
        groups: Mouth, eyelids and upper face.
    """

    basis: Tensor
    mouth_count: int
    mean: Tensor
    limit_m: float
    groups: tuple[_Group, ...]

    def coefficients(self, residual: Tensor) -> Tensor:
        """Coefficients of [T, L used, 3] residuals: [T, C]; the last, of the mean, is 1."""
        varying = _trimmed(residual, self.limit_m) - self.mean
        values = [(varying * group.share).flatten(1) @ group.readout for group in self.groups]
        return torch.cat([*values, torch.ones(len(residual), 1)], dim=1)


class Spreading:
    """Carries displacements from landmarks to the vertices around them.

    Args:
        head: The head model with the speaker's identity settled.
        eyes: Outer eye corners, positions in the head's landmark table: (right, left).
        lips: Positions in the landmark table of the middle inner lips: (upper, lower).
        lids: Positions in the landmark table of the points on the lid lines.
        usable: [L] bool, landmarks that lie on skin.
    """

    def __init__(
        self,
        head: HeadModel,
        eyes: tuple[int, int],
        lips: tuple[int, int],
        lids: list[int],
        usable: Tensor,
    ) -> None:
        none = torch.zeros(0)
        no_expression = torch.zeros(1, head.expression_count)
        vertices = head.vertices(none, no_expression, torch.tensor([[OPEN_JAW_RAD, 0.0, 0.0]]))[0]
        corners, weights = head.landmark_vertices, head.landmark_weights
        points = (vertices[corners] * weights[..., None]).sum(1)  # [L, 3]
        self.eye_distance = float((points[eyes[0]] - points[eyes[1]]).norm())
        width = SPREAD * self.eye_distance
        centres = points[usable]

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return torch.exp(-torch.cdist(a, b).square() / (2 * width**2))

        inner = kernel(centres, centres) + KERNEL_RIDGE * torch.eye(len(centres))
        self.to_vertices = torch.linalg.solve(inner, kernel(vertices, centres).T).T  # [V, L used]
        rigid = torch.tensor([REGIONS.index(name) for name in RIGID_REGIONS])
        fixed = torch.unique(head.faces[torch.isin(head.face_regions, rigid)])
        # The lips' own border vertices belong to both; they must move with the lips.
        lips_vertices = torch.unique(head.faces[head.face_regions == REGIONS.index("lips")])
        interior = fixed[~torch.isin(fixed, lips_vertices)]
        self.to_vertices[interior] = 0.0
        picked = self.to_vertices[corners[usable]]  # [L used, 3, L used]
        self.to_landmarks = (picked * weights[usable][..., None]).sum(1)  # [L used, L used]
        closed = head.vertices(none, no_expression, torch.zeros(1, 3))[0]
        height = (closed[corners] * weights[..., None]).sum(1)[:, 1]
        mouth = (height[lips[0]] + height[lips[1]]) / 2
        level = (height - mouth) / ((height[eyes[0]] + height[eyes[1]]) / 2 - mouth)
        self.mouth_share = _ramp((UPPER_ABOVE - level) / (UPPER_ABOVE - MOUTH_BELOW))[usable]
        off = torch.cdist(points, points[lids]).min(dim=1).values / self.eye_distance  # [L]
        lid_share = _ramp((LIDS_NOT_BEYOND - off) / (LIDS_NOT_BEYOND - LIDS_WITHIN))[usable]
        self.lid_share = lid_share * (1 - self.mouth_share)  # [L used]


def learn_correctives(residual: Tensor, spreading: Spreading) -> Correctives:
    """Compress landmark residuals into a basis.

    Args:
        residual: [T, L used, 3] what is missing at the landmarks, metres, head frame.
        spreading: From `Spreading`, for the same landmarks.
    """
    limit = LARGEST * spreading.eye_distance
    residual = _trimmed(residual, limit)
    # Spreading smooths; asking for a little more makes up for it at the landmarks.
    blur, one = spreading.to_landmarks, torch.eye(len(spreading.to_landmarks))
    sharpen = torch.linalg.solve(
        blur.T @ blur + SHARPENING_RIDGE * one, blur.T + SHARPENING_RIDGE * one
    )
    mean = residual.mean(dim=0)
    varying = residual - mean
    mouth, lids = spreading.mouth_share[:, None], spreading.lid_share[:, None]
    parts = ((mouth, MOUTH_MODES), (lids, LID_MODES), (1 - mouth - lids, UPPER_MODES))
    bases, groups = [], []
    for part_share, count in parts:
        part = varying * part_share
        modes = torch.einsum("lk,ckd->cld", sharpen, _principal(part, part_share[:, 0] > 0, count))
        shown = torch.einsum("lk,ckd->cld", blur, modes).flatten(1)  # [C, 3 L]
        gram = shown @ shown.T
        gram += COEFFICIENT_RIDGE * gram.diagonal().mean() * torch.eye(count)
        readout = torch.linalg.solve(gram, shown).T  # [3 L, C]
        deviation = (part.flatten(1) @ readout).std(dim=0).clamp_min(1e-6)
        groups.append(_Group(part_share, readout / deviation))
        bases.append(modes * deviation[:, None, None])
    bases.append((sharpen @ mean)[None])
    basis = torch.einsum("vl,cld->cvd", spreading.to_vertices, torch.cat(bases))
    return Correctives(basis, MOUTH_MODES, mean, limit, tuple(groups))


def _ramp(share: Tensor) -> Tensor:
    """0 below 0, 1 above 1, smooth between."""
    share = share.clamp(0, 1)
    return share * share * (3 - 2 * share)


def _trimmed(residual: Tensor, limit_m: float) -> Tensor:
    """Zero what is too far off to be the face's."""
    return residual * (residual.norm(dim=-1, keepdim=True) < limit_m)


def _principal(samples: Tensor, used: Tensor, count: int) -> Tensor:
    """The strongest `count` directions of [T, L, 3] samples: [count, L, 3], unit length.

    Args:
        samples: Zero at the landmarks that are not used.
        used: [L] bool.
        count: How many.
    """
    flat = samples[:, used].flatten(1).double()
    scatter = flat.T @ flat
    # A clip without any motion has no directions: the ridge lets the solver pick some.
    scatter += 1e-12 * (scatter.diagonal().mean() + 1e-12) * torch.eye(len(scatter)).double()
    last = len(scatter) - 1
    _, vectors = eigh(scatter.numpy(), subset_by_index=[last - count + 1, last])
    found = torch.zeros(count, *samples.shape[1:])
    strongest_first = torch.from_numpy(vectors).flip(1).T.to(samples.dtype)
    found[:, used] = strongest_first.reshape(count, -1, samples.shape[2])
    return found
