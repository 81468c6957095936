"""Optimises a speaker's Gaussians, blendshapes and head embedding (paper, section 3.3).

One frame a step. Everything random is drawn from (seed, step), so that a fit continued from a
checkpoint takes exactly the steps an uninterrupted one would have taken.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkgs_cli.avatar import Avatar, DrivingCode
from talkgs_cli.config import FitConfig
from talkgs_cli.metrics.lpips import LPIPS
from talkgs_cli.rendering import rasterize
from talkgs_cli.rendering.gaussian_head import GaussianHead
from talkgs_cli.rendering.ssim import ssim
from talkgs_cli.tracking.landmark_points import EYES, LIPS_INNER, LIPS_OUTER
from talkgs_cli.training.frames import FrameWindows, TrainingFrame
from talkgs_cli.types import HeadMotion

LPIPS_PATCH = 192  # pixels; see `GaussianTrainer._patch`
VERTEX_MODES = 20  # learnable per-frame deformation, besides the six numbers of the pose
# One unit of the learnable embedding: radians, pixels, standard deviations of a vertex mode.
MOTION_UNITS = (0.01,) * 3 + (0.5,) * 3 + (0.3,) * VERTEX_MODES
RATES = {
    "barycentric": "lr_barycentric",
    "offset": "lr_offset",
    "quats": "lr_quats",
    "log_scales": "lr_scales",
    "opacity_logits": "lr_opacities",
    "sh0": "lr_sh0",
    "shN": "lr_sh_rest",
    "position_basis": "lr_position_basis",
    "rotation_basis": "lr_rotation_basis",
    "color_basis": "lr_color_basis",
}


@dataclass
class Embedding:
    """The learnable head embedding: a small correction of the track, frame by frame.

    Attributes:
        rows: [T', 6 + 20] in MOTION_UNITS, one row a training frame.
        modes: [20, V, 3] metres, one standard deviation of the clip's vertex motion each.
        centre: [3] pivot of the rotation, metres.
        metres_per_pixel: Size of a pixel at the head.
    """

    rows: nn.Parameter
    modes: Tensor
    centre: Tensor
    metres_per_pixel: float

    @classmethod
    def start(cls, avatar: Avatar, train: Tensor) -> Embedding:
        """All zero, with modes from up to 300 of the training frames."""
        some = avatar.tracking.motion.at(train[:: max(1, len(train) // 300)])
        vertices = avatar.head.vertices(some.expression, some.jaw, some.corrective)  # [B, V, 3]
        mean = vertices.mean(0)
        flat = (vertices - mean).flatten(1)
        _, values, right = torch.linalg.svd(flat, full_matrices=False)
        found = min(VERTEX_MODES, len(values))
        modes = torch.zeros(VERTEX_MODES, flat.shape[1])
        modes[:found] = right[:found] * (values[:found, None] / math.sqrt(len(flat)))
        return cls(
            nn.Parameter(torch.zeros(len(train), len(MOTION_UNITS))),
            modes.view(VERTEX_MODES, -1, 3),
            mean.mean(0),
            float(avatar.gaussians.metres_per_pixel),
        )

    def apply(self, vertices: Tensor, row: int) -> Tensor:
        """[V, 3] vertices moved by row `row`."""
        delta = self.rows[row] * torch.tensor(MOTION_UNITS)
        rotation = delta[:3].expand_as(vertices)
        turned = torch.linalg.cross(rotation, vertices - self.centre)  # small angles
        shift = delta[3:6] * self.metres_per_pixel
        bent = (delta[6:] @ self.modes.flatten(1)).view_as(vertices)
        return vertices + turned + shift + bent


class GaussianTrainer:
    """State of one fit and its step.

    Args:
        avatar: The avatar to be trained, in place.
        windows: Where the frames come from.
        train: [T'] frame numbers to learn from.
        config: Weights and rates.
    """

    def __init__(
        self, avatar: Avatar, windows: FrameWindows, train: Tensor, config: FitConfig
    ) -> None:
        self.avatar, self.windows, self.train, self.config = avatar, windows, train, config
        self.gaussians: GaussianHead = avatar.gaussians
        self.codes = avatar.codes(avatar.tracking.motion)  # [T, 16]
        self.embedding = Embedding.start(avatar, train)
        self.row_of = {int(frame): row for row, frame in enumerate(train)}
        self.lpips = LPIPS("alex") if config.lpips_weight else None
        self.largest_log_scale = float(self.gaussians.log_scales.detach().max() + math.log(1.5))
        self.step = 0
        self.spent_s = 0.0
        networks = [
            p
            for name in ("w_gamma", "w_pos", "w_rot", "w_color")
            for p in getattr(self.gaussians, name).parameters()
        ]
        groups = [
            {"params": [getattr(self.gaussians, name)], "lr": getattr(config, rate), "name": name}
            for name, rate in RATES.items()
        ]
        groups.append({"params": networks, "lr": config.lr_networks, "name": "networks"})
        groups.append({"params": [self.embedding.rows], "lr": config.lr_motion, "name": "motion"})
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, betas=(0.9, 0.99), fused=True)
        self.full_rates = [group["lr"] for group in self.optimizer.param_groups]

    # -- one step --------------------------------------------------------------------------------

    def order(self) -> Iterator[int]:
        """Frames of the steps still to come, without end: shuffled epochs from (seed, epoch)."""
        per_epoch = len(self.train)
        epoch, skip = divmod(self.step, per_epoch)
        while True:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            shuffled = self.train[torch.randperm(per_epoch, generator=generator)].tolist()
            yield from shuffled[skip:]
            epoch, skip = epoch + 1, 0

    @property
    def done(self) -> float:
        """Share of the fit behind us: of the minutes if they are given, else of the steps."""
        if self.config.minutes is not None:
            return self.spent_s / (60 * self.config.minutes)
        return self.step / self.config.iterations

    def vertices(self, frame: int, *, embedded: bool) -> Tensor:
        """[V, 3] head of a frame, with the learnable embedding once it has joined."""
        at = slice(frame, frame + 1)
        motion: HeadMotion = self.avatar.tracking.motion
        posed = self.avatar.head.vertices(
            motion.expression[at], motion.jaw[at], motion.corrective[at]
        )[0]
        return self.embedding.apply(posed, self.row_of[frame]) if embedded else posed

    def loss(self, frame: TrainingFrame) -> Tensor:
        """The objective of one frame: image terms inside the mask, alpha, regularisers."""
        config = self.config
        done = self.done
        embedded = done >= config.motion_from
        posed = self.gaussians(
            self.vertices(frame.index, embedded=embedded), self.codes[frame.index]
        )
        generator = torch.Generator().manual_seed(config.seed * 7_919 + self.step)
        background = torch.rand(1, 3, generator=generator)
        height, width = frame.mask.shape
        colors, alphas, _ = rasterize(
            posed.means,
            posed.quats,
            posed.scales,
            posed.opacities,
            posed.colors,
            self.avatar.tracking.motion.world_to_camera[frame.index][None],
            frame.intrinsics[None],
            width,
            height,
            sh_degree=self.gaussians.sh_degree,
            backgrounds=background,
        )
        image, alpha = colors[0].permute(2, 0, 1), alphas[0, ..., 0]
        mask = frame.mask
        # Outside the mask the real pixels stand in, so that nothing there pulls at the Gaussians.
        seen = (image * mask + frame.image * (1 - mask)).contiguous()
        per_mask = mask.numel() / mask.sum().clamp_min(1)
        loss = config.l1_weight * ((seen - frame.image).abs() * frame.weight).mean() * per_mask
        loss = loss + config.ssim_weight * (1 - ssim(seen, frame.image)) * per_mask
        loss = loss + config.alpha_weight * (alpha - mask).abs().mean()
        late = done >= config.lpips_from and self.step % config.lpips_every == 0
        if self.lpips is not None and late:
            patch = self._patch(frame, generator)
            perceptual = self.lpips(seen[None, :, *patch], frame.image[None, :, *patch])[0]
            loss = loss + config.lpips_weight * perceptual
        if embedded:
            row = self.embedding.rows[self.row_of[frame.index]]
            loss = loss + 1e-3 * row.square().mean()
        return loss + self.regularisers()

    def _patch(self, frame: TrainingFrame, generator: torch.Generator) -> tuple[slice, slice]:
        """Rows and columns that LPIPS looks at: half the time round the mouth, else anywhere.

        A patch costs the same at every crop size; the whole window would cost more than all else.
        """
        rows, columns = (frame.weight > 1).nonzero(as_tuple=True)
        at_mouth = bool(torch.rand((), generator=generator) < 0.5) and len(rows) > 0
        places = []
        for size, marked in zip(frame.mask.shape, (rows, columns), strict=True):
            side = min(size, LPIPS_PATCH)
            start = int(torch.rand((), generator=generator) * (size - side + 1))
            if at_mouth:
                start = min(max(int(marked.float().mean()) - side // 2, 0), size - side)
            places.append(slice(start, start + side))
        return places[0], places[1]

    def regularisers(self) -> Tensor:
        """Keep Gaussians small, on their triangles, and the blendshapes modest."""
        g = self.gaussians
        too_large = F.relu(g.log_scales - self.largest_log_scale).square().mean()
        # Inwards two pixels are free for all; outwards each Gaussian has its own limit.
        off = F.relu(g.offset - g.offset_limit_px) + F.relu(-g.offset - 2.0)
        outside = F.relu(-g.barycentric) + F.relu(g.barycentric - 1)
        return (
            0.1 * too_large
            + 0.01 * off.square().mean()
            + 0.1 * outside.square().mean()
            + 1e-3 * g.position_basis.square().mean()
            + 1e-4 * g.color_basis.square().mean()
        )

    def take_step(self, frame: TrainingFrame) -> float:
        """One optimiser step; returns the loss."""
        done = min(self.done, 1.0)
        decay = 0.1 ** max(0.0, (done - 0.3) / 0.7)
        for group, full in zip(self.optimizer.param_groups, self.full_rates, strict=True):
            group["lr"] = full * (0.2**done if group["name"] == "sh0" else decay)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(frame)
        value = float(loss.detach())
        if math.isfinite(value):  # one broken frame must not spoil the speaker
            loss.backward()
            self.optimizer.step()
        self.step += 1
        return value

    def run(self, log: Callable[[dict[str, float]], None]) -> Iterator[int]:
        """Take all remaining steps; yields the step count after each one."""
        smooth = math.nan
        if self.done >= 1:
            return
        for frame in self.windows.stream(self.order()):
            started = time.monotonic()
            value = self.take_step(frame)
            self.spent_s += time.monotonic() - started
            if math.isfinite(value):
                smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
            if self.step % 100 == 0 or self.done >= 1:
                per_step = round(self.spent_s / self.step, 4)
                log({"step": self.step, "loss": round(smooth, 5), "s_per_step": per_step})
            yield self.step
            if self.done >= 1:
                return

    # -- checkpoints -----------------------------------------------------------------------------

    def save_checkpoint(self, folder: Path) -> None:
        """Write everything a continued fit needs (atomically, by renaming the folder)."""
        from safetensors.torch import save_file

        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        state = {f"model.{k}": v for k, v in self.gaussians.state_dict().items()}
        state["rows"] = self.embedding.rows.data
        for index, entry in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        state |= {f"code.{k}": v for k, v in vars(self.avatar.code).items()}
        save_file({k: v.contiguous() for k, v in state.items()}, partial / "state.safetensors")
        progress = {"step": self.step, "spent_s": self.spent_s}
        (partial / "step.json").write_text(json.dumps(progress), encoding="utf-8")
        partial.replace(folder)

    def load_checkpoint(self, folder: Path) -> None:
        """Continue where `save_checkpoint` stopped."""
        from safetensors.torch import load_file

        state = load_file(folder / "state.safetensors")
        self.gaussians.load_state_dict(_part(state, "model."))
        self.embedding.rows.data.copy_(state["rows"])
        self.avatar.code = DrivingCode(**_part(state, "code."))
        self.codes = self.avatar.codes(self.avatar.tracking.motion)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(state, "optimizer.").items():
            index, field = name.split(".")
            entries.setdefault(int(index), {})[field] = value
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": entries})
        progress = json.loads((folder / "step.json").read_text(encoding="utf-8"))
        self.step, self.spent_s = int(progress["step"]), float(progress["spent_s"])


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def landmark_weights(landmark_index: Tensor) -> Tensor:
    """[L] how much each landmark counts in the driving code: lips 2, eyes 1.5, the rest 0.3."""
    weights = torch.full((len(landmark_index),), 0.3)
    lips = torch.tensor([*LIPS_OUTER, *LIPS_INNER])
    weights[torch.isin(landmark_index, torch.tensor(EYES))] = 1.5
    weights[torch.isin(landmark_index, lips)] = 2.0
    return weights
