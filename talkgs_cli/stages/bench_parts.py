"""The three parts of `bench`: rasterising, one step of the fit, one frame of `speak`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from talkgs_cli.rendering import numba_jit, rasterize
from talkgs_cli.rendering.gaussian_head import CODE_SIZE, SH_C0, GaussianHead
from talkgs_cli.rendering.request import Request
from talkgs_cli.rendering.ssim import ssim, ssim_reference
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.bench import SIZES, SLOW_ROUNDS, Timer, head_like_request
from talkgs_cli.stages.bench_baseline import torch_tiles

GAUSSIANS = 10_000


def raster(timer: Timer) -> None:
    """Forward and backward of every backend; SSIM; what vector instructions are worth."""
    threads = numba_jit.threads()
    for count, side in SIZES:
        name = f"raster {count // 1000}k @{side}"
        request = _learnable(head_like_request(count, side))
        weights = torch.randn(1, side, side, 3)

        def both(request: Request = request, weights: Tensor = weights) -> None:
            _rasterize(request)[0].backward(weights)

        @torch.no_grad()
        def forward(request: Request = request) -> None:
            _rasterize(request)

        runs: dict[str, Callable[[], Any]] = {
            f"numba {threads} threads": both,
            "numba 1 thread": _with_one_thread(both),
            f"numba {threads} threads, forward only": forward,
        }
        timer.interleave(name, runs, timer.rounds)
        if count == GAUSSIANS:

            def tiles(request: Request = request, weights: Tensor = weights) -> None:
                torch_tiles(request)[0].backward(weights[0])

            slow = {"numba against it": both, "torch tiles": tiles}
            timer.interleave(name, slow, min(timer.rounds, SLOW_ROUNDS))
            timer.ratio(
                f"{name}: torch tiles / numba", f"{name} torch tiles", f"{name} numba against it"
            )
    _ssim(timer)
    _simd(timer)


def fit_step(timer: Timer) -> None:
    """Pose, render, L1 + SSIM, backward, Adam: ours against the same step in plain torch."""
    threads = numba_jit.threads()
    for side in (256, 512):
        name = f"fit-step {GAUSSIANS // 1000}k @{side}"
        ours, baseline = Step(side, fast=True), Step(side, fast=False)
        runs: dict[str, Callable[[], Any]] = {f"numba {threads} threads": ours.take}
        timer.interleave(name, runs, timer.rounds)
        timer.rows[-1]["parts_ms"] = ours.parts()
        slow = {"numba against it": ours.take, "torch": baseline.take}
        timer.interleave(name, slow, min(timer.rounds, SLOW_ROUNDS))
        timer.ratio(f"{name}: torch / numba", f"{name} torch", f"{name} numba against it")


def speak_frame(timer: Timer) -> None:
    """Pose, render and convert one 512 x 512 frame, no gradients."""
    threads = numba_jit.threads()
    step = Step(512, fast=True)

    @torch.no_grad()
    def frame() -> Any:
        image, _ = step.render()
        return (image.clamp(0, 1) * 255).to(torch.uint8).numpy()

    name = f"speak-frame {GAUSSIANS // 1000}k @512"
    runs: dict[str, Callable[[], Any]] = {
        f"numba {threads} threads": frame,
        "numba 1 thread": _with_one_thread(frame),
    }
    timer.interleave(name, runs, 3 * timer.rounds)
    for row in timer.rows[-2:]:
        row["frames_per_s"] = round(1e3 / row["median_ms"], 1)


class Step:
    """A fit of Gaussians on an ellipsoid mesh to a fixed picture.

    Args:
        side: Image side.
        fast: Our kernels, or the torch baseline.
    """

    def __init__(self, side: int, *, fast: bool) -> None:
        self.fast = fast
        self.request = head_like_request(GAUSSIANS, side)
        self.vertices, self.head = _head(self.request)
        self.code = torch.linspace(-1, 1, CODE_SIZE)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=1e-4, eps=1e-15, fused=True)
        ramp = torch.linspace(0, 1, side).expand(side, side)
        self.target = torch.stack([ramp, ramp.T, 1 - ramp])  # [3, H, W]

    def render(self) -> tuple[Tensor, Tensor]:
        """Image [H, W, 3] and alpha [H, W, 1]."""
        posed = self.head(self.vertices, self.code)
        request = replace(self.request, **vars(posed))
        if not self.fast:
            return torch_tiles(request)
        image, alpha, _ = _rasterize(request)
        return image[0], alpha[0]

    def take(self) -> None:
        """One whole step."""
        image, alpha = self.render()
        image = image.permute(2, 0, 1).contiguous()
        similarity = (ssim if self.fast else ssim_reference)(image, self.target)
        loss = 0.8 * (image - self.target).abs().mean() + 0.2 * (1 - similarity)
        loss = loss + 0.1 * (alpha - 0.5).abs().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def parts(self) -> dict[str, float]:
        """Median milliseconds of parts that can be run alone."""
        with torch.no_grad():
            posed = self.head(self.vertices, self.code)
        posed_request = _learnable(replace(self.request, **vars(posed)))
        weights = torch.randn(1, self.request.height, self.request.width, 3)
        image = self.target.clone().requires_grad_()

        def pose() -> None:
            posed = self.head(self.vertices, self.code)
            (posed.means.sum() + posed.quats.sum() + posed.colors.sum()).backward()

        runs: dict[str, Callable[[], Any]] = {
            "pose": pose,
            "raster": lambda: _rasterize(posed_request)[0].backward(weights),
            "ssim": lambda: ssim(image, self.target).backward(),
            "adam": self.optimizer.step,
        }
        timer = Timer(SilentProgress(), 5)
        timer.interleave("part", runs, 5)
        return {key: timer.figure(f"part {key}") for key in runs}


def _rasterize(request: Request) -> tuple[Tensor, Tensor, dict[str, Any]]:
    return rasterize(
        request.means, request.quats, request.scales, request.opacities, request.colors,
        request.viewmats, request.Ks, request.width, request.height,
        sh_degree=request.sh_degree, backgrounds=request.backgrounds,
    )  # fmt: skip


def _learnable(request: Request) -> Request:
    names = ("means", "quats", "scales", "opacities", "colors")
    return replace(request, **{name: getattr(request, name).requires_grad_() for name in names})


def _with_one_thread(run: Callable[[], Any]) -> Callable[[], Any]:
    def alone() -> None:
        before = numba_jit.threads()
        numba_jit.set_threads(1)
        try:
            run()
        finally:
            numba_jit.set_threads(before)

    return alone


def _head(request: Request) -> tuple[Tensor, GaussianHead]:
    """Small triangles under the request's Gaussians, and the Gaussians bound to them."""
    count = len(request.means)
    normals = torch.nn.functional.normalize(request.means, dim=-1)
    side = torch.nn.functional.normalize(torch.linalg.cross(normals, normals.roll(1, 1)), dim=-1)
    up = torch.linalg.cross(normals, side)
    centre = request.means
    vertices = torch.stack([centre, centre + 1e-3 * side, centre + 1e-3 * up], 1).reshape(-1, 3)
    metres_per_pixel = 0.6 / float(request.Ks[0, 0, 0])
    head = GaussianHead(
        triangles=torch.arange(3 * count).view(-1, 3),
        reference_areas=torch.full((count,), 0.5e-6),
        binding=torch.arange(count),
        barycentric=torch.full((count, 2), 0.1),
        scales_px=request.scales.mean(1) / metres_per_pixel,
        colors=(request.colors[:, 0] * SH_C0 + 0.5).detach(),
        offset_limit_px=torch.full((count,), 5.0),
        sh_degree=3,
        metres_per_pixel=metres_per_pixel,
    )
    return vertices, head


def _ssim(timer: Timer) -> None:
    image = torch.rand(3, 512, 512, requires_grad=True)
    target = torch.rand(3, 512, 512)
    runs: dict[str, Callable[[], Any]] = {
        "numba": lambda: ssim(image, target).backward(),
        "torch": lambda: ssim_reference(image, target).backward(),
    }
    timer.interleave("ssim @512", runs, min(timer.rounds, 5))
    timer.ratio("ssim @512: torch / numba", "ssim @512 torch", "ssim @512 numba")


def _simd(timer: Timer) -> None:
    """The backward blending kernel against itself compiled so that it can't be vectorised."""
    import numba

    from talkgs_cli.rendering import numba_blend_backward

    vector = numba_blend_backward.blend_tiles_backward
    options = {**numba_jit.JIT, "fastmath": False, "cache": False}
    scalar = numba.njit(**options)(vector.py_func)
    request = _learnable(head_like_request(GAUSSIANS, 512))
    weights = torch.randn(1, 512, 512, 3)
    seen: list[Any] = []

    def listen(*arguments: Any) -> None:
        seen.append(arguments)
        vector(*arguments)

    numba_blend_backward.blend_tiles_backward = listen
    try:
        _with_one_thread(lambda: _rasterize(request)[0].backward(weights))()
    finally:
        numba_blend_backward.blend_tiles_backward = vector

    def repeat(kernel: Any) -> Callable[[], None]:
        def run() -> None:
            for arguments in seen:
                kernel(*arguments)

        return run

    runs = {"vector": repeat(vector), "scalar": repeat(scalar)}
    timer.interleave("simd 10k @512", runs, min(timer.rounds, 5))
    timer.ratio("simd: scalar / vector", "simd 10k @512 scalar", "simd 10k @512 vector", "cpu_ms")
