"""LPIPS v0.1 (AlexNet or VGG-16) in plain torch, as a metric and as a loss; it trains nothing.

Needs neither torchvision nor the `lpips` package: backbone and linear heads come from one pinned
file. Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
CVPR 2018.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from talkgs_cli.assets import fetch_file
from talkgs_cli.errors import DownloadFailed

Backbone = Literal["alex", "vgg"]

MIN_SIDE_PX = 32
"""Below this AlexNet's pooling runs out of pixels; enlarge the images first."""

_SCALE_MEAN = (-0.030, -0.088, -0.188)  # of images in [-1, 1]
_SCALE_STD = (0.458, 0.448, 0.450)
_ALEX_STRIDES_PADDINGS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_ALEX_POOLED = (1, 2)  # convolutions that come after a pooling
_VGG_POOLED = (2, 4, 7, 10)
_VGG_TAPS = (1, 3, 6, 9, 12)  # convolutions whose output is compared
_FILES: dict[Backbone, tuple[str, str]] = {
    "alex": ("lpips_alex", "AlexNet_0"),
    "vgg": ("lpips_vgg", "VGG16_0"),
}


class LPIPS(nn.Module):
    """Learned perceptual distance; all weights frozen, differentiable in its inputs.

    Args:
        net: Backbone, "alex" (the field's metric) or "vgg" (a second opinion).
        weights: File to read instead of the pinned asset.
    """

    def __init__(self, net: Backbone = "alex", weights: Path | None = None) -> None:
        super().__init__()
        asset, backbone = _FILES[net]
        values = _read_weights(weights or fetch_file(asset))
        self.net = net
        convolutions = values[backbone]
        self.kernels = nn.ParameterList(
            _kernel(convolutions[f"Conv_{i}"]["kernel"]) for i in range(len(convolutions))
        )
        self.biases = nn.ParameterList(
            _frozen(convolutions[f"Conv_{i}"]["bias"]) for i in range(len(convolutions))
        )
        self.heads = nn.ParameterList(
            _kernel(values[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]) for i in range(5)
        )
        self.register_buffer("mean", torch.tensor(_SCALE_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_SCALE_STD).view(1, 3, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance between two batches of images.

        Args:
            a: [B, 3, H, W] RGB in [0, 1].
            b: [B, 3, H, W] RGB in [0, 1].

        Returns:
            [B] distances, 0 for equal images.
        """
        return self.distance(self.features_of(a), self.features_of(b))

    def features_of(self, images: Tensor) -> list[Tensor]:
        """Unit-length features of the five compared layers.

        A loss computes the target's once, under `torch.no_grad()`, and hands them to `distance`.

        Args:
            images: [B, 3, H, W] RGB in [0, 1], both sides at least `MIN_SIDE_PX`.

        Returns:
            Five tensors [B, C_i, H_i, W_i].
        """
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE_PX:
            raise ValueError(
                f"LPIPS needs sides of {MIN_SIDE_PX} pixels or more, got {height} x {width}."
            )
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        scaled = (images * 2 - 1 - mean) / std
        layers = self._alex(scaled) if self.net == "alex" else self._vgg(scaled)
        return [layer / (layer.square().sum(1, keepdim=True) + 1e-20).sqrt() for layer in layers]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance between two sets of features from `features_of`.

        Returns:
            [B].
        """
        return torch.stack(
            [
                functional.conv2d((x - y).square(), head).mean((1, 2, 3))
                for x, y, head in zip(a, b, self.heads, strict=True)
            ]
        ).sum(0)

    def _alex(self, x: Tensor) -> list[Tensor]:
        layers = []
        for i, (stride, padding) in enumerate(_ALEX_STRIDES_PADDINGS):
            if i in _ALEX_POOLED:
                x = functional.max_pool2d(x, 3, 2)
            x = functional.conv2d(
                x, self.kernels[i], self.biases[i], stride=stride, padding=padding
            ).relu()
            layers.append(x)
        return layers

    def _vgg(self, x: Tensor) -> list[Tensor]:
        layers = []
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            if i in _VGG_POOLED:
                x = functional.max_pool2d(x, 2, 2)
            x = functional.conv2d(x, kernel, bias, padding=1).relu()
            if i in _VGG_TAPS:
                layers.append(x)
        return layers


def _frozen(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.asarray(array, np.float32)), requires_grad=False)


def _kernel(array: np.ndarray) -> nn.Parameter:
    # Stored height, width, in, out; torch wants out, in, height, width.
    return _frozen(np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1))))


class _ArraysOnly(pickle.Unpickler):
    """Loads the three NumPy globals that a pickle of arrays needs, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")


def _read_weights(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            values: dict[str, Any] = _ArraysOnly(stream).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise DownloadFailed(
            f"{file} is not a readable weights file ({error}).",
            hint="Delete it and run: talkgs assets --pull",
        ) from error
    return values
