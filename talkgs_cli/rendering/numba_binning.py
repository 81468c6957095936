"""Numba kernels that list, for every 16x16 tile, the Gaussians that touch it, nearest first."""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import kernel

TILE = 16


@kernel
def bin_tiles(means2d, radii, order, width, height, boxes, tile_start, gaussian_start):
    """Count, then place: a stable counting sort of (Gaussian, tile) pairs by tile.

    Args:
        means2d: [N, 2] pixels.
        radii: [N, 2] int32 pixels, 0 where culled.
        order: [N] int64, Gaussians from near to far.
        width: Image width.
        height: Image height.
        boxes: [N, 4] int32 out, tile columns and rows [from, to).
        tile_start: [tiles + 1] int32 out, where each tile's pairs begin.
        gaussian_start: [N + 1] int32 out, where each Gaussian's slots begin.

    Returns:
        [pairs] int32 the Gaussian of each pair, and [pairs] int32 its slot, where the pairs of one
        Gaussian follow one another; both in tile order.
    """
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    inverse = f4(1 / TILE)
    tile_start[:] = 0
    total = 0
    for i in range(means2d.shape[0]):
        gaussian_start[i] = total
        rx, ry = radii[i, 0], radii[i, 1]
        if rx <= 0:
            boxes[i, 0] = 0
            boxes[i, 1] = 0
            boxes[i, 2] = 0
            boxes[i, 3] = 0
            continue
        x, y = means2d[i, 0], means2d[i, 1]
        x0 = max(0, min(tiles_x, math.floor((x - rx) * inverse)))
        x1 = max(0, min(tiles_x, math.ceil((x + rx) * inverse)))
        y0 = max(0, min(tiles_y, math.floor((y - ry) * inverse)))
        y1 = max(0, min(tiles_y, math.ceil((y + ry) * inverse)))
        boxes[i, 0] = x0
        boxes[i, 1] = x1
        boxes[i, 2] = y0
        boxes[i, 3] = y1
        total += (x1 - x0) * (y1 - y0)
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                tile_start[ty * tiles_x + tx + 1] += 1
    gaussian_start[means2d.shape[0]] = total
    for t in range(tiles_x * tiles_y):
        tile_start[t + 1] += tile_start[t]
    gaussians = np.empty(total, np.int32)
    slots = np.empty(total, np.int32)
    cursor = tile_start[:-1].copy()
    for k in range(order.shape[0]):
        i = order[k]
        slot = gaussian_start[i]
        for ty in range(boxes[i, 2], boxes[i, 3]):
            for tx in range(boxes[i, 0], boxes[i, 1]):
                t = ty * tiles_x + tx
                place = cursor[t]
                cursor[t] = place + 1
                gaussians[place] = i
                slots[place] = slot
                slot += 1
    return gaussians, slots
