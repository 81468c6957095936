"""The learnable head embedding: what a fit corrects of the track, frame by frame.

It keeps tracking errors of the training frames out of the Gaussians; nothing of it is deployed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig
from talkgs_cli.heads import load_head
from talkgs_cli.types import HeadMotion

VERTEX_MODES = 20  # of "modes", besides the six numbers of the pose
# One unit of "modes": radians, pixels, standard deviations of a vertex mode.
MODE_UNITS = (0.01,) * 3 + (0.5,) * 3 + (0.3,) * VERTEX_MODES
KEPT_SMALL = 1e-3  # weight of a row's mean square


class HeadEmbedding(nn.Module, ABC):
    """Rows of corrections of the head, one per training frame."""

    def row(self, name: str, index: int) -> Tensor:
        """One row of a learnable tensor; its gradient touches no other."""
        return F.embedding(torch.tensor(index), getattr(self, name), sparse=True)

    @abstractmethod
    def rates(self) -> dict[str, str]:
        """Name of each learnable tensor ([T', ..]) and the `FitConfig` field with its rate."""

    @abstractmethod
    def cost(self, row: int) -> Tensor:
        """What a correction costs, so that it stays small."""

    @abstractmethod
    def vertices(self, motion: HeadMotion, row: int) -> Tensor:
        """[V, 3] corrected head of one frame (`motion` has one frame), metres."""


def make_embedding(avatar: Avatar, train: Tensor, config: FitConfig) -> HeadEmbedding | None:
    """The embedding that the settings ask for, at zero."""
    if config.embedding == "off":
        return None
    if config.embedding == "head":
        return ParameterEmbedding(avatar, len(train), shape=config.shape_residual)
    return ModesEmbedding(avatar, train)


class ModesEmbedding(HeadEmbedding):
    """Six numbers of pose and the clip's own vertex modes, whatever the head model."""

    def __init__(self, avatar: Avatar, train: Tensor) -> None:
        super().__init__()
        self.head = avatar.head
        some = avatar.tracking.motion.at(train[:: max(1, len(train) // 300)])
        vertices = avatar.head.vertices(some.expression, some.jaw, some.corrective)  # [B, V, 3]
        mean = vertices.mean(0)
        flat = (vertices - mean).flatten(1)
        _, values, right = torch.linalg.svd(flat, full_matrices=False)
        found = min(VERTEX_MODES, len(values))
        modes = torch.zeros(VERTEX_MODES, flat.shape[1])
        modes[:found] = right[:found] * (values[:found, None] / math.sqrt(len(flat)))
        self.modes = modes  # [20, V * 3] metres, one standard deviation each
        self.centre = mean.mean(0)  # [3] pivot of the rotation, metres
        self.units = torch.tensor(MODE_UNITS)
        self.metres_per_pixel = float(avatar.gaussians.metres_per_pixel)
        self.rows = nn.Parameter(torch.zeros(len(train), len(MODE_UNITS)))  # [T', 26] in units

    def rates(self) -> dict[str, str]:
        """One tensor."""
        return {"rows": "lr_motion"}

    def vertices(self, motion: HeadMotion, row: int) -> Tensor:
        """[V, 3]: turned by a small angle, shifted, bent."""
        vertices = self.head.vertices(motion.expression, motion.jaw, motion.corrective)[0]
        delta = self.row("rows", row) * self.units
        turned = torch.linalg.cross(delta[:3].expand_as(vertices), vertices - self.centre)
        shift = delta[3:6] * self.metres_per_pixel
        bent = (delta[6:] @ self.modes).view_as(vertices)
        return vertices + turned + shift + bent

    def cost(self, row: int) -> Tensor:
        """Mean square, in units."""
        return KEPT_SMALL * self.row("rows", row).square().mean()


class ParameterEmbedding(HeadEmbedding):
    """The paper's: corrections of the head model's own parameters (supplement, table 2)."""

    def __init__(self, avatar: Avatar, count: int, *, shape: bool) -> None:
        super().__init__()
        self.head = avatar.head
        self.expression = nn.Parameter(torch.zeros(count, self.head.head.expression_count))
        self.jaw = nn.Parameter(torch.zeros(count, 3))  # radians
        self.orient = nn.Parameter(torch.zeros(count, 3))  # radians
        self.translation = nn.Parameter(torch.zeros(count, 3))  # metres
        self.shape_basis = shape_basis(avatar) if shape else None  # [S, V * 3] metres
        if self.shape_basis is not None:
            self.shape = nn.Parameter(torch.zeros(count, len(self.shape_basis)))

    def rates(self) -> dict[str, str]:
        """A rate for each parameter of the head."""
        names = ["expression", "jaw", "orient", "translation"]
        if self.shape_basis is not None:
            names.append("shape")
        return {name: f"lr_{name}" for name in names}

    def vertices(self, motion: HeadMotion, row: int) -> Tensor:
        """[V, 3]: posed with corrected parameters, turned about the head's origin."""
        expression = motion.expression + self.row("expression", row)
        jaw = motion.jaw + self.row("jaw", row)
        vertices = self.head.vertices(expression, jaw, motion.corrective)[0]
        if self.shape_basis is not None:
            vertices = vertices + (self.row("shape", row) @ self.shape_basis).view_as(vertices)
        turned = torch.linalg.cross(self.row("orient", row).expand_as(vertices), vertices)
        return vertices + turned + self.row("translation", row)

    def cost(self, row: int) -> Tensor:
        """Mean square of the coefficients."""
        return KEPT_SMALL * self.row("expression", row).square().mean()


def shape_basis(avatar: Avatar) -> Tensor:
    """[S, V * 3] metres that one unit of each identity coefficient moves the resting head."""
    tracking = avatar.tracking
    head = load_head(tracking.head)
    shapes = torch.cat([tracking.shape[None], tracking.shape + torch.eye(head.shape_count)])
    count = len(shapes)
    rest = head.vertices(shapes, torch.zeros(count, head.expression_count), torch.zeros(count, 3))
    return (rest[1:] - rest[0]).flatten(1)
