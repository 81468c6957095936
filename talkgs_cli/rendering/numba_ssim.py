"""Numba kernel of SSIM with its gradient: one pass down the image, with a few rows in the cache.

Wang et al. 2004: Gaussian window of 11 taps, sigma 1.5, zero padding, K1 = .01, K2 = .03, range 1.
Four blurred maps are enough (a, b, aa + bb, ab), and three of derivatives on the way back.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import numpy as np
from numba import float32 as f4
from numba import uint64 as u8

from talkgs_cli.rendering.numba_jit import inline, kernel

TAPS = 11
HALF = TAPS // 2
STABILISER_1, STABILISER_2 = 0.01**2, 0.03**2
PITCH = 2064
"""Distance of rows in the scratch array: a constant, or LLVM can't see that rows don't overlap."""

MAX_WIDTH = PITCH - 2 * HALF

BAND = 128
"""Rows of a channel that one piece of work does; fixed, so that sums do not depend on threads."""

_offsets = np.arange(TAPS) - HALF
_window = np.exp(-(_offsets**2) / (2 * 1.5**2))
_window /= _window.sum()
W0, W1, W2, W3, W4, W5 = (float(w) for w in _window[: HALF + 1])


@inline
def blur_11(S, at, step):
    """The window over 11 numbers of S, `step` apart, the middle one at `at`."""
    return (
        f4(W5) * S[at]
        + f4(W4) * (S[at - step] + S[at + step])
        + f4(W3) * (S[at - u8(2) * step] + S[at + u8(2) * step])
        + f4(W2) * (S[at - u8(3) * step] + S[at + u8(3) * step])
        + f4(W1) * (S[at - u8(4) * step] + S[at + u8(4) * step])
        + f4(W0) * (S[at - u8(5) * step] + S[at + u8(5) * step])
    )


@kernel
def ssim_bands(start, stop, images, targets, gradients, totals, c1, c2):
    """SSIM summed over the rows of pieces start..stop, and d (sum over the image) / d image.

    Args:
        start: First piece; piece p is band p % bands of channel p // bands.
        stop: One past the last.
        images: [C, H, W].
        targets: [C, H, W].
        gradients: [C, H, W] out.
        totals: [pieces] float64 out.
        c1: First stabiliser.
        c2: Second stabiliser.
    """
    height, width = images.shape[1], images.shape[2]
    bands = (height + BAND - 1) // BAND
    padded = u8(width + 2 * HALF)
    one = u8(1)
    # rows of `pitch` numbers with zeros at both ends: 4 blurred down; 3 derivatives; then
    # 11 times 3 derivatives blurred across, as a ring
    S = np.zeros((7 + 3 * TAPS) * PITCH, np.float32)
    DERIVATIVES, RING = u8(4 * PITCH), u8(7 * PITCH)
    for piece in range(start, stop):
        channel, band = piece // bands, piece % bands
        image, target, gradient = images[channel], targets[channel], gradients[channel]
        y0, y1 = band * BAND, min(height, (band + 1) * BAND)
        total = 0.0
        S[7 * PITCH :] = f4(0)
        for y in range(y0 - HALF, y1 + HALF):
            ring = RING + u8((y + TAPS) % TAPS) * u8(3 * PITCH)
            if 0 <= y < height:
                for i in range(padded):
                    S[i] = f4(0)
                    S[i + u8(PITCH)] = f4(0)
                    S[i + u8(2 * PITCH)] = f4(0)
                    S[i + u8(3 * PITCH)] = f4(0)
                for k in range(max(-HALF, -y), min(HALF, height - 1 - y) + 1):
                    tap = f4(_window_tap(k))
                    for x in range(u8(width)):
                        a, b = image[y + k, x], target[y + k, x]
                        i = x + u8(HALF)
                        ta, tb = tap * a, tap * b
                        S[i] += ta
                        S[i + u8(PITCH)] += tb
                        S[i + u8(2 * PITCH)] += ta * a + tb * b
                        S[i + u8(3 * PITCH)] += ta * b
                row_sum = f4(0)
                for x in range(u8(width)):
                    i = x + u8(HALF)
                    a, b = blur_11(S, i, one), blur_11(S, i + u8(PITCH), one)
                    squares = blur_11(S, i + u8(2 * PITCH), one)
                    product = blur_11(S, i + u8(3 * PITCH), one)
                    n1 = f4(2) * a * b + c1
                    n2 = f4(2) * (product - a * b) + c2
                    d1 = a * a + b * b + c1
                    d2 = squares - a * a - b * b + c2
                    inverse = f4(1) / (d1 * d2)
                    value = n1 * n2 * inverse
                    row_sum += value
                    g_n1, g_n2 = n2 * inverse, n1 * inverse
                    g_d1, g_d2 = -value * d2 * inverse, -value * d1 * inverse
                    j = DERIVATIVES + i
                    S[j] = f4(2) * (b * (g_n1 - g_n2) + a * (g_d1 - g_d2))
                    S[j + u8(PITCH)] = f4(2) * g_d2
                    S[j + u8(2 * PITCH)] = f4(2) * g_n2
                if y0 <= y < y1:
                    total += row_sum
                for x in range(u8(width)):
                    i = DERIVATIVES + x + u8(HALF)
                    j = ring + x + u8(HALF)
                    S[j] = blur_11(S, i, one)
                    S[j + u8(PITCH)] = blur_11(S, i + u8(PITCH), one)
                    S[j + u8(2 * PITCH)] = blur_11(S, i + u8(2 * PITCH), one)
            else:
                for i in range(padded):
                    S[ring + i] = f4(0)
                    S[ring + u8(PITCH) + i] = f4(0)
                    S[ring + u8(2 * PITCH) + i] = f4(0)
            row = y - HALF
            if row >= y0:
                for i in range(padded):
                    S[i] = f4(0)
                    S[i + u8(PITCH)] = f4(0)
                    S[i + u8(2 * PITCH)] = f4(0)
                for k in range(-HALF, HALF + 1):
                    tap = f4(_window_tap(k))
                    source = RING + u8((row + k + TAPS) % TAPS) * u8(3 * PITCH)
                    for i in range(padded):
                        S[i] += tap * S[source + i]
                        S[i + u8(PITCH)] += tap * S[source + i + u8(PITCH)]
                        S[i + u8(2 * PITCH)] += tap * S[source + i + u8(2 * PITCH)]
                for x in range(u8(width)):
                    i = x + u8(HALF)
                    gradient[row, x] = (
                        S[i]
                        + image[row, x] * S[i + u8(PITCH)]
                        + target[row, x] * S[i + u8(2 * PITCH)]
                    )
        totals[piece] = total


@inline
def _window_tap(k):
    distance = abs(k)
    if distance == 0:
        tap = W5
    elif distance == 1:
        tap = W4
    elif distance == 2:
        tap = W3
    elif distance == 3:
        tap = W2
    elif distance == 4:
        tap = W1
    else:
        tap = W0
    return tap
