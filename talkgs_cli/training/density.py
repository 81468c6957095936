"""Density control: Gaussians are split where the picture pulls at them, and dropped when unseen.

Children inherit their parent's triangle (paper, section 3.3; GaussianAvatars, section 3.2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from talkgs_cli.config import FitConfig
from talkgs_cli.rendering.gaussian_head import GaussianHead

PER_GAUSSIAN = (
    "barycentric", "offset", "quats", "log_scales", "opacity_logits", "sh0", "shN",
    "position_basis", "rotation_basis", "color_basis",
)  # fmt: skip
ALONG_SECOND = ("position_basis", "rotation_basis", "color_basis")  # [8, N, D]
SHRINK = math.log(1.6)  # a split Gaussian's halves are this much smaller (3DGS)


class DensityControl:
    """Collects screen gradients and says which Gaussians are split, copied and dropped.

    Attributes:
        pull: [N] summed length of the absolute screen gradient, in half window widths.
        visits: [N] steps in which a Gaussian was drawn.
    """

    def __init__(self, count: int, config: FitConfig) -> None:
        self.config = config
        self.reset(count)

    def reset(self, count: int) -> None:
        """Forget what was collected."""
        self.pull, self.visits = torch.zeros(count), torch.zeros(count)

    def collect(self, means2d: Tensor, size: tuple[int, int]) -> None:
        """Add the gradients of one backward pass; `size` is the window's (height, width)."""
        gradient = means2d.absgrad[0].detach().cpu()  # type: ignore[attr-defined]  # [N, 2]
        pull = (gradient * (max(size) / 2)).norm(dim=1)
        self.pull += pull
        self.visits += pull > 0

    def due(self, step: int, done: float) -> bool:
        """Whether this step ends with a round."""
        config = self.config
        inside = config.densify_from <= done < config.densify_until
        return config.densify_every > 0 and step % config.densify_every == 0 and inside

    def rows(self, gaussians: GaussianHead) -> tuple[Tensor, Tensor]:
        """(rows that stay, rows that get a child: the most pulled ones that fit the cap)."""
        opacity = gaussians.opacity_logits.detach().sigmoid().cpu()
        stays = opacity > self.config.prune_opacity
        mean_pull = self.pull / self.visits.clamp_min(1)
        wanted = (mean_pull > self.config.densify_gradient) & stays
        room = self.config.max_gaussians - int(stays.sum())
        order = torch.argsort(mean_pull, descending=True, stable=True)
        parents = order[wanted[order]][: max(room, 0)]
        return stays.nonzero()[:, 0], parents.sort().values


def grown(gaussians: GaussianHead, stay: Tensor, parents: Tensor, seed: int) -> GaussianHead:
    """New Gaussians: those that stay, parents halved if large, and one child for each parent.

    Args:
        gaussians: The old ones.
        stay: [K] rows kept.
        parents: [P] rows, a subset of `stay`.
        seed: Of the children's places.
    """
    state = {name: value.detach().clone() for name, value in gaussians.state_dict().items()}
    device = state["binding"].device
    generator = torch.Generator().manual_seed(seed)
    # `parents` is on the CPU, whatever the device.
    large = (state["log_scales"][parents].max(1).values > state["log_scales"].median()).cpu()
    state["log_scales"][parents[large]] -= SHRINK
    rows = torch.cat([stay, parents]).to(device)
    for name in (*PER_GAUSSIAN, "binding", "offset_limit_px"):
        state[name] = state[name].index_select(1 if name in ALONG_SECOND else 0, rows)
    # A child lies a standard deviation or so beside its parent, in its parent's triangle.
    child = slice(len(stay), None)
    triangle = state["reference_areas"][state["binding"][child]].mul(2).sqrt()
    spread = state["log_scales"][child].exp().mean(1) * state["metres_per_pixel"] / triangle
    jitter = torch.randn(len(parents), 2, generator=generator).to(device)
    state["barycentric"][child] += jitter * spread[:, None]
    return GaussianHead.from_state(state).to(device)


def carried(optimizer_state: dict[str, Any], name: str, stay: Tensor, parents: int) -> dict:
    """Adam's memory of one parameter after growing: kept for old rows, empty for children."""
    axis = 1 if name in ALONG_SECOND else 0
    out = {}
    for key, value in optimizer_state.items():
        if key == "step":
            out[key] = value
            continue
        kept = value.index_select(axis, stay.to(value.device))
        shape = list(kept.shape)
        shape[axis] = parents
        out[key] = torch.cat([kept, kept.new_zeros(shape)], dim=axis)
    return out
