"""The CPU rasteriser: two autograd functions around the Numba kernels.

`Projection` turns Gaussians into screen records, `Blending` turns records into an image; between
them `means2d` is a tensor of the graph, as densification needs it. It checks no arguments; that is
`rasterize`'s part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkgs_cli.errors import UsageError
from talkgs_cli.rendering import (
    numba_binning,
    numba_blend,
    numba_blend_backward,
    numba_projection,
)
from talkgs_cli.rendering.numba_jit import even_pieces, run_pieces, threads
from talkgs_cli.rendering.numba_projection_backward import project_backward
from talkgs_cli.rendering.request import Request

GROUP, FEATURES = numba_blend.GROUP, numba_projection.FEATURES
PIECE = 1024
"""Gaussians per piece of work; fixed, so that sums over pieces do not depend on threads."""


@dataclass(frozen=True)
class Settings:
    """What both functions need besides tensors."""

    width: int
    height: int
    sh_degree: int  # -1: colours are features
    eps2d: float
    antialiased: bool
    near: float
    far: float
    column: int  # record column of the image's first channel
    channels: int  # channels of the image
    absgrad: bool


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


def _centre(view: Any) -> Any:
    """Camera centre in world coordinates, [3]."""
    return np.ascontiguousarray(-(view[:3, :3].T @ view[:3, 3]))


class Projection(torch.autograd.Function):
    """Gaussians to what `project` returns; means2d and records have gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, ...]:
        """Run the projection kernel for every camera."""
        means2d, records, radii, ellipses = project(
            means, quats, scales, opacities, colors, viewmats, Ks, settings
        )
        ctx.save_for_backward(means, quats, scales, opacities, colors, viewmats, Ks, records, radii)
        ctx.settings = settings
        ctx.mark_non_differentiable(radii, ellipses)
        return means2d, records, radii, ellipses

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Run the kernel's transpose, camera after camera."""
        grad_means2d, grad_records, _, _ = gradients
        *inputs, viewmats, Ks, records, radii = ctx.saved_tensors
        settings: Settings = ctx.settings
        arrays = [_numpy(tensor) for tensor in inputs]
        sums = [
            torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs
        ]
        outs = [tensor.numpy() for tensor in sums]
        pieces = even_pieces(len(arrays[0]), PIECE)
        grad_views = np.zeros((len(viewmats), 4, 4))
        for camera in range(len(viewmats)):
            view, K = _numpy(viewmats[camera]), _numpy(Ks[camera])
            partial = np.zeros((len(pieces), 3, 4))
            run_pieces(
                project_backward, pieces, *arrays, settings.sh_degree, view, K, _centre(view),
                settings.width, settings.height, np.float32(settings.eps2d), settings.antialiased,
                _numpy(radii[camera]), _numpy(records[camera]), _numpy(grad_means2d[camera]),
                _numpy(grad_records[camera]), *outs, partial, PIECE,
            )  # fmt: skip
            grad_views[camera, :3] = partial.sum(0)
        grad_view = torch.from_numpy(grad_views).to(viewmats.dtype)
        return (*sums, grad_view if ctx.needs_input_grad[5] else None, None, None)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    settings: Settings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`Projection` without a graph.

    Returns:
        means2d [C, N, 2], records [C, N, 4 + D + 1], radii [C, N, 2] int32, ellipses [C, N, 4].
    """
    cameras, count = len(viewmats), len(means)
    features = 3 if settings.sh_degree >= 0 else colors.shape[1]
    means2d = torch.empty(cameras, count, 2)
    records = torch.empty(cameras, count, numba_projection.FEATURES + features + 1)
    radii = torch.empty(cameras, count, 2, dtype=torch.int32)
    ellipses = torch.empty(cameras, count, 4)
    arrays = [_numpy(tensor) for tensor in (means, quats, scales, opacities, colors)]
    for camera in range(cameras):
        view, K = _numpy(viewmats[camera]), _numpy(Ks[camera])
        run_pieces(
            numba_projection.project, even_pieces(count, PIECE), *arrays, settings.sh_degree,
            view, K, _centre(view), settings.width, settings.height, np.float32(settings.eps2d),
            settings.antialiased, np.float32(settings.near), np.float32(settings.far),
            means2d[camera].numpy(), records[camera].numpy(), radii[camera].numpy(),
            ellipses[camera].numpy(),
        )  # fmt: skip
    return means2d, records, radii, ellipses


@dataclass
class _Bins:
    """The (Gaussian, tile) pairs of one camera."""

    tile_start: Any  # [tiles + 1] int32
    pair_start: Any  # [N + 1] int32
    gaussians: Any  # [pairs] int32
    rows: Any  # [pairs] int32
    slots: Any  # [pairs] int32, empty if there will be no backward pass

    def tile_pieces(self) -> list[tuple[int, int]]:
        """Ranges of tiles with about the same number of pairs."""
        count = 4 * threads()
        load = self.tile_start[1:] + np.arange(1, len(self.tile_start), dtype=np.int32)
        cuts = np.searchsorted(load, np.arange(1, count) * (load[-1] / count))
        edges = sorted({0, *cuts.tolist(), len(load)})
        return list(itertools.pairwise(edges))


def _bin(means2d: Any, depths: Any, ellipses: Any, settings: Settings, backward: bool) -> _Bins:
    count, width, height = len(means2d), settings.width, settings.height
    depths = np.ascontiguousarray(depths)
    order = numba_binning.depth_order(depths, depths.view(np.uint32), ellipses)
    span_start = np.empty(count + 1, np.int32)
    numba_binning.count_columns(means2d, ellipses, width, span_start)
    spans = np.empty((span_start[-1], 2), np.int32)
    pair_start = np.zeros(count + 1, np.int32)
    run_pieces(
        numba_binning.find_spans, even_pieces(count, PIECE), means2d, ellipses, width, height,
        span_start, spans, pair_start[1:],
    )  # fmt: skip
    np.cumsum(pair_start, out=pair_start)
    tiles_x = -(-width // numba_binning.TILE_WIDTH)
    tiles = tiles_x * -(-height // numba_binning.TILE_HEIGHT)
    bins = _Bins(
        np.empty(tiles + 1, np.int32),
        pair_start,
        np.empty(pair_start[-1], np.int32),
        np.empty(pair_start[-1], np.int32),
        np.empty(pair_start[-1] if backward else 0, np.int32),
    )
    numba_binning.fill_tiles(
        order, means2d, ellipses, span_start, spans, pair_start, tiles_x,
        bins.tile_start, bins.gaussians, bins.rows, bins.slots,
    )  # fmt: skip
    return bins


class Blending(torch.autograd.Function):
    """Records to image [C, H, W, X] and alpha [C, H, W, 1]."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        records: Tensor,
        ellipses: Tensor,
        backgrounds: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, Tensor]:
        """Bin and blend every camera."""
        image, left, bins = blend(means2d, records, ellipses, backgrounds, settings, backward=True)
        ctx.save_for_backward(means2d, records, image, left)
        ctx.bins, ctx.settings = bins, settings
        ctx.means2d = means2d if settings.absgrad else None  # .absgrad is set on this very object
        return image, 1 - left

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients of pairs, then their sums per Gaussian."""
        grad_image, grad_alpha = gradients
        means2d, records, image, left = ctx.saved_tensors
        settings: Settings = ctx.settings
        grad_means2d, grad_records = torch.empty_like(means2d), torch.empty_like(records)
        absolute = (
            torch.empty_like(means2d) if settings.absgrad else means2d.new_empty(len(means2d), 0, 2)
        )
        columns = numba_blend_backward.GEOMETRY + settings.channels
        kernel = numba_blend_backward.blend_tiles_backward
        if settings.absgrad:
            columns += numba_blend_backward.ABSOLUTE
            kernel = numba_blend_backward.blend_tiles_backward_absolute
        for camera, bins in enumerate(ctx.bins):
            pairs = np.empty((len(bins.gaussians), columns), np.float32)
            geometry = [
                settings.width, settings.height, _numpy(means2d[camera]), _numpy(records[camera]),
                bins.tile_start, bins.gaussians, bins.rows, bins.slots,
            ]  # fmt: skip
            pixels = [
                _numpy(t[camera]) for t in (image, left[..., 0], grad_image, grad_alpha[..., 0])
            ]
            for first in range(0, settings.channels, GROUP):
                run_pieces(
                    kernel, bins.tile_pieces(), *geometry, settings.column, first, *pixels, pairs
                )
            run_pieces(
                numba_blend_backward.sum_pairs, even_pieces(means2d.shape[1], PIECE),
                bins.pair_start, pairs, settings.column, settings.channels,
                grad_means2d[camera].numpy(), absolute[camera].numpy(),
                grad_records[camera].numpy(),
            )  # fmt: skip
        if ctx.means2d is not None:
            ctx.means2d.absgrad = absolute
        grad_backgrounds = None
        if ctx.needs_input_grad[3]:
            grad_backgrounds = (grad_image * left).sum((1, 2))
        return grad_means2d, grad_records, None, grad_backgrounds, None


def blend(
    means2d: Tensor,
    records: Tensor,
    ellipses: Tensor,
    backgrounds: Tensor,
    settings: Settings,
    backward: bool,
) -> tuple[Tensor, Tensor, list[_Bins]]:
    """Image [C, H, W, X], transmittance [C, H, W, 1] and the bins of every camera."""
    cameras = len(means2d)
    image = torch.empty(cameras, settings.height, settings.width, settings.channels)
    left = torch.empty(cameras, settings.height, settings.width, 1)
    all_bins = []
    for camera in range(cameras):
        points, record, ellipse = (_numpy(t[camera]) for t in (means2d, records, ellipses))
        bins = _bin(points, record[:, -1], ellipse, settings, backward)
        all_bins.append(bins)
        pieces = bins.tile_pieces()
        for first in range(0, settings.channels, GROUP):
            run_pieces(
                numba_blend.blend_tiles, pieces, settings.width, settings.height,
                points, record, bins.tile_start, bins.gaussians, bins.rows,
                _numpy(backgrounds[camera]), settings.column, first, image[camera].numpy(),
                left[camera, ..., 0].numpy(),
            )  # fmt: skip
    return image, left, all_bins


def render(request: Request) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Project and blend, with a graph only if something asks for gradients.

    Returns:
        image [C, H, W, X], alpha [C, H, W, 1] and what `rasterize` tells of the projection.

    Raises:
        UsageError: tensors that are not float32 on the CPU; absgrad with more than 3 channels.
    """
    settings = _settings(request)
    colors = request.colors if request.sh_degree is not None else request.colors[..., None]
    inputs = (
        request.means, request.quats, request.scales, request.opacities, colors, request.viewmats,
    )  # fmt: skip
    backgrounds = request.full_backgrounds()
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, backgrounds)):
        means2d, records, radii, ellipses = Projection.apply(*inputs, request.Ks, settings)
        image, alphas = Blending.apply(means2d, records, ellipses, backgrounds, settings)
    else:
        means2d, records, radii, ellipses = project(*inputs, request.Ks, settings)
        image, left, _ = blend(means2d, records, ellipses, backgrounds, settings, backward=False)
        alphas = 1 - left
    meta = {
        "means2d": means2d,
        "radii": radii,
        "depths": records[..., -1],
        "conics": records[..., :3],
        "opacities": records[..., 3],
    }
    return image, alphas, meta


def _settings(request: Request) -> Settings:
    means, channels = request.means, request.channels
    if not (means.is_cpu and means.dtype == torch.float32):
        raise UsageError(
            f"The numba backend needs float32 on the CPU, not {means.dtype} on {means.device}.",
            hint="Convert the tensors, or use another backend.",
        )
    if request.absgrad and channels > GROUP:
        raise UsageError(f"The numba backend can't do absgrad with {channels} channels.")
    return Settings(
        width=request.width,
        height=request.height,
        sh_degree=-1 if request.sh_degree is None else request.sh_degree,
        eps2d=request.eps2d,
        antialiased=request.antialiased,
        near=request.near_plane,
        far=request.far_plane,
        column=FEATURES + (0 if request.draws_color else request.features),
        channels=channels,
        absgrad=request.absgrad,
    )
