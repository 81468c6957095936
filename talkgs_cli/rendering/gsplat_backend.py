"""The CUDA rasteriser: gsplat, if this machine can run it, and the reason if it can't.

gsplat is never imported at start-up. Its wheel is pure Python and compiles CUDA code on first use,
so that importing it proves nothing: `gsplat_status` asks for the compiled part. Written against the
code of 1.5.3, whose CPU reference is compared with ours in the tests, and the signature of 1.4
(which also cuts Gaussians at 3 sigma). Nothing here was run on a CUDA card.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from talkgs_cli.errors import MachineLacks, UsageError
from talkgs_cli.rendering.request import Request


@dataclass(frozen=True)
class GsplatStatus:
    """Whether gsplat can be used here.

    Attributes:
        usable: True if `rasterize(backend="gsplat")` will run.
        reason: Why not, or the version that will be used.
    """

    usable: bool
    reason: str


def _installed() -> bool:
    return importlib.util.find_spec("gsplat") is not None


@functools.cache
def gsplat_status() -> GsplatStatus:
    """Probe gsplat, cheapest question first; may compile CUDA code when a card is there."""
    if not torch.cuda.is_available():
        what = "built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        return GsplatStatus(False, f"torch {torch.__version__} {what}")
    if not _installed():
        return GsplatStatus(False, "gsplat is not installed (pip install 'talkgs[cuda]')")
    try:
        import gsplat
        from gsplat.cuda import _backend
    except Exception as error:  # building CUDA code fails with almost any type of error
        return GsplatStatus(False, f"gsplat does not load: {type(error).__name__}: {error}")
    if getattr(_backend, "_C", None) is None:
        return GsplatStatus(False, "gsplat has no compiled part: install nvcc of torch's CUDA")
    return GsplatStatus(True, f"gsplat {gsplat.__version__}")


def require_gsplat() -> None:
    """Raise `MachineLacks` with the reason unless gsplat can be used."""
    status = gsplat_status()
    if not status.usable:
        raise MachineLacks(
            f"The gsplat backend can't be used here: {status.reason}.",
            hint="Use --device cpu (backend numba).",
        )


def render(request: Request) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Call gsplat.

    Raises:
        MachineLacks: gsplat can't be used.
        UsageError: this version has no such option.
    """
    require_gsplat()
    from gsplat import rasterization

    options = {
        "near_plane": request.near_plane,
        "far_plane": request.far_plane,
        "eps2d": request.eps2d,
        "sh_degree": request.sh_degree,
        "packed": False,  # packed results lose the [C, N] shape of meta
        "backgrounds": request.backgrounds if request.draws_color else None,
        "render_mode": request.render_mode.replace("ED", "D"),
        "absgrad": request.absgrad,
        "rasterize_mode": request.rasterize_mode,
    }
    unknown = sorted(set(options) - set(inspect.signature(rasterization).parameters))
    if unknown:
        raise UsageError(f"This gsplat can't do {', '.join(unknown)}.", hint="Use gsplat 1.5.")
    # A quaternion of length zero is NaN in gsplat's kernels; here it means "not rotated".
    zero = (request.quats.detach() ** 2).sum(-1, keepdim=True) <= 1e-24
    quats = torch.where(zero, request.quats.new_tensor([1.0, 0, 0, 0]), request.quats)
    image, alphas, meta = rasterization(
        request.means, quats, request.scales, request.opacities, request.colors,
        request.viewmats, request.Ks, request.width, request.height, **options,
    )  # fmt: skip
    if meta["radii"].ndim == 2:  # before 1.5: one radius for both axes
        meta["radii"] = meta["radii"][..., None].expand(*meta["radii"].shape, 2)
    return image, alphas, meta
