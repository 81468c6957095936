"""`rasterize`: known answers, properties, refusals, determinism."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.rendering import gsplat_backend, numba_jit, rasterize

BACKENDS = ["numba", "reference"]


def one_gaussian(**changes: Any) -> dict[str, Any]:
    """A round white Gaussian of sigma 4 px and opacity 0.5 on the centre of pixel (16, 16)."""
    scene: dict[str, Any] = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "scales": torch.full((1, 3), 0.08),
        "opacities": torch.tensor([0.5]),
        "colors": torch.ones(1, 3),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[100.0, 0, 16.5], [0, 100, 16.5], [0, 0, 1]]]),
        "width": 33,
        "height": 33,
    }
    return {**scene, **changes}


def some_gaussians(count: int = 300, cameras: int = 1, seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=g) * 0.3
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    viewmats[:, 2, 3] = 2 + torch.arange(cameras) * 0.3
    return {
        "means": means,
        "quats": torch.randn(count, 4, generator=g),
        "scales": 0.01 + 0.08 * torch.rand(count, 3, generator=g),
        "opacities": torch.rand(count, generator=g),
        "colors": torch.randn(count, 16, 3, generator=g) * 0.3,
        "viewmats": viewmats,
        "Ks": torch.tensor([[[120.0, 0, 50], [0, 120, 37], [0, 0, 1]]]).repeat(cameras, 1, 1),
        "width": 101,
        "height": 74,
        "sh_degree": 3,
        "backgrounds": torch.rand(cameras, 3, generator=g),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_gaussian_has_the_opacity_that_its_formula_says(backend: Any) -> None:
    _, alpha, meta = rasterize(**one_gaussian(), backend=backend)
    variance = 16 + 0.3
    for dx, dy in ((0, 0), (3, 0), (0, 5), (4, 4)):
        wanted = 0.5 * math.exp(-(dx * dx + dy * dy) / (2 * variance))
        assert float(alpha[0, 16 + dy, 16 + dx, 0]) == pytest.approx(wanted, abs=2e-6)
    reach = math.ceil(math.sqrt(2 * math.log(255 * 0.5) * variance))
    assert meta["radii"][0, 0].tolist() == [reach, reach]
    assert meta["means2d"][0, 0].tolist() == [16.5, 16.5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_antialiasing_keeps_a_tiny_gaussian_s_total_light(backend: Any) -> None:
    scene = one_gaussian(scales=torch.full((1, 3), 0.008))  # sigma 0.4 px
    _, alpha, _ = rasterize(**scene, rasterize_mode="antialiased", backend=backend)
    # opacity times det^(1/2): the integral of the unwidened Gaussian, up to what 1/255 cuts off
    assert float(alpha.sum()) == pytest.approx(0.5 * 2 * math.pi * 0.4**2, rel=0.06)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_hides_farther(backend: Any) -> None:
    scene = one_gaussian(
        means=torch.tensor([[0.0, 0, 3], [0, 0, 2]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        scales=torch.full((2, 3), 0.2),
        opacities=torch.tensor([0.9, 0.8]),
        colors=torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        backgrounds=torch.tensor([[0.0, 0, 1]]),
    )
    image, alpha, _ = rasterize(**scene, backend=backend)
    assert image[0, 16, 16].tolist() == pytest.approx([0.2 * 0.9, 0.8, 0.2 * 0.1], abs=1e-5)
    assert float(alpha[0, 16, 16, 0]) == pytest.approx(0.98, abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_modes_give_metres(backend: Any) -> None:
    image, alpha, _ = rasterize(**one_gaussian(), render_mode="D", backend=backend)
    assert torch.allclose(image, 2 * alpha, atol=1e-6)
    image, _, _ = rasterize(**one_gaussian(), render_mode="RGB+ED", backend=backend)
    assert image.shape == (1, 33, 33, 4)
    assert float(image[0, 16, 16, 3]) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gaussians_give_the_background(backend: Any) -> None:
    scene = {k: v[:0] if k in ("means", "quats", "scales", "opacities", "colors") else v
             for k, v in one_gaussian().items()}  # fmt: skip
    background = torch.tensor([[0.1, 0.2, 0.3]], requires_grad=True)
    image, alpha, meta = rasterize(**scene, backgrounds=background, backend=backend)
    assert torch.allclose(image, background.expand(1, 33, 33, 3))
    assert not alpha.any()
    assert meta["means2d"].shape == (1, 0, 2)
    image.sum().backward()
    assert background.grad is not None
    assert background.grad.tolist() == [[33 * 33] * 3]


def quat_product(a: Tensor, b: Tensor) -> Tensor:
    (aw, *av), (bw, *bv) = a.unbind(-1), b.unbind(-1)
    u, v = torch.stack(av, -1), torch.stack(bv, -1)
    u = u.expand_as(v)
    w = aw * bw - (u * v).sum(-1)
    return torch.cat([w[:, None], aw * v + bw[:, None] * u + torch.linalg.cross(u, v)], -1)


def test_turning_scene_and_camera_together_changes_nothing() -> None:
    # SH colours would have to be turned too
    scene = some_gaussians() | {"colors": torch.rand(300, 3), "sh_degree": None}
    angle = 0.7  # about y
    R = torch.eye(4)
    R[0, 0] = R[2, 2] = math.cos(angle)
    R[0, 2], R[2, 0] = math.sin(angle), -math.sin(angle)
    q = torch.tensor([math.cos(angle / 2), 0, math.sin(angle / 2), 0])
    turned = scene | {
        "means": scene["means"] @ R[:3, :3].T,
        "quats": quat_product(q, scene["quats"]),
        "viewmats": scene["viewmats"] @ R.T,
    }
    difference = (rasterize(**turned)[0] - rasterize(**scene)[0]).abs()
    # rounding moves a few pixels over the 1/255 threshold
    assert float(difference.max()) < 5e-3
    assert float(difference.mean()) < 1e-5


def test_several_cameras_are_the_single_cameras_stacked() -> None:
    scene = some_gaussians(cameras=3)
    images, alphas, meta = rasterize(**scene)
    for c in range(3):
        one = {k: v[c : c + 1] if k in ("viewmats", "Ks", "backgrounds") else v
               for k, v in scene.items()}  # fmt: skip
        image, alpha, single = rasterize(**one)
        assert torch.equal(images[c], image[0])
        assert torch.equal(alphas[c], alpha[0])
        assert torch.equal(meta["means2d"][c], single["means2d"][0])


def test_ten_features_are_drawn_like_colours() -> None:
    scene = some_gaussians() | {"sh_degree": None, "backgrounds": None}
    features = torch.rand(300, 10)
    together, _, _ = rasterize(**(scene | {"colors": features}))
    for first in range(0, 10, 3):
        some, _, _ = rasterize(**(scene | {"colors": features[:, first : first + 3]}))
        assert torch.equal(together[..., first : first + 3], some)


def gradients(scene: dict[str, Any], **options: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
    leaves = {k: v.clone().requires_grad_() if k in names else v for k, v in scene.items()}
    image, alpha, meta = rasterize(**leaves, **options)
    meta["means2d"].retain_grad()
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    ((image * weights).sum() + alpha.square().sum()).backward()
    return image, {k: leaves[k].grad for k in names}, meta["means2d"]


def test_same_bits_again_and_for_any_number_of_threads() -> None:
    scene, before, results = some_gaussians(4000), numba_jit.threads(), []
    try:
        for count in (1, 2, 3, 1):
            numba_jit.set_threads(count)
            results.append(gradients(scene))
    finally:
        numba_jit.set_threads(before)
    for image, grads, means2d in results[1:]:
        assert torch.equal(image, results[0][0])
        assert torch.equal(means2d.grad, results[0][2].grad)
        for name, grad in grads.items():
            assert torch.equal(grad, results[0][1][name]), name


def test_means2d_is_a_node_and_absgrad_is_at_least_the_gradient() -> None:
    _, _, means2d = gradients(some_gaussians(), absgrad=True)
    assert means2d.grad is not None
    assert means2d.absgrad.shape == means2d.shape
    assert bool((means2d.absgrad >= means2d.grad.abs() * (1 - 1e-4) - 1e-4).all())
    # a round Gaussian under a symmetric loss: gradients cancel, their absolute values don't
    scene = one_gaussian(means=torch.tensor([[0.0, 0.0, 2.0]], requires_grad=True))
    image, _, meta = rasterize(**scene, absgrad=True)
    meta["means2d"].retain_grad()
    image.sum().backward()
    assert float(meta["means2d"].grad.abs().max()) < 1e-3
    assert float(meta["means2d"].absgrad.min()) > 1


def test_without_gradients_the_image_is_the_same_and_nothing_is_kept() -> None:
    scene = some_gaussians()
    with_graph, _, _ = gradients(scene)
    with torch.no_grad():
        image, alpha, meta = rasterize(**scene)
    assert torch.equal(image, with_graph)
    assert image.grad_fn is None
    assert alpha.grad_fn is None
    assert meta["means2d"].grad_fn is None


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_index(name: str, bad: float) -> None:
    scene = some_gaussians()
    scene[name] = scene[name].clone()
    scene[name].view(300, -1)[123, 0] = bad
    with pytest.raises(BadInput, match=f"{name} of Gaussian 123 is not a finite number"):
        rasterize(**scene)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quats": torch.zeros(300, 3)}, r"quats has shape \[300, 3\], not \[300, 4\]"),
        ({"sh_degree": 4}, "sh_degree is 4"),
        ({"colors": torch.zeros(300, 4, 3)}, "needs 16 coefficients, colors have 4"),
        ({"backgrounds": torch.zeros(2, 3)}, "backgrounds has shape"),
        ({"width": 0}, "0 by 74 pixels"),
        ({"render_mode": "XYZ"}, "No render_mode 'XYZ'"),
        ({"rasterize_mode": "sharp"}, "No rasterize_mode"),
        ({"backend": "metal"}, "No backend 'metal'"),
        ({"near_plane": 0.0}, "near_plane is 0"),
        ({"means": torch.zeros(300, 3, dtype=torch.float64)}, "needs float32"),
        ({"backend": "reference", "absgrad": True}, "can't do absgrad"),
        ({"render_mode": "RGB+D", "absgrad": True}, "can't do absgrad with 4 channels"),
    ],
)
def test_what_can_not_be_drawn_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rasterize(**(some_gaussians() | change))


def test_a_gradient_to_intrinsics_is_refused_by_the_fast_backends() -> None:
    scene = some_gaussians()
    scene["Ks"] = scene["Ks"].requires_grad_()
    with pytest.raises(UsageError, match="no gradient to Ks"):
        rasterize(**scene)


def test_gsplat_says_why_it_can_not_be_used() -> None:
    status = gsplat_backend.gsplat_status()
    assert status.reason
    if not torch.cuda.is_available():
        assert not status.usable
        with pytest.raises(MachineLacks, match="gsplat backend can't be used here: torch"):
            rasterize(**some_gaussians(), backend="gsplat")
