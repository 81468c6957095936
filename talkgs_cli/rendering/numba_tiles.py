"""Numba kernels that blend Gaussians into 16x16 tiles, and back; they know nothing of cameras.

Written for SIMD, which is easily lost (6 to 7 times slower): one flat scratch array with constant
offsets, unsigned indices, selects instead of branches, inner loops of exactly 16 pixels.
tests/test_rasterize_simd.py counts vector instructions in the generated code.

The backward pass runs front to back like the forward pass. Per pixel it keeps Q, the part of
<gradient, colour> that lies behind the Gaussians blended so far, so that nothing of the forward
pass but the image has to be stored.

Three channels are blended at a time; images with more take several passes.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import math

import numpy as np
from numba import float32 as f4
from numba import uint64 as u8

from talkgs_cli.rendering.numba_jit import inline, kernel

GROUP = 3
"""Channels a pass blends."""

GEOMETRY = 6
"""Columns of a pair's gradient before the features: mean x, y, conic xx, xy, yy, opacity."""

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
    start, stop, width, height, means2d, records, radii, tile_start, gaussians, background,
    column, first, image, transmittance,
):  # fmt: skip
    """Blend three channels of tiles start..stop, front to back.

    Args:
        start: First tile.
        stop: One past the last.
        width: Image width.
        height: Image height.
        means2d: [N, 2].
        records: [N, R] as `project` writes them.
        radii: [N, 2] int32.
        tile_start: [tiles + 1] int32.
        gaussians: [pairs] int32.
        background: [X].
        column: Record column of the image's channel 0.
        first: First channel of this pass.
        image: [H, W, X] out.
        transmittance: [H, W] out: what is left of the background.
    """
    tiles_x = (width + 15) // 16
    one, zero = f4(1), f4(0)
    channels = min(GROUP, image.shape[2] - first)
    c0 = column + first
    c1 = c0 + (1 if channels > 1 else 0)
    c2 = c0 + (2 if channels > 2 else 0)
    # scratch: transmittance 0, alive 256, three channels 512.., pixel centres 1280
    S = np.empty(1296, np.float32)
    for tile in range(start, stop):
        ty = tile // tiles_x
        X0, Y0 = (tile - ty * tiles_x) * 16, ty * 16
        wide, high = min(16, width - X0), min(16, height - Y0)
        for i in range(256):
            S[i] = one
            S[256 + i] = one
            S[512 + i] = zero
            S[768 + i] = zero
            S[1024 + i] = zero
        for i in range(16):
            S[1280 + i] = f4(i)
        left, top = f4(X0) + f4(0.5), f4(Y0) + f4(0.5)
        begin = tile_start[tile]
        for k in range(begin, tile_start[tile + 1]):
            g = gaussians[k]
            mx, my = means2d[g, 0] - left, means2d[g, 1] - top
            a, b, c = f4(0.5) * records[g, 0], records[g, 1], f4(0.5) * records[g, 2]
            opacity = records[g, 3]
            f0, f1, f2 = records[g, c0], records[g, c1], records[g, c2]
            ry = f4(radii[g, 1])
            y0 = max(0, math.floor(my - ry))
            y1 = min(high, math.ceil(my + ry) + 1)
            for y in range(y0, y1):
                dy = my - f4(y)
                cy, bd = c * dy * dy, b * dy
                row = u8(y) * u8(16)
                for x in range(u8(16)):
                    i = row + x
                    dx = mx - S[u8(1280) + x]
                    sigma = (a * dx + bd) * dx + cy
                    alpha = min(opacity * exp_minus(min(sigma, f4(6))), f4(ALPHA_MAX))
                    alive = S[u8(256) + i]
                    before = S[i]
                    keep = alive if alpha >= f4(ALPHA_MIN) else zero
                    keep = keep if sigma >= zero else zero
                    alpha = alpha * keep
                    after = before * (one - alpha)
                    done = after <= f4(TRANSMITTANCE_MIN)
                    S[u8(256) + i] = zero if done else alive
                    alpha = zero if done else alpha
                    S[i] = before if done else after
                    w = alpha * before
                    S[u8(512) + i] += w * f0
                    S[u8(768) + i] += w * f1
                    S[u8(1024) + i] += w * f2
            if ((k - begin) & 31) == 31:
                any_alive = zero
                for i in range(256):
                    any_alive += S[256 + i]
                if any_alive == zero:
                    break
        for y in range(high):
            for x in range(wide):
                i = y * 16 + x
                t = S[i]
                for j in range(channels):
                    image[Y0 + y, X0 + x, first + j] = (
                        S[512 + 256 * j + i] + t * background[first + j]
                    )
                transmittance[Y0 + y, X0 + x] = t


@kernel
def blend_tiles_backward(
    start, stop, width, height, means2d, records, radii, tile_start, gaussians, slots,
    column, first, image, transmittance, grad_image, grad_alpha, pair_gradients,
):  # fmt: skip
    """Gradients of three channels for tiles start..stop, one row per (Gaussian, tile) pair.

    Args as in `blend_tiles`, and: slots [pairs] int32 (row of each pair), grad_image [H, W, X],
    grad_alpha [H, W], pair_gradients [pairs, 6 + X]: written by the pass with first == 0, whose
    geometry columns later passes add to.
    """
    tiles_x = (width + 15) // 16
    one, zero, half = f4(1), f4(0), f4(0.5)
    channels = min(GROUP, image.shape[2] - first)
    c0 = column + first
    c1 = c0 + (1 if channels > 1 else 0)
    c2 = c0 + (2 if channels > 2 else 0)
    columns = pair_gradients.shape[1]
    # scratch: transmittance 0, alive 256, Q 512, three gradients 768.., pixel centres 1536,
    # six sums per pixel column 1552..
    S = np.empty(1648, np.float32)
    for tile in range(start, stop):
        begin, end = tile_start[tile], tile_start[tile + 1]
        if begin == end:
            continue
        ty = tile // tiles_x
        X0, Y0 = (tile - ty * tiles_x) * 16, ty * 16
        wide, high = min(16, width - X0), min(16, height - Y0)
        for i in range(1536):
            S[i] = zero
        for i in range(256):
            S[i] = one
        for i in range(16):
            S[1536 + i] = f4(i)
        for y in range(high):
            for x in range(wide):
                i = y * 16 + x
                S[256 + i] = one
                behind = zero
                for j in range(channels):
                    gradient = grad_image[Y0 + y, X0 + x, first + j]
                    S[768 + 256 * j + i] = gradient
                    behind += gradient * image[Y0 + y, X0 + x, first + j]
                if first == 0:
                    behind -= grad_alpha[Y0 + y, X0 + x] * transmittance[Y0 + y, X0 + x]
                S[512 + i] = behind
        left, top = f4(X0) + half, f4(Y0) + half
        unseen = end
        for k in range(begin, end):
            g = gaussians[k]
            mx, my = means2d[g, 0] - left, means2d[g, 1] - top
            A, b, C = records[g, 0], records[g, 1], records[g, 2]
            a, c = half * A, half * C
            opacity = records[g, 3]
            f0, f1, f2 = records[g, c0], records[g, c1], records[g, c2]
            ry = f4(radii[g, 1])
            y0 = max(0, math.floor(my - ry))
            y1 = min(high, math.ceil(my + ry) + 1)
            for i in range(96):
                S[1552 + i] = zero
            for y in range(y0, y1):
                dy = my - f4(y)
                cy, bd = c * dy * dy, b * dy
                row = u8(y) * u8(16)
                for x in range(u8(16)):
                    i = row + x
                    dx = mx - S[u8(1536) + x]
                    sigma = (a * dx + bd) * dx + cy
                    raw = opacity * exp_minus(min(sigma, f4(6)))
                    alpha = min(raw, f4(ALPHA_MAX))
                    alive = S[u8(256) + i]
                    before = S[i]
                    keep = alive if alpha >= f4(ALPHA_MIN) else zero
                    keep = keep if sigma >= zero else zero
                    alpha = alpha * keep
                    after = before * (one - alpha)
                    done = after <= f4(TRANSMITTANCE_MIN)
                    S[u8(256) + i] = zero if done else alive
                    alpha = zero if done else alpha
                    S[i] = before if done else after
                    w = alpha * before
                    g0, g1, g2 = S[u8(768) + i], S[u8(1024) + i], S[u8(1280) + i]
                    here = g0 * f0 + g1 * f1 + g2 * f2
                    behind = S[u8(512) + i] - w * here
                    S[u8(512) + i] = behind
                    g_alpha = before * here - behind / (one - alpha)
                    g_sigma = alpha * g_alpha
                    g_sigma = g_sigma if raw <= f4(ALPHA_MAX) else zero
                    S[u8(1552) + x] -= g_sigma
                    S[u8(1568) + x] -= g_sigma * dy
                    S[u8(1584) + x] -= g_sigma * dy * dy
                    S[u8(1600) + x] += w * g0
                    S[u8(1616) + x] += w * g1
                    S[u8(1632) + x] += w * g2
            m0, mx1, my1, mxx, mxy, myy = zero, zero, zero, zero, zero, zero
            v0, v1, v2 = zero, zero, zero
            for x in range(u8(16)):
                dx = mx - S[u8(1536) + x]
                s0, s1 = S[u8(1552) + x], S[u8(1568) + x]
                m0 += s0
                mx1 += s0 * dx
                mxx += s0 * dx * dx
                my1 += s1
                mxy += s1 * dx
                myy += S[u8(1584) + x]
                v0 += S[u8(1600) + x]
                v1 += S[u8(1616) + x]
                v2 += S[u8(1632) + x]
            slot = slots[k]
            if first == 0:
                for j in range(columns):
                    pair_gradients[slot, j] = zero
            pair_gradients[slot, 0] += A * mx1 + b * my1
            pair_gradients[slot, 1] += b * mx1 + C * my1
            pair_gradients[slot, 2] += half * mxx
            pair_gradients[slot, 3] += mxy
            pair_gradients[slot, 4] += half * myy
            pair_gradients[slot, 5] += -m0 / opacity
            pair_gradients[slot, 6 + first] = v0
            if channels > 1:
                pair_gradients[slot, 7 + first] = v1
            if channels > 2:
                pair_gradients[slot, 8 + first] = v2
            if ((k - begin) & 31) == 31:
                any_alive = zero
                for i in range(256):
                    any_alive += S[256 + i]
                if any_alive == zero:
                    unseen = k + 1
                    break
        if first == 0:
            for k in range(unseen, end):
                for j in range(columns):
                    pair_gradients[slots[k], j] = zero


@kernel
def sum_pairs(start, stop, gaussian_start, pair_gradients, column, grad_means2d, grad_records):
    """Add up the pairs of Gaussians start..stop; grad_records is zero where no feature is drawn."""
    features = pair_gradients.shape[1] - GEOMETRY
    for i in range(start, stop):
        for s in range(gaussian_start[i], gaussian_start[i + 1]):
            grad_means2d[i, 0] += pair_gradients[s, 0]
            grad_means2d[i, 1] += pair_gradients[s, 1]
            for j in range(4):
                grad_records[i, j] += pair_gradients[s, 2 + j]
            for j in range(features):
                grad_records[i, column + j] += pair_gradients[s, GEOMETRY + j]
