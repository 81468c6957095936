"""The objective of one frame: image terms, alpha, regularisers (paper, section 3.3).

It renders and measures; it takes no step. Everything random is drawn from (seed, step).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig
from talkgs_cli.metrics.lpips import LPIPS
from talkgs_cli.rendering import rasterize
from talkgs_cli.rendering.gaussian_head import GaussianHead, PosedGaussians
from talkgs_cli.rendering.ssim import ssim
from talkgs_cli.training.frames import Box, TrainingFrame
from talkgs_cli.training.head_embedding import HeadEmbedding


class Objective:
    """What a fit makes small.

    Args:
        avatar: Head, track and Gaussians; the Gaussians may be replaced while a fit runs.
        embedding: Corrections of the track, or None.
        row_of: Row of each training frame in it.
        config: Weights.
        device: Where the Gaussians are; the head is posed on the CPU.
    """

    def __init__(
        self,
        avatar: Avatar,
        embedding: HeadEmbedding | None,
        row_of: dict[int, int],
        config: FitConfig,
        device: torch.device,
    ) -> None:
        self.avatar, self.embedding = avatar, embedding
        self.row_of, self.config, self.device = row_of, config, device
        self.codes = avatar.codes(avatar.tracking.motion)  # [T, 16]
        self.lpips = LPIPS("alex").to(device) if config.lpips_weight else None
        start = avatar.gaussians.log_scales.detach()
        self.largest_log_scale = float(start.max() + math.log(config.scale_limit))
        self.means2d: Tensor | None = None  # of the last rendering, for density control

    @property
    def gaussians(self) -> GaussianHead:
        """The Gaussians as they are now."""
        return self.avatar.gaussians

    def vertices(self, frame: int, *, embedded: bool) -> Tensor:
        """[V, 3] head of a frame, corrected by the embedding if there is one."""
        motion = self.avatar.tracking.motion.at(slice(frame, frame + 1))
        if embedded and self.embedding is not None:
            return self.embedding.vertices(motion, self.row_of[frame])
        return self.avatar.head.vertices(motion.expression, motion.jaw, motion.corrective)[0]

    def render(
        self, frame: TrainingFrame, background: Tensor, code: Tensor, *, embedded: bool
    ) -> tuple[Tensor, Tensor, PosedGaussians]:
        """([3, h, w] image over the background, [h, w] alpha, the posed Gaussians)."""
        vertices = self.vertices(frame.index, embedded=embedded).to(self.device)
        posed = self.gaussians(vertices, code.to(self.device))
        height, width = frame.mask.shape
        counting = self.config.densify_every > 0 and torch.is_grad_enabled()
        colors, alphas, meta = rasterize(
            posed.means,
            posed.quats,
            posed.scales,
            posed.opacities,
            posed.colors,
            self.avatar.tracking.motion.world_to_camera[frame.index][None].to(self.device),
            frame.intrinsics[None],
            width,
            height,
            sh_degree=self.gaussians.sh_degree,
            backgrounds=background.to(self.device),
            absgrad=counting,
        )
        if counting:
            self.means2d = meta["means2d"]
        image, alpha = colors[0].permute(2, 0, 1), alphas[0, ..., 0]
        if (gains := self.avatar.exposure.gains) is not None:
            image = image * torch.from_numpy(gains[frame.index]).to(image)[:, None, None]
        return image, alpha, posed

    def loss(
        self, frame: TrainingFrame, step: int, done: float, *, embedded: bool = True
    ) -> Tensor:
        """The whole objective.

        Args:
            frame: A training frame.
            step: Number of the step.
            done: Share of the fit behind us; LPIPS joins late.
            embedded: Whether the frame's own corrections apply.
        """
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 7_919 + step)
        background = torch.rand(1, 3, generator=generator)
        code = self.codes[frame.index]
        if config.code_noise:
            code = code + config.code_noise * torch.randn(len(code), generator=generator)
        image, alpha, posed = self.render(frame, background, code, embedded=embedded)
        mask = frame.mask
        # Outside the mask the real pixels stand in, so that nothing there pulls at the Gaussians.
        seen = (image * mask + frame.image * (1 - mask)).contiguous()
        loss = self.image_terms(seen, frame)
        loss = loss + config.alpha_weight * (alpha - mask).abs().mean()
        if self.lpips is not None and done >= config.lpips_from and step % config.lpips_every == 0:
            box = lpips_box(frame, config, generator)
            perceptual = self.lpips(seen[None, :, *box], frame.image[None, :, *box])[0]
            loss = loss + config.lpips_weight * perceptual
        if embedded and self.embedding is not None:
            loss = loss + self.embedding.cost(self.row_of[frame.index]).to(self.device)
        return loss + self.regularisers(posed)

    def image_terms(self, seen: Tensor, frame: TrainingFrame) -> Tensor:
        """L1 and D-SSIM per masked pixel; the mouth counts more in L1."""
        config = self.config
        per_mask = frame.mask.numel() / frame.mask.sum().clamp_min(1)
        difference = ((seen - frame.image).abs() * frame.weight).mean()
        return per_mask * (
            config.l1_weight * difference + config.ssim_weight * (1 - ssim(seen, frame.image))
        )

    @torch.no_grad()
    def judge(self, frame: TrainingFrame) -> tuple[float, float]:
        """(loss without regularisers, PSNR inside the mask) of a frame no weight has learnt."""
        background = torch.full((1, 3), 0.5)
        image, _, _ = self.render(frame, background, self.codes[frame.index], embedded=False)
        seen = (image * frame.mask + frame.image * (1 - frame.mask)).contiguous()
        loss = self.image_terms(seen, frame)
        if self.lpips is not None:
            loss = loss + self.config.lpips_weight * self.lpips(seen[None], frame.image[None])[0]
        square = (seen - frame.image).square().sum() / (3 * frame.mask.sum().clamp_min(1))
        return float(loss), float(-10 * square.clamp_min(1e-10).log10())

    def regularisers(self, posed: PosedGaussians) -> Tensor:
        """Keep Gaussians small, on their triangles, and the blendshapes modest."""
        g, config = self.gaussians, self.config
        outside = F.relu(-g.barycentric) + F.relu(g.barycentric - 1)
        kept = 0.1 * outside.square().mean()
        if config.blendshapes:
            kept = kept + 1e-3 * g.position_basis.square().mean()
            kept = kept + 1e-4 * g.color_basis.square().mean()
        if config.limits_in == "pixels":
            too_large = F.relu(g.log_scales - self.largest_log_scale).square().mean()
            # Inwards some pixels are free for all; outwards each Gaussian has its own limit.
            off = F.relu(g.offset - g.offset_limit_px) + F.relu(-g.offset - config.position_limit)
            off = off.square().mean()
        else:  # GaussianAvatars' form of the paper's L_p and L_s: in units of the triangle
            size = g.reference_areas[g.binding].mul(2).sqrt()  # [N] metres
            off = F.relu((g.offset * g.metres_per_pixel / size).abs() - config.position_limit)
            off = off.mean()
            too_large = F.relu(posed.scales / size[:, None] - config.scale_limit).mean()
        return kept + config.scale_weight * too_large + config.position_weight * off


def lpips_box(frame: TrainingFrame, config: FitConfig, generator: torch.Generator) -> Box:
    """Rows and columns that LPIPS looks at: a share of the time round the mouth, else anywhere.

    A patch costs the same at every crop size; the whole window would cost more than all else.
    """
    draw = float(torch.rand((), generator=generator))
    at_mouth = draw < config.lpips_mouth_share
    places = []
    for size, mouth in zip(frame.mask.shape, frame.mouth, strict=True):
        side = min(size, config.lpips_patch)
        start = int(torch.rand((), generator=generator) * (size - side + 1))
        if at_mouth:
            middle = (mouth.start + mouth.stop - 1) // 2
            start = min(max(middle - side // 2, 0), size - side)
        places.append(slice(start, start + side))
    return places[0], places[1]
