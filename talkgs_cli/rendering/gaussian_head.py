"""Gaussians bound to a head's triangles, with the Speaker-specific BlendShapes on top.

`GaussianHead` turns posed vertices and a latent pose into the tensors `rasterize` wants. It renders
nothing and trains nothing. Lengths of its parameters are in *pixels at the head's distance*
(`metres_per_pixel` converts), so that one set of learning rates serves every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkgs_cli.rendering.binding import quat_multiply, triangle_frames
from talkgs_cli.rendering.fused_pose import fused_pose

BASES = 8  # paper, table 2: W_pos, W_rot, W_color are Linear 256 -> 8
CODE_SIZE = 16  # paper, table 2: W_gamma starts with Linear 16 -> 256
LATENT_SIZE = 256
SH_C0 = 0.28209479177387814


@dataclass
class PosedGaussians:
    """N Gaussians in the head frame, activated: what `rasterize` takes.

    Attributes:
        means: [N, 3] metres.
        quats: [N, 4] wxyz, not normalised.
        scales: [N, 3] metres.
        opacities: [N] in (0, 1).
        colors: [N, K, 3] spherical harmonics.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


class GaussianHead(nn.Module):
    """The speaker's Gaussians (paper, section 3.3).

    Args:
        triangles: [F, 3] vertex indices of the triangles that carry Gaussians.
        reference_areas: [F] areas (square metres) at which Gaussians have their own size.
        binding: [N] triangle of each Gaussian.
        barycentric: [N, 2] weights of the triangle's second and third corner.
        scales_px: [N] initial size, pixels.
        colors: [N, 3] initial colour, 0 to 1.
        offset_limit_px: [N] how far a Gaussian may leave its triangle outwards before it is
            pulled back (zero keeps eyeballs behind their lids).
        sh_degree: Order of the spherical harmonics.
        metres_per_pixel: Size of a crop pixel at the head's distance.
        rigid: [F] bool, triangles whose Gaussians the blendshapes colour but never move: teeth
            stay with their bone. None: no such triangle.
    """

    def __init__(
        self,
        triangles: Tensor,
        reference_areas: Tensor,
        binding: Tensor,
        barycentric: Tensor,
        scales_px: Tensor,
        colors: Tensor,
        offset_limit_px: Tensor,
        sh_degree: int,
        metres_per_pixel: float,
        rigid: Tensor | None = None,
    ) -> None:
        super().__init__()
        count = len(binding)
        self.sh_degree = sh_degree
        self.triangles: Tensor
        self.binding: Tensor
        self.reference_areas: Tensor
        self.offset_limit_px: Tensor
        self.metres_per_pixel: Tensor
        self.rigid: Tensor
        none = torch.zeros(len(triangles), dtype=torch.bool)
        self.register_buffer("rigid", none if rigid is None else rigid)
        self.register_buffer("triangles", triangles)
        self.register_buffer("binding", binding)
        self.register_buffer("reference_areas", reference_areas)
        self.register_buffer("offset_limit_px", offset_limit_px)
        self.register_buffer("metres_per_pixel", torch.tensor(metres_per_pixel))
        self.barycentric = nn.Parameter(barycentric)  # [N, 2]
        self.offset = nn.Parameter(torch.zeros(count))  # [N] pixels along the normal
        identity = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
        self.quats = nn.Parameter(identity + 0.01 * torch.randn(count, 4))  # [N, 4]
        flat = torch.tensor([0.0, 0.0, -0.7])  # thinner along the normal
        self.log_scales = nn.Parameter(scales_px.log()[:, None] + flat)  # [N, 3] log pixels
        self.opacity_logits = nn.Parameter(torch.full((count,), 0.5))  # [N]
        self.sh0 = nn.Parameter(((colors - 0.5) / SH_C0)[:, None].contiguous())  # [N, 1, 3]
        self.shN = nn.Parameter(torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3))
        self.position_basis = nn.Parameter(torch.zeros(BASES, count, 3))  # pixels
        self.rotation_basis = nn.Parameter(torch.zeros(BASES, count, 4))
        self.color_basis = nn.Parameter(torch.zeros(BASES, count, 3))
        self.w_gamma = nn.Sequential(
            nn.Linear(CODE_SIZE, LATENT_SIZE), nn.LeakyReLU(), nn.Linear(LATENT_SIZE, LATENT_SIZE)
        )
        self.w_pos = nn.Linear(LATENT_SIZE, BASES)
        self.w_rot = nn.Linear(LATENT_SIZE, BASES)
        self.w_color = nn.Linear(LATENT_SIZE, BASES)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> GaussianHead:
        """Rebuild a head from its `state_dict` (sizes are read off the tensors).

        States from before there were rigid triangles have none.
        """
        state = {"rigid": torch.zeros(len(state["triangles"]), dtype=torch.bool), **state}
        count = len(state["binding"])
        degree = round((state["shN"].shape[1] + 1) ** 0.5) - 1
        blank = torch.zeros(count)
        head = cls(
            state["triangles"],
            state["reference_areas"],
            state["binding"],
            torch.zeros(count, 2),
            blank + 1,
            torch.zeros(count, 3),
            blank,
            degree,
            1.0,
        )
        head.load_state_dict(state)
        return head

    def __len__(self) -> int:
        return len(self.binding)

    def place(self, vertices: Tensor, normals: Tensor | None = None) -> Tensor:
        """[N, 3] positions on the posed triangles, metres; along the normals if they are given."""
        corners = vertices.index_select(0, self.triangles[self.binding].reshape(-1)).view(-1, 3, 3)
        u, v = self.barycentric[:, :1], self.barycentric[:, 1:]
        means = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
        if normals is not None:
            means = means + (self.offset * self.metres_per_pixel)[:, None] * normals
        return means

    def forward(self, vertices: Tensor, code: Tensor) -> PosedGaussians:
        """Pose the Gaussians.

        Args:
            vertices: [V, 3] posed head, metres. Gradients reach it through the positions only;
                the triangles' rotations are taken as given.
            code: [16] normalised driving code (see `avatar.DrivingCode`).
        """
        moves, turns, shifts = self.blended(code)
        if vertices.device.type == "cpu" and vertices.dtype == self.quats.dtype == torch.float32:
            return PosedGaussians(
                *fused_pose(
                    vertices,
                    self.triangles[self.binding],
                    self.reference_areas[self.binding],
                    float(self.metres_per_pixel),
                    barycentric=self.barycentric,
                    offset=self.offset,
                    quats=self.quats,
                    turns=turns,
                    log_scales=self.log_scales,
                    opacity_logits=self.opacity_logits,
                    sh0=self.sh0,
                    color_shifts=shifts,
                    shN=self.shN,
                    moves=moves,
                )
            )
        return self._pose(vertices, moves, turns, shifts)

    def blended(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the blendshapes add at a driving code.

        Returns:
            [N, 3] moves in pixels and [N, 4] turns, none on rigid triangles; [N, 3] colours.
        """
        latent = self.w_gamma(code)
        free = (~self.rigid)[self.binding].to(self.quats.dtype)[:, None]  # [N, 1]
        return (
            free * _blend(self.w_pos(latent), self.position_basis),
            free * _blend(self.w_rot(latent), self.rotation_basis),
            _blend(self.w_color(latent), self.color_basis),
        )

    def _pose(
        self, vertices: Tensor, moves: Tensor, turns: Tensor, shifts: Tensor
    ) -> PosedGaussians:
        """`fused_pose` in plain torch: for other devices and precisions; its specification."""
        with torch.no_grad():
            corners = vertices.index_select(0, self.triangles.reshape(-1)).view(-1, 3, 3)
            frames = triangle_frames(corners)
            stretch = (frames.areas / self.reference_areas).sqrt().clamp(0.4, 1.6)
            triangle_quats = frames.quats[self.binding]  # [N, 4]
            normals = frames.normals[self.binding]  # [N, 3]
            size = stretch[self.binding][:, None] * self.metres_per_pixel  # [N, 1]
        return PosedGaussians(
            self.place(vertices, normals) + moves * self.metres_per_pixel,
            quat_multiply(triangle_quats, F.normalize(self.quats + turns, dim=-1)),
            self.log_scales.exp() * size,
            self.opacity_logits.sigmoid(),
            torch.cat([self.sh0 + shifts[:, None], self.shN], dim=1),
        )


def _blend(weights: Tensor, basis: Tensor) -> Tensor:
    """[8] weights of a [8, N, D] basis, as one matrix product."""
    return (weights @ basis.view(len(basis), -1)).view(basis.shape[1:])
