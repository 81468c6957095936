"""The loops over pixels of a composite, in one pass each; everything else is decided before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.compositing.feather import ALPHA_GAIN
from talkgs_cli.rendering.numba_jit import inline, kernel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

FULL = 0.9995  # weight of the render from which the frame underneath is not looked at
STILL = 1e-3  # pixels: shorter shifts are none


@kernel
def blend(rgb: Floats, alpha: Floats, weight: Floats, pasted: Bytes) -> None:
    """Lay a premultiplied render over a piece of a frame, in place.

    Args:
        rgb: [h, w, 3] premultiplied.
        alpha: [h, w].
        weight: [h, w] share of the render.
        pasted: [h, w, 3] the frame, changed.
    """
    for y in range(pasted.shape[0]):
        for x in range(pasted.shape[1]):
            share = weight[y, x]
            if share > 0:
                scale = 1 / max(alpha[y, x], np.float32(1e-3))
                for c in range(3):
                    colour = min(max(rgb[y, x, c] * scale, np.float32(0)), np.float32(1)) * 255
                    mixed = colour * share + pasted[y, x, c] * (1 - share)
                    pasted[y, x, c] = np.uint8(min(max(mixed + 0.5, 0.0), 255.0))


@kernel
def join(
    rgb: Floats,
    alpha: Floats,
    frame: Bytes,
    maps: Floats,
    origin: tuple[int, int],
    start: tuple[float, float],
    step: float,
    pasted: Bytes,
) -> None:
    """Put render and frame together as the network says, for one rectangle of the frame.

    Args:
        rgb: [h, w, 3] premultiplied render of the rectangle.
        alpha: [h, w].
        frame: [H, W, 3] the whole frame underneath.
        maps: [m, n, 6] the network's maps: weight of the render, shift (x, y) in frame pixels,
            colour to add on the scale of 255.
        origin: (top, left) of the rectangle in the frame.
        start: (y, x) in the maps of the rectangle's first pixel.
        step: Map pixels per frame pixel.
        pasted: [h, w, 3] the result.
    """
    under = np.empty(3, np.float32)
    taken = np.empty(6, np.float32)
    for y in range(pasted.shape[0]):
        for x in range(pasted.shape[1]):
            _sample(maps, start[0] + y * step, start[1] + x * step, taken)
            # The maps are coarser than the render: where it has nothing, nothing may be taken.
            share = min(taken[0], np.float32(ALPHA_GAIN) * alpha[y, x])
            top, left = origin[0] + y, origin[1] + x
            if share < FULL:
                if abs(taken[1]) > STILL or abs(taken[2]) > STILL:
                    _fetch(frame, top + taken[2], left + taken[1], under)
                else:
                    for c in range(3):
                        under[c] = frame[top, left, c]
            scale = 255 / max(alpha[y, x], np.float32(1e-3))
            for c in range(3):
                mixed = taken[3 + c]
                if share > 0:
                    colour = rgb[y, x, c] * scale
                    mixed += share * min(max(colour, np.float32(0)), np.float32(255))
                if share < FULL:
                    mixed += (1 - share) * under[c]
                pasted[y, x, c] = np.uint8(min(max(mixed + 0.5, 0.0), 255.0))


@inline
def _sample(maps: Floats, y: float, x: float, taken: Floats) -> None:
    """Bilinear, the edge going on."""
    height, width = maps.shape[0], maps.shape[1]
    y = min(max(y, 0.0), height - 1.0)
    x = min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    below, right = np.float32(y - top), np.float32(x - left)
    for c in range(6):
        upper = maps[top, left, c] * (1 - right) + maps[top, left + 1, c] * right
        lower = maps[top + 1, left, c] * (1 - right) + maps[top + 1, left + 1, c] * right
        taken[c] = upper * (1 - below) + lower * below


@inline
def _cubic(t: float, weights: Floats) -> None:
    """Catmull-Rom weights of the four neighbours; t is the place between the middle two."""
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t


@kernel
def _fetch(frame: Bytes, y: float, x: float, under: Floats) -> None:
    """The frame's colour between its pixels: cubic, as a linear mean would blur skin and hair."""
    height, width = frame.shape[0], frame.shape[1]
    top, left = math.floor(y), math.floor(x)
    rows, columns = np.empty(4, np.float32), np.empty(4, np.float32)
    _cubic(y - top, rows)
    _cubic(x - left, columns)
    under[:] = 0
    for i in range(4):
        row = min(max(top - 1 + i, 0), height - 1)
        for j in range(4):
            column = min(max(left - 1 + j, 0), width - 1)
            share = rows[i] * columns[j]
            for c in range(3):
                under[c] += share * frame[row, column, c]
