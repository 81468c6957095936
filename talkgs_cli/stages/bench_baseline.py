"""The baseline of `bench`: the same picture in plain torch, many tiles at a time.

What one would write without kernels. It is no backend: it exists to be compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkgs_cli.rendering import reference
from talkgs_cli.rendering.request import Request

TILE = 16
TILES_AT_ONCE = 64


def torch_tiles(request: Request) -> tuple[Tensor, Tensor]:
    """Draw the first camera's colours: image [H, W, 3] and alpha [H, W, 1]."""
    viewmat, K = request.viewmats[0], request.Ks[0]
    screen = reference.project_gaussians(request, viewmat, K)
    assert request.sh_degree is not None  # bench asks for nothing else
    colors = reference.sh_colors(request.sh_degree, request.means, request.colors, viewmat)
    tiles_x, tiles_y = -(-request.width // TILE), -(-request.height // TILE)
    gaussians, start = _pairs(screen, tiles_x, tiles_y)
    # one more Gaussian that draws nothing fills the lists up
    means2d = torch.cat([screen.means2d, screen.means2d.new_zeros(1, 2)])
    conics = torch.cat([screen.conics, screen.conics.new_ones(1, 3)])
    opacities = torch.cat([screen.opacities, screen.opacities.new_zeros(1)])
    colors = torch.cat([colors, colors.new_zeros(1, 3)])
    background = request.full_backgrounds()[0]
    offset = torch.arange(TILE) + 0.5
    inside = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), -1).reshape(-1, 2)
    lengths = start[1:] - start[:-1]
    pieces, order = [], torch.argsort(lengths)
    for tiles in order.split(TILES_AT_ONCE):
        longest = max(1, int(lengths[tiles].max()))
        place = start[tiles][:, None] + torch.arange(longest)
        filled = torch.arange(longest) < lengths[tiles][:, None]
        listed = torch.where(filled, place, 0)
        index = torch.where(filled, gaussians[listed] if len(gaussians) else 0, len(request.means))
        corner = torch.stack([tiles % tiles_x, tiles // tiles_x], -1) * TILE
        pixels = corner[:, None] + inside  # [G, 256, 2]
        dx, dy = (means2d[index][:, :, None] - pixels[:, None]).unbind(-1)  # [G, L, 256]
        a, b, c = conics[index][:, :, None].unbind(-1)
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (opacities[index][..., None] * torch.exp(-sigma)).clamp_max(reference.ALPHA_MAX)
        alpha = alpha * (alpha.detach() >= reference.ALPHA_MIN)
        alpha = alpha * (torch.cumprod(1 - alpha.detach(), 1) > reference.TRANSMITTANCE_MIN)
        left = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
        image = torch.einsum("glp,glc->gpc", alpha * before, colors[index])
        last = left[:, -1, :, None]
        pieces.append(torch.cat([image + last * background, 1 - last], -1))
    flat = torch.cat(pieces)[torch.argsort(order)]  # [tiles, 256, 4]
    picture = flat.view(tiles_y, tiles_x, TILE, TILE, 4).transpose(1, 2)
    picture = picture.reshape(tiles_y * TILE, tiles_x * TILE, 4)[: request.height, : request.width]
    return picture[..., :3], picture[..., 3:]


def _pairs(screen: reference.Projected, tiles_x: int, tiles_y: int) -> tuple[Tensor, Tensor]:
    """Gaussians of all tiles, near to far, and [tiles + 1] where each tile's begin."""
    with torch.no_grad():
        drawn = (screen.radii > 0).all(-1).nonzero()[:, 0]
        drawn = drawn[torch.argsort(screen.depths[drawn])]
        centre, radius = screen.means2d[drawn], screen.radii[drawn]
        limit = torch.tensor([tiles_x, tiles_y])
        low = ((centre - radius) / TILE).floor().long().clamp_min(0).minimum(limit)
        high = ((centre + radius) / TILE).ceil().long().clamp_min(0).minimum(limit)
        size = high - low
        count = size.prod(-1)
        which = torch.repeat_interleave(torch.arange(len(drawn)), count)
        rank = torch.arange(len(which)) - (torch.cumsum(count, 0) - count)[which]
        x = low[which, 0] + rank % size[which, 0].clamp_min(1)
        y = low[which, 1] + rank // size[which, 0].clamp_min(1)
        tile = y * tiles_x + x
        order = torch.argsort(tile, stable=True)
        total = torch.bincount(tile, minlength=tiles_x * tiles_y)
        start = torch.cat([torch.zeros(1, dtype=torch.long), torch.cumsum(total, 0)])
        return drawn[which[order]], start
