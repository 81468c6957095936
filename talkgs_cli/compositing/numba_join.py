"""The loops over pixels of a composite, in one pass each; everything else is decided before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.compositing.feather import ALPHA_GAIN
from talkgs_cli.rendering.numba_jit import inline, kernel

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]
Colour = tuple[np.float32, np.float32, np.float32]

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
        maps: [6, m, n] the network's maps: weight of the render, shift (x, y) in frame pixels,
            colour to add on the scale of 255.
        origin: (top, left) of the rectangle in the frame.
        start: (y, x) in the maps of the rectangle's first pixel.
        step: Map pixels per frame pixel.
        pasted: [h, w, 3] the result.
    """
    height, width = pasted.shape[0], pasted.shape[1]
    line = np.empty((6, maps.shape[2]), np.float32)
    taken = np.empty((6, width), np.float32)
    beside = np.empty(12, np.float32)
    left, right = np.empty(width, np.int32), np.empty(width, np.float32)
    for x in range(width):
        place = min(max(start[1] + x * step, 0.0), maps.shape[2] - 1.0)
        left[x] = min(int(place), maps.shape[2] - 2)
        right[x] = place - left[x]
    for y in range(height):
        _sample(maps, start[0] + y * step, left, right, line, taken)
        for x in range(width):
            # The maps are coarser than the render: where it has nothing, nothing may be taken.
            share = min(taken[0, x], np.float32(ALPHA_GAIN) * alpha[y, x])
            red, green, blue = taken[3, x], taken[4, x], taken[5, x]
            if share < FULL:
                over, down = taken[1, x], taken[2, x]
                if abs(over) > STILL or abs(down) > STILL:
                    under = _fetch(frame, origin[0] + y + down, origin[1] + x + over, beside)
                else:
                    under = _pixel(frame, origin[0] + y, origin[1] + x)
                rest = 1 - share
                red += rest * under[0]
                green += rest * under[1]
                blue += rest * under[2]
            if share > 0:
                scale = 255 / max(alpha[y, x], np.float32(1e-3))
                red += share * _bounded(rgb[y, x, 0] * scale)
                green += share * _bounded(rgb[y, x, 1] * scale)
                blue += share * _bounded(rgb[y, x, 2] * scale)
            pasted[y, x, 0] = np.uint8(_bounded(red + np.float32(0.5)))
            pasted[y, x, 1] = np.uint8(_bounded(green + np.float32(0.5)))
            pasted[y, x, 2] = np.uint8(_bounded(blue + np.float32(0.5)))


@inline
def _bounded(colour: np.float32) -> np.float32:
    return min(max(colour, np.float32(0)), np.float32(255))


@inline
def _sample(maps: Floats, y: float, left: Ints, right: Floats, line: Floats, taken: Floats) -> None:
    """A row of pixels out of the maps, bilinear, the edge going on.

    Args:
        maps: [6, m, n].
        y: Its place in them.
        left: [w] column of the maps before each pixel.
        right: [w] share of the next column.
        line: [6, n] for use here.
        taken: [6, w] the result.
    """
    y = min(max(y, 0.0), maps.shape[1] - 1.0)
    top = min(int(y), maps.shape[1] - 2)
    below = np.float32(y - top)
    for c in range(6):
        for j in range(maps.shape[2]):
            line[c, j] = maps[c, top, j] * (1 - below) + maps[c, top + 1, j] * below
        for x in range(len(left)):
            j = left[x]
            taken[c, x] = line[c, j] * (1 - right[x]) + line[c, j + 1] * right[x]


@inline
def _pixel(frame: Bytes, y: int, x: int) -> Colour:
    return np.float32(frame[y, x, 0]), np.float32(frame[y, x, 1]), np.float32(frame[y, x, 2])


@inline
def _cubic(t: float) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Catmull-Rom weights of the four neighbours; t is the place between the middle two."""
    return (
        np.float32(((-0.5 * t + 1.0) * t - 0.5) * t),
        np.float32((1.5 * t - 2.5) * t * t + 1.0),
        np.float32(((-1.5 * t + 2.0) * t + 0.5) * t),
        np.float32((0.5 * t - 0.5) * t * t),
    )


@inline
def _fetch(frame: Bytes, y: float, x: float, beside: Floats) -> Colour:
    """The frame's colour between its pixels: cubic, as a linear mean would blur skin and hair.

    Args:
        frame: [H, W, 3].
        y: Place in it.
        x: Place in it.
        beside: [12] for use here: four neighbours in a row, each the sum of its column.
    """
    height, width = frame.shape[0], frame.shape[1]
    top, left = math.floor(y), math.floor(x)
    rows, columns = _cubic(y - top), _cubic(x - left)
    beside[:] = 0
    for i in range(4):
        row = min(max(top - 1 + i, 0), height - 1)
        if 1 <= left < width - 2:
            for k in range(12):
                beside[k] += rows[i] * frame[row, left - 1 + k // 3, k % 3]
        else:
            for k in range(12):
                beside[k] += rows[i] * frame[row, min(max(left - 1 + k // 3, 0), width - 1), k % 3]
    red = green = blue = np.float32(0)
    for j in range(4):
        red += columns[j] * beside[3 * j]
        green += columns[j] * beside[3 * j + 1]
        blue += columns[j] * beside[3 * j + 2]
    return red, green, blue
