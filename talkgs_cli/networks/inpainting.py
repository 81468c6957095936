"""`InpaintingGenerator`: how a rendered face and the frame round it have to be joined at the seam.

It sees a window at working resolution and answers with a correction of the feathered composite:
more or less of the render, the frame's own pixels from a little further on, a change of colour.
So what it leaves alone stays as sharp as it came, at any resolution (paper, section 3.4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import atomic_path

FORMAT = 1
STRIDE = 4  # sides of the window are multiples of it, twice over: of the two strides
INPUTS = {"render": 3, "alpha": 1, "reference": 3, "face": 1, "hole": 1, "weight": 1}
"""Channels: the render times its weight, its alpha, the frame underneath, where that frame shows
face or neck, the dilated hole, the feathered weight."""
OUTPUTS = {"weight": 1, "shift": 2, "colour": 3}
"""Channels: change of the render's weight, shift of the frame underneath, change of colour."""
MAX_COLOUR = 0.25  # of the full range
DILATIONS = (1, 2, 4)


@dataclass(frozen=True)
class InpaintingDescription:
    """All that is not a tensor: written as JSON into the file's header.

    Attributes:
        crop_size: Side of the crop whose window this is, pixels.
        factor: Crop pixels per working pixel.
        window: (height, width) of the window, working pixels.
        width: Channels of the inpainting blocks.
        reach: The furthest that pixels are fetched from, as a share of the crop's side.
        hole: How far the hole reaches beyond the face, as a share of the crop's side.
        figures: What training measured on frames it had not seen.
    """

    crop_size: int
    factor: int
    window: tuple[int, int]
    width: int
    reach: float
    hole: float
    figures: dict[str, float] = field(default_factory=dict)


class InpaintingBlock(nn.Module):
    """A gated convolution with a skip: the gate learns which of its neighbours are holes.

    Source: Yu et al., Free-Form Image Inpainting with Gated Convolution, ICCV 2019.
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, 2 * width, 3, padding=dilation, dilation=dilation)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        value, gate = self.convolution(hidden).chunk(2, dim=1)
        return hidden + F.leaky_relu(value, 0.2) * F.hardsigmoid(gate)


class InpaintingGenerator(nn.Module):
    """Window in, correction out. Untrained it corrects nothing."""

    def __init__(self, about: InpaintingDescription) -> None:
        super().__init__()
        self.about = about
        width, fine = about.width, about.width // 2
        self.enter = nn.Conv2d(sum(INPUTS.values()), fine, 2, stride=2)
        self.down = nn.Conv2d(fine, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(InpaintingBlock(width, dilation) for dilation in DILATIONS)
        self.up = nn.Conv2d(width, fine, 1)
        self.join = nn.Conv2d(2 * fine, fine, 3, padding=1)
        self.leave = nn.Conv2d(fine, sum(OUTPUTS.values()), 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, band: Tensor) -> dict[str, Tensor]:
        """Correct a window.

        Args:
            seen: [B, 10, h, w], channels as in INPUTS.
            band: [B, 1, h, w] where corrections are allowed, 0 to 1.

        Returns:
            [B, n, h, w] for each of OUTPUTS: weight in -1..1, shift in working pixels (x, y),
            colour in -MAX_COLOUR..MAX_COLOUR.
        """
        fine = F.leaky_relu(self.enter(seen), 0.2)
        hidden = F.leaky_relu(self.down(fine), 0.2)
        for block in self.blocks:
            hidden = block(hidden)
        raised = doubled(F.leaky_relu(self.up(hidden), 0.2))
        joined = F.leaky_relu(self.join(torch.cat([fine, raised], dim=1)), 0.2)
        # Six channels are enlarged faster one after the other than side by side.
        answer = doubled(F.softsign(self.leave(joined)).contiguous()) * band
        weight, shift, colour = answer.split(list(OUTPUTS.values()), dim=1)
        reach_px = self.about.reach * self.about.crop_size / self.about.factor
        return {"weight": weight, "shift": shift * reach_px, "colour": colour * MAX_COLOUR}

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the deployable network."""
        from safetensors.torch import save_file

        # One entry: safetensors writes several in any order; a file shall be the same each time.
        header = {"about": json.dumps({"format": FORMAT, **asdict(self.about)})}
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        with atomic_path(path) as partial:
            save_file(state, partial, header)

    @classmethod
    def load(cls, path: Path) -> InpaintingGenerator:
        """Read what `save` wrote, strictly.

        Raises:
            BadInput: the file is damaged or of another version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = file.metadata() or {}
            generator = cls(_description(header))
            generator.load_state_dict(state)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"{path} can't be read as an inpainting network of this version ({error}).",
                hint="Fit the speaker again with --force.",
            ) from error
        return generator.eval()


def doubled(maps: Tensor) -> Tensor:
    """[B, C, 2h, 2w] smoothly enlarged: maps free in every pixel would draw grids."""
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


TensorOrModule = TypeVar("TensorOrModule", Tensor, InpaintingGenerator)


def channels_last(value: TensorOrModule) -> TensorOrModule:
    """The memory layout in which convolutions on a CPU are a fifth faster."""
    return value.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _description(header: Mapping[str, str]) -> InpaintingDescription:
    about: dict[str, Any] = json.loads(header["about"])
    if (found := about.pop("format", None)) != FORMAT:
        raise ValueError(f"format {found}, expected {FORMAT}")
    if set(about) != {entry.name for entry in fields(InpaintingDescription)}:
        raise ValueError("its description has other fields")
    return InpaintingDescription(**{**about, "window": tuple(about["window"])})
