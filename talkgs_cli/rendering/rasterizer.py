"""`rasterize`: one function in front of every backend, with gsplat's arguments and conventions.

It checks arguments and chooses the backend; it draws nothing itself. How the backends differ, and
how to add one: docs/rendering.md.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from talkgs_cli.errors import UsageError
from talkgs_cli.rendering.request import RasterizeMode, RenderMode, Request

Backend = Literal["auto", "numba", "gsplat", "reference"]


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    absgrad: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Draw Gaussians.

    Args:
        means: [N, 3] centres, world.
        quats: [N, 4] wxyz, any length; zero means not rotated.
        scales: [N, 3] standard deviations, after activation.
        opacities: [N] in [0, 1], after activation.
        colors: [N, K, 3] spherical harmonics with `sh_degree`, else [N, D] features.
        viewmats: [C, 4, 4] world to camera (OpenCV), rigid.
        Ks: [C, 3, 3] pixels, no skew, pixel centres at +0.5.
        width: Pixels.
        height: Pixels.
        sh_degree: Degree to evaluate, 0 to 3; None takes `colors` as they are.
        backgrounds: [C, D], black if None; depth has none.
        near_plane: Nearer Gaussians are not drawn, metres.
        far_plane: Nor farther ones.
        eps2d: Added to every screen covariance, pixels^2.
        render_mode: What the channels are: colours, accumulated depth D, expected depth ED.
        rasterize_mode: "antialiased" lowers the opacity by what eps2d widened.
        absgrad: Put sums over pixels of |gradient| into `meta["means2d"].absgrad` on backward.
        backend: "auto" is gsplat for CUDA tensors and numba for others.

    Returns:
        image [C, H, W, X], alpha [C, H, W, 1] and a dict with means2d [C, N, 2] (a node of the
        graph), radii [C, N, 2] (0 where not drawn), depths [C, N], conics [C, N, 3],
        opacities [C, N], width, height.

    Raises:
        BadInput: a number that is not finite, with the index of its Gaussian.
        UsageError: arguments that don't fit together, or that the backend can't do.
        MachineLacks: the backend can't run here.
    """
    request = Request(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, sh_degree,
        backgrounds, near_plane, far_plane, eps2d, render_mode, rasterize_mode, absgrad,
    )  # fmt: skip
    request.check()
    if backend == "auto":
        backend = "gsplat" if means.is_cuda else "numba"
    if Ks.requires_grad and backend != "reference":
        raise UsageError(
            f"The {backend} backend gives no gradient to Ks.",
            hint="Use Ks.detach(), or backend='reference'.",
        )
    if backend == "numba":
        from talkgs_cli.rendering import numba_backend

        image, alphas, meta = numba_backend.render(request)
    elif backend == "reference":
        from talkgs_cli.rendering import reference

        image, alphas, meta = reference.render(request)
    elif backend == "gsplat":
        from talkgs_cli.rendering import gsplat_backend

        image, alphas, meta = gsplat_backend.render(request)
    else:
        raise UsageError(f"No backend {backend!r}.", hint=f"Known: {', '.join(get_args(Backend))}.")
    if "ED" in render_mode:  # backends draw accumulated depth
        depth = image[..., -1:] / alphas.clamp(min=1e-10)
        image = torch.cat([image[..., :-1], depth], dim=-1)
    return image, alphas, {**meta, "width": width, "height": height}
