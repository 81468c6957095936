"""Our conventions are gsplat's: its CPU reference where it is installed, its kernels on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_rasterize_parity import (
    LEARNT,
    clear_pixels,
    double,
    outputs_and_gradients,
    random_scene,
    relative,
)

from talkgs_cli.rendering import rasterize, reference
from talkgs_cli.rendering.gsplat_backend import gsplat_status
from talkgs_cli.rendering.ssim import ssim_reference


@pytest.fixture(scope="module")
def gsplat_reference() -> Any:
    pytest.importorskip("gsplat", reason="gsplat is not installed (pip install gsplat --no-deps)")
    from gsplat.cuda import _torch_impl

    if not hasattr(_torch_impl, "_fully_fused_projection"):
        pytest.skip("this gsplat has no CPU reference of the projection")
    return _torch_impl


@pytest.mark.parametrize("seed", range(0, 70, 3))
def test_projection_is_that_of_gsplat_s_cpu_reference(gsplat_reference: Any, seed: int) -> None:
    scene = double(random_scene(seed))
    scene["quats"] = torch.where(scene["quats"] == 0, 0.5, scene["quats"])
    covariances, _ = gsplat_reference._quat_scale_to_covar_preci(
        scene["quats"], scene["scales"], compute_preci=False
    )
    radii, means2d, depths, conics, compensations = gsplat_reference._fully_fused_projection(
        scene["means"], covariances, scene["viewmats"], scene["Ks"], scene["width"],
        scene["height"], eps2d=scene["eps2d"], calc_compensations=True,
    )  # fmt: skip
    scene["rasterize_mode"] = "antialiased"
    scene["opacities"] = torch.ones_like(scene["opacities"])
    _, _, meta = rasterize(**scene, backend="reference")
    seen = (meta["radii"] > 0).all(-1)
    assert bool((radii[seen] > 0).all())
    for ours, theirs in (
        (meta["means2d"], means2d),
        (meta["depths"], depths),
        (meta["conics"], conics),
        (meta["opacities"], compensations),
    ):
        scale = theirs[seen].abs().clamp_min(1e-6)
        # gsplat computes the antialiasing factor with cancellation: compare its absolute value
        assert bool(((ours[seen] - theirs[seen]).abs() <= 1e-6 * scale + 1e-6).all())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_are_those_of_gsplat_s_cpu_reference(
    gsplat_reference: Any, degree: int
) -> None:
    directions = torch.randn(50, 3, dtype=torch.float64)
    coefficients = torch.randn(50, 16, 3, dtype=torch.float64)
    theirs = gsplat_reference._spherical_harmonics(degree, directions, coefficients)
    unit = directions / directions.norm(dim=-1, keepdim=True)
    basis = reference.sh_basis(degree, unit)
    ours = (basis[..., None] * coefficients[:, : basis.shape[1]]).sum(1)
    assert torch.allclose(ours, theirs, atol=1e-6)


def to_cuda(scene: dict[str, Any]) -> dict[str, Any]:
    return {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}


@pytest.fixture
def cuda() -> None:
    status = gsplat_status()
    if not status.usable:
        pytest.skip(status.reason)


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("seed", range(35))
def test_gsplat_draws_and_differentiates_like_the_reference(seed: int) -> None:
    scene = random_scene(seed)
    if scene["render_mode"] == "D" and scene["sh_degree"] is None:
        pytest.skip("gsplat wants colours to be drawn")
    clear = clear_pixels(scene)
    channels = rasterize(**scene)[0].shape[-1]
    weights = (
        (clear * torch.randn(*clear.shape[:3], channels)).cuda(),
        (clear * torch.randn(clear.shape)).cuda(),
    )
    found = outputs_and_gradients(to_cuda(scene), "gsplat", weights)
    wanted = outputs_and_gradients(double(scene), "reference", (weights[0].cpu(), weights[1].cpu()))
    for name in ("image", "alpha"):
        assert relative(found[name].cpu(), wanted[name]) < 1e-4, name
    for name in LEARNT:
        assert relative(found[name].cpu(), wanted[name]) < 1e-2, name


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_a_fit_on_cuda_gets_nearer_to_its_target() -> None:
    g = torch.Generator().manual_seed(0)
    scene = to_cuda(random_scene(5) | {"render_mode": "RGB", "width": 64, "height": 64})
    target = torch.rand(3, 64, 64, generator=g).cuda()
    leaf = scene["colors"].requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.05)
    losses = []
    for _ in range(30):
        image, _, _ = rasterize(**scene, backend="gsplat")
        image = image[0, ..., :3].permute(2, 0, 1)
        loss = (image - target[: len(image)]).abs().mean() - ssim_reference(
            image, target[: len(image)]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
