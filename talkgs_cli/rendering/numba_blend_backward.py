"""Numba kernels with the gradients of `numba_blend.blend_tiles`.

Like the forward pass it runs front to back. Per pixel it keeps what of <gradient, colour> still
lies behind the Gaussians blended so far, so that nothing of the forward pass but the image has to
be stored. Each (Gaussian, tile) pair has a row of its own for its gradients, which are then added
in a fixed order: no atomics, the same bits for any number of threads.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32 as f4
from numba import uint64 as u8

from talkgs_cli.rendering.numba_binning import TILE_HEIGHT, TILE_WIDTH
from talkgs_cli.rendering.numba_blend import (
    ALPHA_MAX,
    ALPHA_MIN,
    CHECK_EVERY,
    GROUP,
    PLANE,
    TRANSMITTANCE_MIN,
    VECTOR,
    exp_minus,
)
from talkgs_cli.rendering.numba_jit import kernel

GEOMETRY = 6
"""Columns of a pair's row before the features: mean x, y, conic xx, xy, yy, opacity."""

ABSOLUTE = 2
"""Columns after the features when asked for: sums of |mean x|, |mean y|."""


def _make_backward(absolute: bool) -> Any:
    def blend_tiles_backward(
        start, stop, width, height, means2d, records, tile_start, gaussians, rows, slots,
        column, first, image, transmittance, grad_image, grad_alpha, pair_gradients,
    ):  # fmt: skip
        """Gradients of three channels for tiles start..stop.

        Args as in `blend_tiles`, and: slots [pairs] int32 (row of each pair), grad_image
        [H, W, X], grad_alpha [H, W], pair_gradients [pairs, 6 + X (+ 2)] out: written by the pass
        with first == 0; later passes add to the geometry columns.
        """
        tiles_x = (width + TILE_WIDTH - 1) // TILE_WIDTH
        one, zero, half = f4(1), f4(0), f4(0.5)
        channels = min(GROUP, image.shape[2] - first)
        c0 = column + first
        c1 = c0 + (1 if channels > 1 else 0)
        c2 = c0 + (2 if channels > 2 else 0)
        columns = pair_gradients.shape[1]
        # planes: transmittance, what lies behind, three gradients, x, y
        S = np.empty(7 * PLANE, np.float32)
        for i in range(PLANE):
            S[5 * PLANE + i] = f4(i % TILE_WIDTH)
            S[6 * PLANE + i] = f4(i // TILE_WIDTH)
        for tile in range(start, stop):
            begin, end = tile_start[tile], tile_start[tile + 1]
            if begin == end:
                continue
            ty = tile // tiles_x
            X0, Y0 = (tile - ty * tiles_x) * TILE_WIDTH, ty * TILE_HEIGHT
            wide, high = min(TILE_WIDTH, width - X0), min(TILE_HEIGHT, height - Y0)
            for i in range(PLANE):
                S[i] = -one
            for i in range(PLANE, 5 * PLANE):
                S[i] = zero
            for y in range(high):
                for x in range(wide):
                    i = y * TILE_WIDTH + x
                    S[i] = one
                    g0 = grad_image[Y0 + y, X0 + x, first]
                    behind = g0 * image[Y0 + y, X0 + x, first]
                    S[2 * PLANE + i] = g0
                    if channels > 1:
                        g1 = grad_image[Y0 + y, X0 + x, first + 1]
                        behind += g1 * image[Y0 + y, X0 + x, first + 1]
                        S[3 * PLANE + i] = g1
                    if channels > 2:
                        g2 = grad_image[Y0 + y, X0 + x, first + 2]
                        behind += g2 * image[Y0 + y, X0 + x, first + 2]
                        S[4 * PLANE + i] = g2
                    if first == 0:
                        behind -= grad_alpha[Y0 + y, X0 + x] * transmittance[Y0 + y, X0 + x]
                    S[PLANE + i] = behind
            left, top = f4(X0) + half, f4(Y0) + half
            unseen = end
            for k in range(begin, end):
                g = gaussians[k]
                mx, my = means2d[g, 0] - left, means2d[g, 1] - top
                A, b, C = records[g, 0], records[g, 1], records[g, 2]
                a, c = half * A, half * C
                opacity = records[g, 3]
                f0, f1, f2 = records[g, c0], records[g, c1], records[g, c2]
                m0, m1x, m1y, mxx, mxy, myy = zero, zero, zero, zero, zero, zero
                v0, v1, v2 = zero, zero, zero
                abs_x, abs_y = zero, zero
                offset = u8(rows[k] >> 8) * u8(VECTOR)
                for j in range(u8(rows[k] & 255) * u8(VECTOR)):
                    i = offset + j
                    dx = mx - S[u8(5 * PLANE) + i]
                    dy = my - S[u8(6 * PLANE) + i]
                    sigma = (a * dx + b * dy) * dx + c * dy * dy
                    raw = opacity * exp_minus(min(sigma, f4(6)))
                    alpha = min(raw, f4(ALPHA_MAX))
                    alpha = alpha if alpha >= f4(ALPHA_MIN) else zero
                    before = S[i]
                    w = alpha * before
                    after = before - w
                    done = after <= f4(TRANSMITTANCE_MIN)
                    w = zero if done else w
                    alpha = zero if done else alpha
                    S[i] = -abs(before) if done else after
                    g0, g1, g2 = S[u8(2 * PLANE) + i], S[u8(3 * PLANE) + i], S[u8(4 * PLANE) + i]
                    here = g0 * f0 + g1 * f1 + g2 * f2
                    behind = S[u8(PLANE) + i] - w * here
                    S[u8(PLANE) + i] = behind
                    g_sigma = behind * (alpha / (one - alpha)) - w * here
                    g_sigma = g_sigma if raw <= f4(ALPHA_MAX) else zero
                    sx, sy = g_sigma * dx, g_sigma * dy
                    m0 += g_sigma
                    m1x += sx
                    m1y += sy
                    mxx += sx * dx
                    mxy += sx * dy
                    myy += sy * dy
                    v0 += w * g0
                    v1 += w * g1
                    v2 += w * g2
                    if absolute:
                        abs_x += abs(A * sx + b * sy)
                        abs_y += abs(b * sx + C * sy)
                row = slots[k]
                if first == 0:
                    for j in range(columns):
                        pair_gradients[row, j] = zero
                pair_gradients[row, 0] += A * m1x + b * m1y
                pair_gradients[row, 1] += b * m1x + C * m1y
                pair_gradients[row, 2] += half * mxx
                pair_gradients[row, 3] += mxy
                pair_gradients[row, 4] += half * myy
                pair_gradients[row, 5] -= m0 / opacity
                pair_gradients[row, 6 + first] = v0
                if channels > 1:
                    pair_gradients[row, 7 + first] = v1
                if channels > 2:
                    pair_gradients[row, 8 + first] = v2
                if absolute:
                    pair_gradients[row, columns - 2] = abs_x
                    pair_gradients[row, columns - 1] = abs_y
                if (k - begin) % CHECK_EVERY == CHECK_EVERY - 1:
                    most = -one
                    for i in range(PLANE):
                        most = max(most, S[i])
                    if most < zero:
                        unseen = k + 1
                        break
            if first == 0:
                for k in range(unseen, end):
                    for j in range(columns):
                        pair_gradients[slots[k], j] = zero

    return kernel(blend_tiles_backward)


blend_tiles_backward = _make_backward(False)
blend_tiles_backward_absolute = _make_backward(True)


@kernel
def sum_pairs(start, stop, pair_start, pair_gradients, column, features, grad_means2d, absolute,
              grad_records):  # fmt: skip
    """Add up the pairs of Gaussians start..stop; what is not drawn gets zero.

    Args:
        start: First Gaussian.
        stop: One past the last.
        pair_start: [N + 1] int32.
        pair_gradients: [pairs, 6 + X (+ 2)].
        column: Record column of the image's channel 0.
        features: X.
        grad_means2d: [N, 2] out.
        absolute: [N, 2] out, or empty.
        grad_records: [N, R] out.
    """
    for i in range(start, stop):
        grad_means2d[i, 0] = f4(0)
        grad_means2d[i, 1] = f4(0)
        for j in range(grad_records.shape[1]):
            grad_records[i, j] = f4(0)
        for s in range(pair_start[i], pair_start[i + 1]):
            grad_means2d[i, 0] += pair_gradients[s, 0]
            grad_means2d[i, 1] += pair_gradients[s, 1]
            for j in range(4):
                grad_records[i, j] += pair_gradients[s, 2 + j]
            for j in range(features):
                grad_records[i, column + j] += pair_gradients[s, GEOMETRY + j]
        if absolute.shape[0] > 0:
            absolute[i, 0] = f4(0)
            absolute[i, 1] = f4(0)
            for s in range(pair_start[i], pair_start[i + 1]):
                absolute[i, 0] += pair_gradients[s, GEOMETRY + features]
                absolute[i, 1] += pair_gradients[s, GEOMETRY + features + 1]
