"""Numba kernels that list, for every tile, the Gaussians that touch it, nearest first.

Tiles are 8 pixels wide, as wide as a small Gaussian, and 32 high. A Gaussian is not listed by its
bounding box: for each column of tiles the rows that its ellipse touches there are worked out, so
that the blending kernels see few pixels in vain.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import inline, kernel

TILE_WIDTH = 8
TILE_HEIGHT = 32
ROWS_AT_ONCE = 2  # a vector of 16 pixels covers two rows of a tile
RADIX_BITS = 11


@kernel
def depth_order(depths, keys, ellipses):
    """Indices of the drawn Gaussians from near to far, equal depths by index: [drawn] int32.

    A radix sort: the bits of positive floats order like integers.

    Args:
        depths: [N] float32, all positive where drawn.
        keys: [N] uint32, the same memory.
        ellipses: [N, 4]; the first column is 0 where culled.
    """
    buckets = 1 << RADIX_BITS
    order = np.empty(depths.shape[0], np.int32)
    count = 0
    for i in range(depths.shape[0]):
        if ellipses[i, 0] > f4(0):
            order[count] = i
            count += 1
    other = np.empty(count, np.int32)
    histogram = np.empty(buckets, np.int32)
    for digit in range(3):
        shift = np.uint32(digit * RADIX_BITS)
        mask = np.uint32(buckets - 1)
        histogram[:] = 0
        for k in range(count):
            histogram[(keys[order[k]] >> shift) & mask] += 1
        total = 0
        for b in range(buckets):
            here = histogram[b]
            histogram[b] = total
            total += here
        for k in range(count):
            i = order[k]
            b = (keys[i] >> shift) & mask
            other[histogram[b]] = i
            histogram[b] += 1
        for k in range(count):
            order[k] = other[k]
    return order[:count]


@kernel
def count_columns(means2d, ellipses, width, span_start):
    """Write where each Gaussian's spans begin, [N + 1] int32: one span per column of tiles."""
    total = 0
    for i in range(means2d.shape[0]):
        span_start[i] = total
        rx = ellipses[i, 0]
        if rx > f4(0):
            x = means2d[i, 0]
            # pixel j has its centre at j + 0.5
            first = max(0, math.floor(x - rx)) // TILE_WIDTH
            last = min(width - 1, math.floor(x + rx)) // TILE_WIDTH
            total += max(0, last - first + 1)
    span_start[means2d.shape[0]] = total


@inline
def rows_touched(x, y, rx, ry, slope, spread, left, right, out):
    """Rows that an ellipse touches between pixel centres left and right, into out[2].

    The middle of the ellipse at offset u from its centre is slope * u, its half height there
    spread * sqrt(rx^2 - u^2); the highest and lowest points lie at u = +-slope * rx^2 / ry.
    """
    u0, u1 = max(left - x, -rx), min(right - x, rx)
    h0 = spread * math.sqrt(max(f4(0), rx * rx - u0 * u0))
    h1 = spread * math.sqrt(max(f4(0), rx * rx - u1 * u1))
    low = min(slope * u0 - h0, slope * u1 - h1)
    high = max(slope * u0 + h0, slope * u1 + h1)
    peak = slope * rx * rx / ry
    if u0 <= peak <= u1:
        high = ry
    if u0 <= -peak <= u1:
        low = -ry
    slack = f4(1e-3) + f4(1e-5) * (rx + ry)
    out[0] = y + low - slack
    out[1] = y + high + slack if u0 <= u1 + slack else out[0] - f4(1)


@kernel
def find_spans(start, stop, means2d, ellipses, width, height, span_start, spans, pairs_of):
    """For Gaussians start..stop: the rows touched in each column of tiles, and how many tiles.

    Args:
        start: First Gaussian.
        stop: One past the last.
        means2d: [N, 2] pixels.
        ellipses: [N, 4] as `project` writes them.
        width: Image width.
        height: Image height.
        span_start: [N + 1] int32.
        spans: [spans, 2] int32 out: first and last row; last < first where nothing is touched.
        pairs_of: [N] int32 out: tiles touched.
    """
    rows = np.empty(2, np.float32)
    for i in range(start, stop):
        pairs = 0
        if span_start[i] < span_start[i + 1]:
            x, y = means2d[i, 0] - f4(0.5), means2d[i, 1] - f4(0.5)
            rx, ry = ellipses[i, 0], ellipses[i, 1]
            column = max(0, math.floor(means2d[i, 0] - rx)) // TILE_WIDTH
            for s in range(span_start[i], span_start[i + 1]):
                left = f4(column * TILE_WIDTH)
                rows_touched(
                    x, y, rx, ry, ellipses[i, 2], ellipses[i, 3], left,
                    left + f4(TILE_WIDTH - 1), rows,
                )  # fmt: skip
                first = max(0, math.ceil(rows[0]))
                last = min(height - 1, math.floor(rows[1]))
                spans[s, 0] = first
                spans[s, 1] = last
                if first <= last:
                    pairs += last // TILE_HEIGHT - first // TILE_HEIGHT + 1
                column += 1
        pairs_of[i] = pairs


@kernel
def fill_tiles(
    order, means2d, ellipses, span_start, spans, pair_start, tiles_x, tile_start, gaussians, rows,
    slots,
):  # fmt: skip
    """A stable counting sort of (Gaussian, tile) pairs by tile, so that depth order stays.

    Args:
        order: [drawn] int32, Gaussians from near to far.
        means2d: [N, 2].
        ellipses: [N, 4].
        span_start: [N + 1] int32.
        spans: [spans, 2] int32.
        pair_start: [N + 1] int32: where each Gaussian's slots begin.
        tiles_x: Columns of tiles.
        tile_start: [tiles + 1] int32 out: where each tile's pairs begin.
        gaussians: [pairs] int32 out.
        rows: [pairs] int32 out: 256 * first vector of the tile + number of vectors.
        slots: [pairs] int32 out, or empty: number of the pair when counted Gaussian by Gaussian.
    """
    tile_start[:] = 0
    for k in range(order.shape[0]):
        i = order[k]
        column = max(0, math.floor(means2d[i, 0] - ellipses[i, 0])) // TILE_WIDTH
        for s in range(span_start[i], span_start[i + 1]):
            if spans[s, 0] <= spans[s, 1]:
                for ty in range(spans[s, 0] // TILE_HEIGHT, spans[s, 1] // TILE_HEIGHT + 1):
                    tile_start[ty * tiles_x + column + 1] += 1
            column += 1
    for t in range(tile_start.shape[0] - 1):
        tile_start[t + 1] += tile_start[t]
    cursor = tile_start[:-1].copy()
    keep_slots = slots.shape[0] > 0
    for k in range(order.shape[0]):
        i = order[k]
        slot = pair_start[i]
        column = max(0, math.floor(means2d[i, 0] - ellipses[i, 0])) // TILE_WIDTH
        for s in range(span_start[i], span_start[i + 1]):
            first, last = spans[s, 0], spans[s, 1]
            if first <= last:
                for ty in range(first // TILE_HEIGHT, last // TILE_HEIGHT + 1):
                    t = ty * tiles_x + column
                    place = cursor[t]
                    cursor[t] = place + 1
                    gaussians[place] = i
                    top = ty * TILE_HEIGHT
                    begin = max(first - top, 0) // ROWS_AT_ONCE
                    end = min(last - top, TILE_HEIGHT - 1) // ROWS_AT_ONCE
                    rows[place] = 256 * begin + (end - begin + 1)
                    if keep_slots:
                        slots[place] = slot
                    slot += 1
            column += 1
