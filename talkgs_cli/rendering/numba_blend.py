"""Numba kernel that blends Gaussians into tiles, front to back; it knows nothing of cameras.

Written for SIMD, which is easily lost (6 times slower): everything a pixel has lies in planes of
one flat scratch array with constant distances, indices are unsigned, choices are selects, and one
loop runs over all pixels of a (Gaussian, tile) pair. Tables or sums in other arrays would make LLVM
check for overlap before every pair, or give up. tests/test_rasterize_simd.py counts the vector
instructions.

Three channels are blended at a time; images with more take several passes.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import numpy as np
from numba import float32 as f4
from numba import uint64 as u8

from talkgs_cli.rendering.numba_binning import TILE_HEIGHT, TILE_WIDTH
from talkgs_cli.rendering.numba_jit import inline, kernel

GROUP = 3
"""Channels a pass blends."""

PLANE = TILE_WIDTH * TILE_HEIGHT
"""Pixels of a tile, and so the distance of planes in the scratch array."""

VECTOR = 16
"""Pixels a row range is counted in (numba_binning.ROWS_AT_ONCE rows)."""

CHECK_EVERY = 32
"""After so many pairs a tile asks whether any pixel is unfinished."""

ALPHA_MAX = 0.999
ALPHA_MIN = 1 / 255
TRANSMITTANCE_MIN = 1e-4


@inline
def exp_minus(s):
    """exp(-s) for 0 <= s <= 6 to 3e-7: a degree-5 polynomial of s/8, to the eighth power."""
    t = s * f4(0.125)
    p = f4(-0.005698704) * t + f4(0.039522044)
    p = p * t + f4(-0.16582602)
    p = p * t + f4(0.499847)
    p = p * t + f4(-0.99998957)
    p = p * t + f4(0.9999999)
    p = p * p
    p = p * p
    return p * p


@kernel
def blend_tiles(
    start, stop, width, height, means2d, records, tile_start, gaussians, rows, background,
    column, first, image, transmittance,
):  # fmt: skip
    """Blend three channels of tiles start..stop.

    A finished pixel is marked by a negative transmittance.

    Args:
        start: First tile.
        stop: One past the last.
        width: Image width.
        height: Image height.
        means2d: [N, 2].
        records: [N, R] as `project` writes them.
        tile_start: [tiles + 1] int32.
        gaussians: [pairs] int32.
        rows: [pairs] int32, which vectors of the tile a pair touches.
        background: [X].
        column: Record column of the image's channel 0.
        first: First channel of this pass.
        image: [H, W, X] out.
        transmittance: [H, W] out: what is left of the background.
    """
    tiles_x = (width + TILE_WIDTH - 1) // TILE_WIDTH
    one, zero, half = f4(1), f4(0), f4(0.5)
    channels = min(GROUP, image.shape[2] - first)
    c0 = column + first
    c1 = c0 + (1 if channels > 1 else 0)
    c2 = c0 + (2 if channels > 2 else 0)
    b0, b1, b2 = background[first], background[c1 - column], background[c2 - column]
    # planes: transmittance, three channels, x, y
    S = np.empty(6 * PLANE, np.float32)
    for i in range(PLANE):
        S[4 * PLANE + i] = f4(i % TILE_WIDTH)
        S[5 * PLANE + i] = f4(i // TILE_WIDTH)
    for tile in range(start, stop):
        ty = tile // tiles_x
        X0, Y0 = (tile - ty * tiles_x) * TILE_WIDTH, ty * TILE_HEIGHT
        wide, high = min(TILE_WIDTH, width - X0), min(TILE_HEIGHT, height - Y0)
        for i in range(PLANE):
            S[i] = one
            S[PLANE + i] = zero
            S[2 * PLANE + i] = zero
            S[3 * PLANE + i] = zero
        if wide < TILE_WIDTH or high < TILE_HEIGHT:  # what lies outside the image is finished
            for i in range(PLANE):
                if i % TILE_WIDTH >= wide or i // TILE_WIDTH >= high:
                    S[i] = -one
        left, top = f4(X0) + half, f4(Y0) + half
        begin = tile_start[tile]
        for k in range(begin, tile_start[tile + 1]):
            g = gaussians[k]
            mx, my = means2d[g, 0] - left, means2d[g, 1] - top
            a, b, c = half * records[g, 0], records[g, 1], half * records[g, 2]
            opacity = records[g, 3]
            f0, f1, f2 = records[g, c0], records[g, c1], records[g, c2]
            offset = u8(rows[k] >> 8) * u8(VECTOR)
            for j in range(u8(rows[k] & 255) * u8(VECTOR)):
                i = offset + j
                dx = mx - S[u8(4 * PLANE) + i]
                dy = my - S[u8(5 * PLANE) + i]
                sigma = (a * dx + b * dy) * dx + c * dy * dy
                alpha = min(opacity * exp_minus(min(sigma, f4(6))), f4(ALPHA_MAX))
                alpha = alpha if alpha >= f4(ALPHA_MIN) else zero
                before = S[i]
                w = alpha * before
                after = before - w
                done = after <= f4(TRANSMITTANCE_MIN)
                w = zero if done else w
                S[i] = -abs(before) if done else after
                S[u8(PLANE) + i] += w * f0
                S[u8(2 * PLANE) + i] += w * f1
                S[u8(3 * PLANE) + i] += w * f2
            if (k - begin) % CHECK_EVERY == CHECK_EVERY - 1:
                most = -one
                for i in range(PLANE):
                    most = max(most, S[i])
                if most < zero:
                    break
        for y in range(high):
            for x in range(wide):
                i = y * TILE_WIDTH + x
                t = abs(S[i])
                transmittance[Y0 + y, X0 + x] = t
                image[Y0 + y, X0 + x, first] = S[PLANE + i] + t * b0
                if channels > 1:
                    image[Y0 + y, X0 + x, first + 1] = S[2 * PLANE + i] + t * b1
                if channels > 2:
                    image[Y0 + y, X0 + x, first + 2] = S[3 * PLANE + i] + t * b2
