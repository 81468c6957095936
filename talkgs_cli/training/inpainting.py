"""Trains a speaker's Inpainting Generator on pairs of frames (paper, section 3.4).

Everything random is drawn from (seed, step), so that training continued from a checkpoint takes
exactly the steps an uninterrupted one would have taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkgs_cli.compositing.feather import ALPHA_GAIN
from talkgs_cli.compositing.seam import SeamGrid
from talkgs_cli.config import InpaintingConfig
from talkgs_cli.metrics.lpips import LPIPS
from talkgs_cli.networks.inpainting import (
    InpaintingDescription,
    InpaintingGenerator,
    channels_last,
)
from talkgs_cli.runtime import atomic_path
from talkgs_cli.training.inpainting_pairs import PackedPair

HOLE_RANGE = (0.6, 1.5)  # the hole's reach is varied by such factors
GAIN = 0.02  # spread of the gain of frame and target: exposure drifts between frames


@dataclass
class SeamBatch:
    """Pairs as the network and the loss need them.

    Attributes:
        seen: [B, 10, h, w] inputs.
        band: [B, 1, h, w] where corrections are allowed.
        weight: [B, 1, h, w] feathered weight of the render.
        least: [B, 1, h, w] smallest weight, so that the reference's own chin stays hidden.
        most: [B, 1, h, w] largest weight that the render's alpha allows.
        render: [B, 3, h, w].
        reference: [B, 3, h, w].
        target: [B, 3, h, w].
    """

    seen: Tensor
    band: Tensor
    weight: Tensor
    least: Tensor
    most: Tensor
    render: Tensor
    reference: Tensor
    target: Tensor

    @classmethod
    def of(
        cls,
        pairs: Sequence[PackedPair],
        hole: float,
        side: int,
        generator: torch.Generator | None = None,
    ) -> SeamBatch:
        """Prepare pairs, with random hole and gain if there is a generator.

        Args:
            pairs: What to show.
            hole: Reach of the hole, share of the crop's side.
            side: Side of the crop, working pixels.
            generator: Where the random numbers come from.
        """
        rows: list[tuple[Tensor, ...]] = []
        for pair in pairs:
            # What lies underneath is never moved: the network then takes collars from the render.
            reach, gain = hole, torch.ones(3)
            if generator is not None:
                low, high = HOLE_RANGE
                reach *= low + (high - low) * float(torch.rand((), generator=generator))
                gain += GAIN * torch.randn(3, generator=generator)
            view = pair.view()
            view.reference = np.clip(view.reference * gain.numpy(), 0, 1)
            given = view.inputs(reach, side)
            target = pair.target.astype(np.float32) / 255 * gain.numpy()
            most = np.minimum(view.alpha * ALPHA_GAIN, 1)
            images = (view.render, view.reference, target)
            rows.append(
                (
                    torch.from_numpy(given.channels),
                    torch.from_numpy(given.band)[None],
                    torch.from_numpy(given.weight)[None],
                    torch.from_numpy(np.minimum(given.least, most))[None],
                    torch.from_numpy(most)[None],
                    *(torch.from_numpy(image).permute(2, 0, 1) for image in images),
                )
            )
        seen, *rest = (torch.stack(column) for column in zip(*rows, strict=True))
        return cls(channels_last(seen), *rest)

    def joined(self, answer: dict[str, Tensor]) -> Tensor:
        """[B, 3, h, w] what the compositor makes of the network's answer, at this resolution."""
        weight = (self.weight + answer["weight"]).clamp(self.least, self.most)
        under = fetch(self.reference, answer["shift"])
        return weight * self.render + (1 - weight) * under + answer["colour"]

    def feathered(self) -> Tensor:
        """[B, 3, h, w] the composite without a network."""
        return self.weight * self.render + (1 - self.weight) * self.reference


def fetch(images: Tensor, shift: Tensor) -> Tensor:
    """[B, 3, h, w] each pixel taken `shift` [B, 2, h, w] (x, y) pixels further on."""
    height, width = images.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y]) + shift + 0.5  # [B, 2, h, w], centres at +0.5
    scaled = places / torch.tensor([width, height]).view(1, 2, 1, 1) * 2 - 1
    return F.grid_sample(
        images, scaled.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def unevenness(maps: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels of [B, C, h, w] maps."""
    down = (maps[..., 1:, :] - maps[..., :-1, :]).abs().mean()
    return down + (maps[..., :, 1:] - maps[..., :, :-1]).abs().mean()


class InpaintingTrainer:
    """State of one training and its step.

    Args:
        pairs: What to learn from.
        grid: Where the pairs' windows lie.
        config: Weights and rates.
    """

    def __init__(
        self, pairs: Sequence[PackedPair], grid: SeamGrid, config: InpaintingConfig
    ) -> None:
        self.pairs, self.config = pairs, config
        self.side = grid.crop_size // grid.factor
        torch.manual_seed(config.seed)
        about = InpaintingDescription(
            crop_size=grid.crop_size,
            factor=grid.factor,
            window=grid.window,
            width=config.width,
            reach=config.reach,
            hole=config.hole,
        )
        self.generator = channels_last(InpaintingGenerator(about))
        self.optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=config.learning_rate, betas=(0.9, 0.99)
        )
        self.lpips = LPIPS("alex") if config.lpips_weight else None
        self.step = 0

    def loss(self, batch: SeamBatch, random: torch.Generator) -> Tensor:
        """Difference of colours in the band, LPIPS of a patch of it, unevenness of the shift."""
        config = self.config
        answer = self.generator(batch.seen, batch.band)
        made = batch.joined(answer)
        share = batch.band.mean().clamp_min(1e-3)
        loss = config.l1_weight * ((made - batch.target).abs() * batch.band).mean() / share
        uneven = sum(unevenness(answer[name]) for name in ("shift", "colour"))
        loss = loss + config.smoothness_weight * uneven
        if self.lpips is not None and self.step % config.lpips_every == 0:
            patch = self._patch(batch.band, random)
            # Outside the band nothing can be helped: the target stands in there.
            seen = torch.lerp(batch.target, made, batch.band.gt(0).float())
            distance = self.lpips(seen[:, :, *patch], batch.target[:, :, *patch]).mean()
            loss = loss + config.lpips_weight * distance
        return loss

    def _patch(self, band: Tensor, random: torch.Generator) -> tuple[slice, slice]:
        """Rows and columns of a square round some place in the band."""
        places = band.amax((0, 1)).gt(0.5).nonzero()
        height, width = band.shape[2:]
        centre = torch.tensor([height // 2, width // 2])
        if len(places):
            centre = places[int(torch.randint(len(places), (), generator=random))]
        patch = []
        for middle, length in zip(centre.tolist(), (height, width), strict=True):
            side = min(self.config.lpips_patch, length)
            start = min(max(middle - side // 2, 0), length - side)
            patch.append(slice(start, start + side))
        return patch[0], patch[1]

    def take_step(self) -> float:
        """One optimiser step; returns the loss."""
        config = self.config
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        chosen = torch.randint(len(self.pairs), (config.batch,), generator=random).tolist()
        batch = SeamBatch.of([self.pairs[k] for k in chosen], config.hole, self.side, random)
        done = self.step / config.iterations
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (0.5 + 0.5 * math.cos(math.pi * done))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch, random)
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
            self.optimizer.step()
        self.step += 1
        return value

    def run(self) -> Iterator[float]:
        """Take all remaining steps; yields the loss after each."""
        while self.step < self.config.iterations:
            yield self.take_step()

    @torch.no_grad()
    def measure(self, pairs: Sequence[PackedPair]) -> dict[str, float]:
        """PSNR inside the band and LPIPS of the window, with the network and feathered."""
        errors: dict[str, list[float]] = {"": [], "_feathered": []}
        distances: dict[str, list[float]] = {"": [], "_feathered": []}
        for pair in pairs:
            batch = SeamBatch.of([pair], self.config.hole, self.side)
            made = batch.joined(self.generator(batch.seen, batch.band))
            for name, image in (("", made), ("_feathered", batch.feathered())):
                error = ((image - batch.target).square() * batch.band).mean() / batch.band.mean()
                errors[name].append(-10 * math.log10(max(float(error), 1e-10)))
                if self.lpips is not None:
                    shown = torch.lerp(batch.target, image, batch.band.gt(0).float())
                    distances[name].append(float(self.lpips(shown, batch.target)[0]))
        figures = {f"seam_psnr{name}": np.mean(values) for name, values in errors.items()}
        figures |= {f"seam_lpips{k}": np.mean(v) for k, v in distances.items() if v}
        return {name: round(float(value), 5) for name, value in figures.items()}

    def deployable(self, figures: dict[str, float]) -> InpaintingGenerator:
        """The network as `speak` uses it, with what was measured in its description."""
        generator = InpaintingGenerator(replace(self.generator.about, figures=figures))
        generator.load_state_dict(self.generator.state_dict())
        return generator

    # -- checkpoints -----------------------------------------------------------------------------

    def save_checkpoint(self, path: Path) -> None:
        """Write everything a continued training needs."""
        from safetensors.torch import save_file

        state = {f"model.{k}": v.contiguous() for k, v in self.generator.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in entry.items()}
        with atomic_path(path) as partial:
            save_file(state, partial, {"step": str(self.step)})

    def load_checkpoint(self, path: Path) -> None:
        """Continue where `save_checkpoint` stopped."""
        from safetensors import safe_open

        entries: dict[int, dict[str, Tensor]] = {}
        model: dict[str, Tensor] = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                kind, _, rest = name.partition(".")
                if kind == "model":
                    model[rest] = file.get_tensor(name)
                else:
                    index, _, field = rest.partition(".")
                    entries.setdefault(int(index), {})[field] = file.get_tensor(name)
            self.step = int(file.metadata()["step"])
        self.generator.load_state_dict(model)
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": entries})
