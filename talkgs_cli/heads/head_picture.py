"""A plain coloured picture of a head, good enough for a landmark detector; no photo-realism.

The rasteriser is passed in: heads and rendering are siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.types import REGIONS, HeadModel

COLOURS = {
    "skin": (214, 176, 150),
    "lips": (178, 96, 90),
    "mouth_interior": (110, 45, 45),
    "upper_teeth": (250, 250, 245),
    "lower_teeth": (235, 235, 230),
    "tongue": (200, 90, 90),
    "eyes": (245, 245, 245),
    "ears": (214, 176, 150),
    "scalp": (205, 168, 143),
    "neck": (208, 170, 144),
}
LIGHT = np.array([0.25, 0.5, 0.83])  # towards the light, head frame
AMBIENT = 0.35
BACKGROUND = 130.0
DISTANCE_M = 1.2
IRIS_M, PUPIL_M = 0.0059, 0.0026
IRIS_COLOUR, PUPIL_COLOUR = (90, 60, 40), (15, 15, 15)


class Rasterizer(Protocol):
    """As `rendering.mesh.rasterize_mesh`."""

    def __call__(
        self, points: NDArray[Any], faces: NDArray[Any], size: tuple[int, int], *, backfaces: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Draw triangles into (triangle, barycentric)."""


@dataclass(frozen=True)
class HeadPicture:
    """A picture and what each pixel shows.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        triangle: [H, W] face index, -1 for the background.
        barycentric: [H, W, 3].
    """

    image: NDArray[np.uint8]
    triangle: NDArray[np.int32]
    barycentric: NDArray[np.float32]


def draw_head(
    head: HeadModel,
    points: NDArray[np.float64],
    rasterize: Rasterizer,
    *,
    yaw_rad: float = 0.0,
    pitch_rad: float = 0.0,
    size: int = 512,
    span_m: float = 0.30,
) -> HeadPicture:
    """Draw a posed head from the front.

    Args:
        head: Gives faces and regions.
        points: [V, 3] posed vertices, metres, head frame.
        rasterize: The mesh rasteriser.
        yaw_rad: Turn of the head to its left.
        pitch_rad: Nod of the head, downwards.
        size: Side of the picture, pixels.
        span_m: What the side covers at the head's origin, metres.
    """
    cos_y, sin_y, cos_p, sin_p = (
        np.cos(yaw_rad),
        np.sin(yaw_rad),
        np.cos(pitch_rad),
        np.sin(pitch_rad),
    )
    yaw = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    pitch = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    turned = points @ (pitch @ yaw).T  # [V, 3], still y up and z to the viewer
    depth = DISTANCE_M - turned[:, 2]
    focal_px = DISTANCE_M * size / span_m
    pixels = np.stack(
        [
            size / 2 + focal_px * turned[:, 0] / depth,
            size / 2 - focal_px * turned[:, 1] / depth,
            depth,
        ],
        axis=1,
    )
    faces = head.faces.numpy()
    triangle, barycentric = rasterize(pixels, faces, (size, size), backfaces=False)
    normals = _vertex_normals(turned, faces)
    seen = triangle >= 0
    shown, inner = faces[triangle[seen]], barycentric[seen]  # [P, 3] both
    normal = np.einsum("pk,pkc->pc", inner, normals[shown])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    shade = AMBIENT + (1 - AMBIENT) * np.clip(normal @ LIGHT, 0, 1)
    colour = _colours(head, points, triangle[seen], np.einsum("pk,pkc->pc", inner, points[shown]))
    image = np.full((size, size, 3), BACKGROUND)
    image[seen] = colour * shade[:, None]
    return HeadPicture(image.clip(0, 255).astype(np.uint8), triangle, barycentric)


def _vertex_normals(points: NDArray[np.float64], faces: NDArray[Any]) -> NDArray[np.float64]:
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


def _colours(
    head: HeadModel, points: NDArray[np.float64], shown: NDArray[Any], place: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Region colours, with iris and pupil painted on the eyeballs: [P, 3]."""
    palette = np.array([COLOURS[name] for name in REGIONS], dtype=np.float64)
    regions = head.face_regions.numpy()
    colour = palette[regions[shown]]
    eyes = head.faces.numpy()[regions == REGIONS.index("eyes")]
    on_eye = regions[shown] == REGIONS.index("eyes")
    for side in (-1.0, 1.0):
        ball = eyes[points[eyes].mean(axis=1)[:, 0] * side > 0]
        centre = points[np.unique(ball)].mean(axis=0)
        radius = np.hypot(place[:, 0] - centre[0], place[:, 1] - centre[1])
        colour[on_eye & (radius < IRIS_M)] = IRIS_COLOUR
        colour[on_eye & (radius < PUPIL_M)] = PUPIL_COLOUR
    return colour
