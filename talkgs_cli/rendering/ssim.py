"""SSIM as a training loss: value and gradient in one pass on the CPU, plain torch elsewhere.

The metric that `score` reports is another function (metrics); this one is for optimisers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkgs_cli.errors import UsageError

WIDEST = 2054
"""Columns the kernel has room for (numba_ssim.MAX_WIDTH)."""


class _FusedSSIM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        from talkgs_cli.rendering import numba_ssim
        from talkgs_cli.rendering.numba_jit import run_pieces

        image, target = image.detach().contiguous(), target.detach().contiguous()
        gradient = torch.empty_like(image)
        pieces = len(image) * -(-image.shape[1] // numba_ssim.BAND)
        totals = np.empty(pieces)
        run_pieces(
            numba_ssim.ssim_bands, [(p, p + 1) for p in range(pieces)], image.numpy(),
            target.numpy(), gradient.numpy(), totals,
            np.float32(numba_ssim.STABILISER_1), np.float32(numba_ssim.STABILISER_2),
        )  # fmt: skip
        ctx.save_for_backward(gradient)
        return image.new_tensor(totals.sum() / image.numel())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * (gradients[0] / gradient.numel()), None


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity, with a gradient to `image` only.

    Gaussian window of 11 taps and sigma 1.5, zero padding, range 1 (Wang et al. 2004; as 3D
    Gaussian Splatting trains with it).

    Args:
        image: [C, H, W] in [0, 1].
        target: [C, H, W], same size.

    Returns:
        Scalar in [-1, 1].

    Raises:
        UsageError: the shapes differ.
    """
    if image.shape != target.shape or image.ndim != 3:
        raise UsageError(
            f"SSIM needs two [C, H, W] images, got {list(image.shape)} and {list(target.shape)}."
        )
    if image.is_cpu and image.dtype == torch.float32 and image.shape[2] <= WIDEST:
        return _FusedSSIM.apply(image, target)
    return ssim_reference(image, target)


def ssim_reference(image: Tensor, target: Tensor) -> Tensor:
    """`ssim` in plain torch: the specification, any device and dtype."""
    channels = len(image)
    offsets = torch.arange(11, dtype=image.dtype, device=image.device) - 5
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(window, window) / window.sum() ** 2
    weight = window.expand(channels, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x[None], weight, padding=5, groups=channels)[0]

    a, b = blur(image), blur(target)
    aa, bb, ab = blur(image * image), blur(target * target), blur(image * target)
    numerator = (2 * a * b + 0.01**2) * (2 * (ab - a * b) + 0.03**2)
    denominator = (a * a + b * b + 0.01**2) * (aa - a * a + bb - b * b + 0.03**2)
    return (numerator / denominator).mean()
