"""The training SSIM: known values, the plain torch twin, and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from talkgs_cli.errors import UsageError
from talkgs_cli.rendering import numba_jit
from talkgs_cli.rendering.ssim import ssim, ssim_reference


def pair(height: int, width: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(height * 1000 + width)
    target = torch.rand(channels, height, width, generator=g)
    return 0.7 * target + 0.3 * torch.rand(channels, height, width, generator=g), target


def test_an_image_is_perfectly_similar_to_itself() -> None:
    image, _ = pair(40, 30)
    assert float(ssim(image, image)) == pytest.approx(1.0, abs=1e-6)


def test_single_pixels_have_the_similarity_worked_out_by_hand() -> None:
    a, b = 0.2, 0.6
    w = math.exp(0) / sum(math.exp(-(k**2) / 4.5) for k in range(-5, 6))
    w *= w  # zero padding leaves the middle tap only, across and down
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * w * a * w * b + c1) / ((w * a) ** 2 + (w * b) ** 2 + c1)
    variances = w * (a * a + b * b) - (w * a) ** 2 - (w * b) ** 2
    structure = (2 * (w * a * b - w * a * w * b) + c2) / (variances + c2)
    found = ssim(torch.full((1, 1, 1), a), torch.full((1, 1, 1), b))
    assert float(found) == pytest.approx(luminance * structure, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 40), (65, 130), (130, 33), (257, 20)])
def test_value_and_gradient_are_those_of_plain_torch(size: tuple[int, int]) -> None:
    image, target = pair(*size)
    exact = image.double().requires_grad_()
    wanted = ssim_reference(exact, target.double())
    wanted.backward()
    image.requires_grad_()
    found = ssim(image, target)
    found.backward()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert exact.grad is not None
    assert image.grad is not None
    difference = (image.grad - exact.grad).abs().max() / exact.grad.abs().max()
    assert float(difference) < 1e-5


def test_a_very_wide_image_takes_the_plain_path() -> None:
    image, target = pair(3, 2100)
    assert float(ssim(image, target)) == pytest.approx(float(ssim_reference(image, target)))


def test_a_channels_last_view_gives_the_same_number() -> None:
    image, target = pair(33, 47)
    view = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(ssim(view, target), ssim(image, target))


def test_same_bits_for_any_number_of_threads() -> None:
    image, target = pair(200, 150)
    before, results = numba_jit.threads(), []
    try:
        for count in (1, 2, 3):
            numba_jit.set_threads(count)
            leaf = image.clone().requires_grad_()
            value = ssim(leaf, target)
            value.backward()
            results.append((value.detach(), leaf.grad))
    finally:
        numba_jit.set_threads(before)
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(grad, results[0][1])


def test_different_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="SSIM needs two"):
        ssim(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5))
