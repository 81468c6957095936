"""A head model seen through its landmarks: exact points, and tables of how they move.

The tables are finite differences of `HeadModel.vertices` at a few jaw openings, so any head model
will do. It solves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkgs_cli.types import HeadModel

OPENINGS_RAD = (0.0, 0.2, 0.4)  # knots of the tables, equally spaced from 0
STEP = 0.05  # finite difference, of coefficients and radians


class LandmarkRig:
    """The head's landmark points and their derivatives.

    Args:
        head: The head model; its identity is free.
    """

    def __init__(self, head: HeadModel) -> None:
        corners, self._place = torch.unique(head.landmark_vertices, return_inverse=True)
        self._corners = head.only(corners)
        self._weights = head.landmark_weights  # [L, 3]
        self.index = head.landmark_index  # [L]
        self.shape_count = head.shape_count
        self.expression_count = head.expression_count
        self.expression_range = head.expression_range

    def settle(self, shape: Tensor) -> LandmarkRig:
        """The same rig with the identity [S] built in: faster, S becomes 0."""
        settled = object.__new__(LandmarkRig)
        settled.__dict__.update(self.__dict__)
        settled._corners = self._corners.settle(shape)
        settled.shape_count = 0
        return settled

    def points(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Landmarks in the head frame: [B, L, 3] metres."""
        corners = self._corners.vertices(shape, expression, jaw)  # [B, K, 3]
        picked = corners[:, self._place]  # [B, L, 3 corners, 3]
        return (picked * self._weights[..., None]).sum(dim=2)

    def motion_table(self, shape: Tensor) -> Tensor:
        """How the points move with expression and jaw.

        Returns:
            [K, L, 3, E + 3] metres per coefficient or radian, one table per opening in
            `OPENINGS_RAD`, at expression 0.
        """
        count = self.expression_count
        tables = []
        for opening in OPENINGS_RAD:
            steps = torch.eye(count + 3) * STEP
            jaw = steps[:, count:] + torch.tensor([opening, 0.0, 0.0])
            moved = self.points(shape, steps[:, :count], jaw)  # [E + 3, L, 3]
            still = self.points(shape, torch.zeros(1, count), torch.tensor([[opening, 0.0, 0.0]]))
            tables.append(((moved - still) / STEP).permute(1, 2, 0))
        return torch.stack(tables)

    def identity_table(self) -> Tensor:
        """How the points move with identity, mouth closed: [L, 3, S] metres per deviation."""
        steps = torch.eye(self.shape_count)
        expression = torch.zeros(self.shape_count, self.expression_count)
        jaw = torch.zeros(self.shape_count, 3)
        moved = self.points(steps, expression, jaw)
        still = self.points(torch.zeros(self.shape_count), expression[:1], jaw[:1])
        return (moved - still).permute(1, 2, 0)


def table_at(table: Tensor, opening_rad: Tensor) -> Tensor:
    """Interpolate a [K, ...] table at [B] jaw openings, clamped to its ends: [B, ...]."""
    place = (opening_rad / OPENINGS_RAD[1]).clamp(0, len(table) - 1 - 1e-4)
    below = place.floor().long()
    share = (place - below).view(-1, *[1] * (table.ndim - 1))
    return torch.lerp(table[below], table[below + 1], share)
