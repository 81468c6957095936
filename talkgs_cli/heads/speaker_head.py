"""One speaker's head: a head model with the identity settled and the speaker's own correctives.

It poses only; where identity and correctives come from is tracking's business.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkgs_cli.heads.jaw import rotate_jaw
from talkgs_cli.types import REGIONS, HeadModel


class SpeakerHead:
    """Vertices and landmarks of one speaker, fast and differentiable in all arguments.

    Args:
        head: The head model.
        shape: [S] identity.
        corrective_basis: [C, V, 3] metres, added after posing; C may be 0.
        lower_teeth_m: How far the lower teeth lie above where the head model has them, along the
            jaw's y; without an effect on heads that have none.
    """

    def __init__(
        self,
        head: HeadModel,
        shape: Tensor,
        corrective_basis: Tensor,
        lower_teeth_m: float = 0.0,
    ) -> None:
        self.head = head.settle(shape)
        self.lower_teeth_m = lower_teeth_m
        lower_teeth = head.face_regions == REGIONS.index("lower_teeth")
        self._lower_teeth = torch.unique(head.faces[lower_teeth])
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
        posed = posed + torch.einsum("bc,cvd->bvd", corrective, self.corrective_basis)
        if self.lower_teeth_m:
            posed = self.raise_lower_teeth(posed, jaw, self.lower_teeth_m)
        return posed

    def raise_lower_teeth(self, posed: Tensor, jaw: Tensor, height_m: float) -> Tensor:
        """[B, V, 3] vertices posed with [B, 3] jaws, the lower teeth moved along the jaw's y."""
        up = posed.new_tensor([[[0.0, height_m, 0.0]]]).expand(len(posed), 1, 3)
        turned = rotate_jaw(up, jaw, posed.new_ones(1))
        rows = self._lower_teeth
        return posed.index_add(1, rows, turned.expand(-1, len(rows), -1))

    def landmarks(self, expression: Tensor, jaw: Tensor, corrective: Tensor) -> Tensor:
        """The points the tracker sees: [B, L, 3] metres, head frame, in `landmark_index` order."""
        corners = self._corners_head.vertices(self._none, expression, jaw)
        corners = corners + torch.einsum("bc,cvd->bvd", corrective, self._corners_corrective)
        return torch.einsum(
            "blkd,lk->bld", corners[:, self._corner_place], self.head.landmark_weights
        )
