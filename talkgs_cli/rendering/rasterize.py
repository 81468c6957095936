"""`rasterize`: one function in front of every backend, with gsplat's arguments and conventions.

It checks arguments and chooses the backend; it draws nothing itself.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from talkgs_cli.errors import BadInput, UsageError

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]
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
        quats: [N, 4] wxyz, any length; zero means no rotation.
        scales: [N, 3] standard deviations, after activation.
        opacities: [N] in [0, 1], after activation.
        colors: [N, K, 3] spherical harmonics with `sh_degree`, else [N, D] features.
        viewmats: [C, 4, 4] world to camera (OpenCV), rigid.
        Ks: [C, 3, 3] pixels, pixel centres at +0.5.
        width: Pixels.
        height: Pixels.
        sh_degree: Degree to evaluate, 0 to 3; None takes `colors` as they are.
        backgrounds: [C, D], black if None; depth has none.
        near_plane: Nearer Gaussians are not drawn, metres.
        far_plane: Nor farther ones.
        eps2d: Added to every screen covariance, pixels^2.
        render_mode: What the channels are: colours, accumulated depth D, expected depth ED.
        rasterize_mode: "antialiased" lowers the opacity by what eps2d widened.
        absgrad: Put sums of absolute gradients into `meta["means2d"].absgrad` on backward.
        backend: "auto" is gsplat for CUDA tensors and numba for others.

    Returns:
        image [C, H, W, X], alpha [C, H, W, 1] and a dict with means2d [C, N, 2] (a node of the
        graph), radii [C, N, 2], depths [C, N], conics [C, N, 3], opacities [C, N], width, height.

    Raises:
        BadInput: a number that is not finite, with the index of its Gaussian.
        UsageError: arguments that don't fit, or something the backend can't do.
    """
    _check_finite(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors,
        viewmats=viewmats,
    )  # fmt: skip
    from talkgs_cli.rendering import numba_backend

    with_color, with_depth = "RGB" in render_mode, "D" in render_mode
    features = 3 if sh_degree is not None else colors.shape[1]
    drawn = (features if with_color else 0) + (1 if with_depth else 0)
    settings = numba_backend.Settings(
        width=width,
        height=height,
        sh_degree=-1 if sh_degree is None else sh_degree,
        eps2d=eps2d,
        antialiased=rasterize_mode == "antialiased",
        near=near_plane,
        far=far_plane,
        column=4 if with_color else 4 + features,
        channels=drawn,
        absgrad=absgrad,
    )
    if backgrounds is None or not with_color:
        backgrounds = means.new_zeros(len(viewmats), drawn)
    elif with_depth:
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(len(viewmats), 1)], dim=1)
    image, alphas, meta = numba_backend.render(
        means, quats, scales, opacities, colors if sh_degree is not None else colors[..., None],
        viewmats, Ks, backgrounds, settings,
    )  # fmt: skip
    if "ED" in render_mode:
        image = torch.cat([image[..., :-1], image[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    return image, alphas, {**meta, "width": width, "height": height}


def _check_finite(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.detach().sum())):
            bad = ~torch.isfinite(tensor.detach())
            if bool(bad.any()):
                index = int(bad.reshape(len(tensor), -1).any(1).nonzero()[0])
                what = "camera" if name == "viewmats" else "Gaussian"
                raise BadInput(f"{name} of {what} {index} is not a finite number.")
