"""The speaker's own correctives: what the head model can't do, as a small linear basis.

Landmark residuals of all frames are compressed to a few mouth modes, a few upper-face modes and
their mean, and spread from landmarks to vertices. It moves skin only: teeth, tongue and eyeballs
stay what the model says. It solves no pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talkgs_cli.types import REGIONS, HeadModel

MOUTH_MODES = 12
UPPER_MODES = 8
SPREAD = 0.10  # width of the spreading kernel, share of the eye distance
KERNEL_RIDGE = 0.15
COEFFICIENT_RIDGE = 0.02  # keeps coefficients of weak modes from following noise
OPEN_JAW_RAD = 0.3  # parts the lips, so that a lip's residual stays on its own lip
LARGEST = 0.25  # residuals beyond this share of the eye distance are not the face's
RIGID_REGIONS = ("upper_teeth", "lower_teeth", "tongue", "eyes", "mouth_interior")
# The border between mouth and upper face, as heights between lips (0) and eyes (1).
MOUTH_BELOW, UPPER_ABOVE = 0.35, 0.65


@dataclass(frozen=True)
class Correctives:
    """A linear basis and its coefficients.

    Attributes:
        basis: [C, V, 3] metres; first the mouth modes, then the upper face, last the mean.
        coefficients: [T, C]; about unit variance, the last is 1 in every frame.
        mouth_count: How many belong to the mouth.
    """

    basis: Tensor
    coefficients: Tensor
    mouth_count: int


class Spreading:
    """Carries displacements from landmarks to the vertices around them.

    Args:
        head: The head model with the speaker's identity settled.
        eyes: Outer eye corners, positions in the head's landmark table: (right, left).
        lips: Positions in the landmark table of the middle inner lips: (upper, lower).
        usable: [L] bool, landmarks that lie on skin.
    """

    def __init__(
        self, head: HeadModel, eyes: tuple[int, int], lips: tuple[int, int], usable: Tensor
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
        share = ((UPPER_ABOVE - level) / (UPPER_ABOVE - MOUTH_BELOW)).clamp(0, 1)
        self.mouth_share = (share * share * (3 - 2 * share))[usable]  # [L used]


def learn_correctives(residual: Tensor, valid: Tensor, spreading: Spreading) -> Correctives:
    """Compress landmark residuals into a basis.

    Args:
        residual: [T, L used, 3] what is missing at the landmarks, metres, head frame.
        valid: [T] bool, frames to learn from.
        spreading: From `Spreading`, for the same landmarks.
    """
    limit = LARGEST * spreading.eye_distance
    residual = residual * (residual.norm(dim=-1, keepdim=True) < limit)
    # Spreading smooths; asking for a little more makes up for it at the landmarks.
    sharpen = torch.linalg.lstsq(
        torch.cat([spreading.to_landmarks, 0.3 * torch.eye(len(spreading.to_landmarks))]),
        torch.cat(
            [torch.eye(len(spreading.to_landmarks)), 0.3 * torch.eye(len(spreading.to_landmarks))]
        ),
    ).solution  # [L, L]
    mean = residual[valid].mean(dim=0)
    varying = residual - mean
    share = spreading.mouth_share[:, None]
    groups = [(varying * share, MOUTH_MODES), (varying * (1 - share), UPPER_MODES)]
    bases, coefficients = [], []
    for part, count in groups:
        modes = _principal(part[valid], count)  # [C, L, 3]
        modes = torch.einsum("lk,ckd->cld", sharpen, modes)
        shown = torch.einsum("lk,ckd->cld", spreading.to_landmarks, modes).flatten(1)  # [C, 3 L]
        gram = shown @ shown.T
        gram += COEFFICIENT_RIDGE * gram.diagonal().mean() * torch.eye(count)
        values = torch.linalg.solve(gram, shown @ part.flatten(1).T).T  # [T, C]
        deviation = values[valid].std(dim=0).clamp_min(1e-6)
        coefficients.append(values / deviation)
        bases.append(modes * deviation[:, None, None])
    bases.append((sharpen @ mean.flatten(1))[None])
    coefficients.append(torch.ones(len(residual), 1))
    basis = torch.einsum("vl,cld->cvd", spreading.to_vertices, torch.cat(bases))
    return Correctives(basis, torch.cat(coefficients, dim=1), MOUTH_MODES)


def _principal(samples: Tensor, count: int) -> Tensor:
    """The strongest `count` directions of [T, L, 3] samples: [count, L, 3], unit length."""
    flat = samples.flatten(1)
    scatter = flat.T @ flat
    _, vectors = torch.linalg.eigh(scatter)
    return vectors[:, -count:].flip(1).T.reshape(count, *samples.shape[1:])
