"""Where a fit starts: which triangles carry Gaussians, how many each, their size and colour."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.config import FitConfig
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.landmark_points import EYES, LIPS_INNER, LIPS_OUTER, OUTER_EYE_LEFT, OUTER_EYE_RIGHT
from talkgs_cli.rendering.gaussian_head import GaussianHead
from talkgs_cli.rendering.mesh import rasterize_mesh
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import LABELS, REGIONS, HeadMotion, Tracking, project

SAMPLES = 24  # frames looked at
OPEN_JAW_RAD = 0.25  # opened this far, the mouth shows its inside
NEAR_FEATURE_IOD = 0.10  # "on the lips or the eyes": within this share of the inter-ocular distance
BONE = ("upper_teeth", "lower_teeth")
INTERIOR = ("mouth_interior", "upper_teeth", "lower_teeth", "tongue")


class Start:
    """Everything measured before the first step; `build` makes the Gaussians from it."""

    def __init__(
        self,
        speaker: SpeakerFolder,
        tracking: Tracking,
        head: SpeakerHead,
        train: list[int],
        config: FitConfig,
    ) -> None:
        self.speaker, self.tracking, self.head, self.config = speaker, tracking, head, config
        crop = speaker.crop
        self.intrinsics = torch.from_numpy(crop.intrinsics(tracking.intrinsics.numpy())).float()
        self.faces = head.head.faces
        self.regions = head.head.face_regions
        spread = train[:: max(1, len(train) // (SAMPLES // 2))]
        opened = sorted(train, key=lambda t: -float(tracking.motion.jaw[t, 0]))[: SAMPLES // 2]
        self.samples = torch.tensor(sorted({*spread, *opened}))
        motion = tracking.motion.at(self.samples)
        self.poses = motion.world_to_camera
        self.vertices = head.vertices(motion.expression, motion.jaw, motion.corrective)  # [B, V, 3]
        wide = HeadMotion(
            motion.expression,
            motion.jaw + torch.tensor([OPEN_JAW_RAD, 0, 0]),
            motion.corrective,
            motion.world_to_camera,
        )
        self.opened = head.vertices(wide.expression, wide.jaw, wide.corrective)
        depth = self.poses[:, 2, 3].mean()
        self.metres_per_pixel = float(depth / self.intrinsics[0, 0])

    def _pixels(self, vertices: Tensor) -> Tensor:
        """[B, V, 3] crop pixels and depth."""
        pixels = project(vertices, self.poses, self.intrinsics)
        camera = vertices @ self.poses[:, :3, :3].transpose(1, 2) + self.poses[:, None, :3, 3]
        return torch.cat([pixels, camera[..., 2:]], dim=-1)

    def visible_pixels(self) -> NDArray[np.int64]:
        """[F] most pixels that a triangle shows in any sampled frame, over the face's mask.

        Teeth, tongue and mouth interior also count where a mouth opened by force shows them. A
        triangle that shows none is not the renderer's.
        """
        size = self.speaker.crop.size
        faces = self.faces.numpy()
        interior = np.isin(self.regions.numpy(), [REGIONS.index(name) for name in INTERIOR])
        most = np.zeros(len(faces), np.int64)
        closed, opened = (self._pixels(v).numpy() for v in (self.vertices, self.opened))
        for b, index in enumerate(self.samples.tolist()):
            zone = self.speaker.label(index) >= LABELS["neck"]
            zone = cv2.dilate(zone.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
            triangle, _ = rasterize_mesh(closed[b], faces, (size, size))
            wide, _ = rasterize_mesh(opened[b], faces, (size, size))
            for shown, counted in ((triangle[zone], True), (wide, interior)):
                pixels = np.bincount(shown[shown >= 0], minlength=len(faces))
                most = np.maximum(most, pixels * counted)
        return most

    def densities(self, triangles: Tensor, regions: Tensor) -> Tensor:
        """[F'] relative number of Gaussians per area."""
        centres = self.vertices.mean(0)[triangles].mean(1)  # [F', 3]
        motion = self.tracking.motion.at(self.samples)
        points = self.head.landmarks(motion.expression, motion.jaw, motion.corrective).mean(0)
        where = self.head.head.landmark_index
        at = {int(index): row for row, index in enumerate(where)}
        features = points[[at[i] for i in (*LIPS_OUTER, *LIPS_INNER, *EYES) if i in at]]
        iod = (points[at[OUTER_EYE_RIGHT]] - points[at[OUTER_EYE_LEFT]]).norm()
        near = torch.cdist(centres, features).min(1).values < NEAR_FEATURE_IOD * iod
        density = torch.where(near, self.config.density_lips_eyes, 1.0)
        for names, value in (
            ((*BONE, "eyes"), self.config.density_teeth_eyeballs),
            (("tongue", "mouth_interior"), self.config.density_tongue),
        ):
            there = torch.isin(regions, torch.tensor([REGIONS.index(name) for name in names]))
            density = torch.where(there, value, density)
        return density

    def _rigid(self, regions: Tensor) -> Tensor:
        """[F'] bool, triangles that move with their bone alone."""
        if not self.config.rigid_teeth:
            return torch.zeros(len(regions), dtype=torch.bool)
        return torch.isin(regions, torch.tensor([REGIONS.index(name) for name in BONE]))

    def colours(self, head: GaussianHead) -> Tensor:
        """[N, 3] mean colour of the pixels a Gaussian projects to over the sampled frames."""
        total = torch.zeros(len(head), 3)
        for b, index in enumerate(self.samples.tolist()):
            image = torch.from_numpy(self.speaker.frame(index))
            means = head.place(self.vertices[b])[None]
            pixels = project(means, self.poses[b : b + 1], self.intrinsics)[0]
            x, y = pixels.floor().long().clamp(0, self.speaker.crop.size - 1).unbind(1)
            total += image[y, x].float() / 255
        return total / len(self.samples)

    def build(self) -> GaussianHead:
        """Sample the Gaussians, weighted by the area that is seen of a triangle at its best."""
        pixels = torch.from_numpy(self.visible_pixels())
        chosen = torch.nonzero(pixels)[:, 0]
        triangles, regions = self.faces[chosen], self.regions[chosen]
        areas = torch.maximum(
            _areas(self.vertices.mean(0), triangles), _areas(self.opened.mean(0), triangles)
        ).clamp_min((0.3 * self.metres_per_pixel) ** 2)
        seen = torch.minimum(pixels[chosen] * self.metres_per_pixel**2, areas)
        weights = seen * self.densities(triangles, regions)
        count = self.config.gaussians
        binding = torch.multinomial(weights / weights.sum(), count, replacement=True)
        barycentric = torch.rand(count, 2)
        outside = barycentric.sum(1) > 1
        barycentric[outside] = 1 - barycentric[outside]
        spacing = (areas * weights.sum() / (weights * count)).sqrt()[binding]  # [N] metres
        scales_px = (spacing / self.metres_per_pixel).clamp(0.3, 6) * 0.6
        eyes = regions[binding] == REGIONS.index("eyes")
        limit = torch.where(eyes, 0.0, self.config.position_limit)
        head = GaussianHead(
            triangles,
            areas,
            binding,
            barycentric,
            scales_px,
            torch.full((count, 3), 0.5),
            limit,
            self.config.sh_degree,
            self.metres_per_pixel,
            self._rigid(regions),
        )
        with torch.no_grad():
            head.sh0.copy_(((self.colours(head) - 0.5) / 0.28209479177387814)[:, None])
        return head


def _areas(vertices: Tensor, triangles: Tensor) -> Tensor:
    corners = vertices[triangles]
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return cross.norm(dim=1) / 2
