"""Numba kernel of SSIM with its gradient, one channel per call; windows, not images, live in cache.

Wang et al. 2004: Gaussian window of 11 taps, sigma 1.5, zero padding, K1 = .01, K2 = .03, range 1.
"""

# mypy: disable-error-code="no-untyped-def,operator,call-overload,assignment"
# Numba, not Python, gives the kernels their types.

from __future__ import annotations

import numpy as np
from numba import float32 as f4

from talkgs_cli.rendering.numba_jit import kernel

TAPS = 11
HALF = TAPS // 2
STABILISER_1, STABILISER_2 = 0.01**2, 0.03**2

_offsets = np.arange(TAPS) - HALF
WINDOW = np.exp(-(_offsets**2) / (2 * 1.5**2))
WINDOW = (WINDOW / WINDOW.sum()).astype(np.float32)


@kernel
def blur(image, out, rows, window):
    """Separable zero-padded blur of image [H, W] into out; rows [H, W] is scratch."""
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            rows[y, x] = f4(0)
        for k in range(TAPS):
            source = y + k - HALF
            if 0 <= source < height:
                tap = window[k]
                for x in range(width):
                    rows[y, x] += tap * image[source, x]
    for y in range(height):
        for x in range(width):
            out[y, x] = f4(0)
        for k in range(TAPS):
            shift = k - HALF
            tap = window[k]
            begin = max(0, -shift)
            for x in range(max(0, min(width, width - shift) - begin)):
                out[y, begin + x] += tap * rows[y, begin + shift + x]


@kernel
def ssim_channels(start, stop, images, targets, gradients, window, totals, c1, c2):
    """SSIM summed over the pixels of channels start..stop, and d sum / d image.

    Args:
        start: First channel.
        stop: One past the last.
        images: [C, H, W].
        targets: [C, H, W].
        gradients: [C, H, W] out.
        window: [11].
        totals: [C] float64 out.
        c1: First stabiliser.
        c2: Second stabiliser.
    """
    height, width = images.shape[1:]
    shape = (height, width)
    mean_a, mean_b = np.empty(shape, np.float32), np.empty(shape, np.float32)
    aa, bb, ab = (
        np.empty(shape, np.float32),
        np.empty(shape, np.float32),
        np.empty(shape, np.float32),
    )
    rows, product = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for channel in range(start, stop):
        image, target, gradient = images[channel], targets[channel], gradients[channel]
        blur(image, mean_a, rows, window)
        blur(target, mean_b, rows, window)
        for y in range(height):
            for x in range(width):
                product[y, x] = image[y, x] * image[y, x]
        blur(product, aa, rows, window)
        for y in range(height):
            for x in range(width):
                product[y, x] = target[y, x] * target[y, x]
        blur(product, bb, rows, window)
        for y in range(height):
            for x in range(width):
                product[y, x] = image[y, x] * target[y, x]
        blur(product, ab, rows, window)
        total = 0.0
        for y in range(height):
            row_sum = f4(0)
            for x in range(width):
                a, b = mean_a[y, x], mean_b[y, x]
                n1 = f4(2) * a * b + c1
                n2 = f4(2) * (ab[y, x] - a * b) + c2
                d1 = a * a + b * b + c1
                d2 = aa[y, x] - a * a + bb[y, x] - b * b + c2
                inverse = f4(1) / (d1 * d2)
                value = n1 * n2 * inverse
                row_sum += value
                g_n1, g_n2, g_d1, g_d2 = n2 * inverse, n1 * inverse, -value / d1, -value / d2
                mean_a[y, x] = f4(2) * (b * (g_n1 - g_n2) + a * (g_d1 - g_d2))
                aa[y, x] = g_d2
                ab[y, x] = f4(2) * g_n2
            total += row_sum
        totals[channel] = total
        blur(mean_a, mean_b, rows, window)
        blur(aa, bb, rows, window)
        blur(ab, product, rows, window)
        for y in range(height):
            for x in range(width):
                gradient[y, x] = (
                    mean_b[y, x] + f4(2) * image[y, x] * bb[y, x] + target[y, x] * product[y, x]
                )
