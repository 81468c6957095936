"""One speaker's head: a head model with the identity settled and the speaker's own correctives.

It poses only; where identity and correctives come from is tracking's business.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkgs_cli.types import HeadModel


class SpeakerHead:
    """Vertices and landmarks of one speaker, fast and differentiable in all arguments.

    Args:
        head: The head model.
        shape: [S] identity.
        corrective_basis: [C, V, 3] metres, added after posing; C may be 0.
    """

    def __init__(self, head: HeadModel, shape: Tensor, corrective_basis: Tensor) -> None:
        self.head = head.settle(shape)
        self.corrective_basis = corrective_basis
        # Only the corners of the landmarks' triangles are posed for `landmarks`.
        corners, place = torch.unique(head.landmark_vertices, return_inverse=True)
        self._corners_head = self.head.only(corners)
        self._corners_corrective = corrective_basis[:, corners]
        self._corner_place = place  # [L, 3]
        self._none = shape.new_zeros(0)

    def vertices(self, expression: Tensor, jaw: Tensor, corrective: Tensor) -> Tensor:
        """Pose the head.

        Args:
            expression: [B, E].
            jaw: [B, 3] axis-angle, radians.
            corrective: [B, C].

        Returns:
            [B, V, 3] metres, head frame.
        """
        posed = self.head.vertices(self._none, expression, jaw)
        return posed + torch.einsum("bc,cvd->bvd", corrective, self.corrective_basis)

    def landmarks(self, expression: Tensor, jaw: Tensor, corrective: Tensor) -> Tensor:
        """The points the tracker sees: [B, L, 3] metres, head frame, in `landmark_index` order."""
        corners = self._corners_head.vertices(self._none, expression, jaw)
        corners = corners + torch.einsum("bc,cvd->bvd", corrective, self._corners_corrective)
        return torch.einsum(
            "blkd,lk->bld", corners[:, self._corner_place], self.head.landmark_weights
        )
