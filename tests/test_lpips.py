"""LPIPS against the printed numbers of its authors' package, and against an independent network."""

import pickle

import pytest
import torch
from lpips_by_scipy import scipy_lpips

from talkgs_cli.errors import DownloadFailed
from talkgs_cli.metrics.lpips import LPIPS


@pytest.fixture(scope="module", autouse=True)
def weights(require_assets):
    require_assets("lpips_alex", "lpips_vgg")


@pytest.fixture(scope="module")
def alex(weights):
    return LPIPS("alex")


def smooth_images(seed: int, size: int = 64) -> torch.Tensor:
    """Two smooth random images, [2, 3, size, size] in [0, 1]."""
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def test_equal_images_have_distance_zero(alex):
    images = smooth_images(0)
    assert alex(images, images).tolist() == [0.0, 0.0]


def test_distance_is_symmetric_and_independent_of_the_rest_of_the_batch(alex):
    images = smooth_images(1)
    a, b = images[:1], images[1:]
    assert torch.allclose(alex(a, b), alex(b, a))
    both = alex(torch.cat([a, b]), torch.cat([b, b]))
    assert both[0].item() == pytest.approx(alex(a, b).item(), rel=1e-5)
    assert both[1] == 0


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_more_noise_is_further_away(net):
    model = LPIPS(net)
    image = smooth_images(2)[:1]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    distances = [model(image + level * noise, image).item() for level in (0.01, 0.05, 0.2)]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_alexnet_agrees_with_a_scipy_network(alex):
    a, b = smooth_images(4, size=48)
    expected = scipy_lpips(alex, a.numpy(), b.numpy())
    assert alex(a[None], b[None]).item() == pytest.approx(expected, rel=1e-4)


def test_cached_target_features_give_the_same_loss_and_gradient(alex):
    a, b = (image[None] for image in smooth_images(5))
    a.requires_grad_()
    (direct,) = torch.autograd.grad(alex(a, b).sum(), a)
    with torch.no_grad():
        target = alex.features_of(b)
    (cached,) = torch.autograd.grad(alex.distance(alex.features_of(a), target).sum(), a)
    assert torch.equal(direct, cached)
    assert direct.abs().max() > 0


def test_gradient_is_finite_where_features_vanish(alex):
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    alex(black, torch.ones(1, 3, 64, 64)).sum().backward()
    assert torch.isfinite(black.grad).all()


def test_gradient_step_brings_the_image_closer(alex):
    a, b = (image[None] for image in smooth_images(6))
    a.requires_grad_()
    before = alex(a, b)
    (gradient,) = torch.autograd.grad(before.sum(), a)
    after = alex(a - 0.01 * gradient / gradient.abs().max(), b)
    assert after.item() < before.item()


def test_no_weight_is_trainable(alex):
    assert not any(parameter.requires_grad for parameter in alex.parameters())


def test_tiny_images_are_refused_by_size(alex):
    with pytest.raises(ValueError, match="16 x 64"):
        alex(torch.zeros(1, 3, 16, 64), torch.zeros(1, 3, 16, 64))


def test_weights_file_that_names_code_is_refused(tmp_path):
    file = tmp_path / "alexnet.ckpt"
    file.write_bytes(pickle.dumps({"AlexNet_0": eval}))  # not print: once loaded, Ray replaces it
    with pytest.raises(DownloadFailed, match=r"builtins\.eval"):
        LPIPS("alex", weights=file)
