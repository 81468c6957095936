"""Draw a triangle mesh into index images: which triangle, and where in it, each pixel shows.

It knows no colours, lights or textures; callers look those up with the two images it returns.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.assets import cache_dir

os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir() / "numba"))

from numba import njit  # after naming the cache folder, which numba reads as it loads


def rasterize_mesh(
    points: NDArray[Any],
    faces: NDArray[Any],
    size: tuple[int, int],
    *,
    backfaces: bool = True,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rasterise triangles with a z-buffer; a pixel belongs to the triangle over its centre.

    Args:
        points: [V, 3] x and y in pixels (the first pixel's centre is 0.5, 0.5) and depth along
            the camera's z, any unit, positive in front of the camera.
        faces: [F, 3] vertex indices, counter-clockwise as seen from outside.
        size: (height, width) of the images.
        backfaces: Also draw triangles seen from behind.

    Returns:
        triangle: [H, W] int32 index of the nearest triangle, -1 where there is none.
        barycentric: [H, W, 3] float32 perspective-correct weights of its corners, sum 1; 0 where
            there is no triangle. Triangles with a corner at depth <= 0 are left out.
    """
    height, width = size
    triangle = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    _fill(
        np.ascontiguousarray(points, np.float64),
        np.ascontiguousarray(faces, np.int64),
        backfaces,
        np.zeros((height, width)),
        triangle,
        barycentric,
    )
    return triangle, barycentric


def interpolate(
    values: NDArray[Any],
    faces: NDArray[Any],
    triangle: NDArray[np.int32],
    barycentric: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Spread vertex values over the pixels that show the mesh.

    Args:
        values: [V, C] one row per vertex.
        faces: [F, 3] as drawn.
        triangle: [H, W] from `rasterize_mesh`.
        barycentric: [H, W, 3] from `rasterize_mesh`.

    Returns:
        [H, W, C], 0 where there is no triangle.
    """
    image = np.zeros((*triangle.shape, values.shape[1]), np.float32)
    seen = triangle >= 0
    corners = values[faces[triangle[seen]]]  # [P, 3, C]
    image[seen] = np.einsum("pk,pkc->pc", barycentric[seen], corners)
    return image


@njit(cache=True)
def _fill(points, faces, backfaces, nearness, triangle, barycentric):  # type: ignore[no-untyped-def]
    """Scan-convert every triangle; `nearness` is the z-buffer, 1 / depth, 0 = empty."""
    height, width = triangle.shape
    for f in range(len(faces)):
        x0, y0, z0 = points[faces[f, 0]]
        x1, y1, z1 = points[faces[f, 1]]
        x2, y2, z2 = points[faces[f, 2]]
        if not (z0 > 0 and z1 > 0 and z2 > 0):
            continue
        # y points down, so a triangle facing the camera has a negative doubled area.
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if not abs(area) > 1e-12 or (area > 0 and not backfaces):
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                w0 = 1.0 - w1 - w2
                if w0 < -1e-9 or w1 < -1e-9 or w2 < -1e-9:
                    continue
                near = w0 / z0 + w1 / z1 + w2 / z2
                if near > nearness[row, column]:
                    nearness[row, column] = near
                    triangle[row, column] = f
                    barycentric[row, column, 0] = w0 / z0 / near
                    barycentric[row, column, 1] = w1 / z1 / near
                    barycentric[row, column, 2] = w2 / z2 / near
