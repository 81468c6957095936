"""Remake `anatomy.json`: where the tracker's 478 points lie on the open head, and its regions.

The open-mouthed head is drawn from several sides, a landmark detector looks at the pictures, and
the points are averaged on the surface. Run by hand when the mesh or the detector changes (see
docs/heads.md); nothing calls it at run time. Detector and rasteriser are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from talkgs_cli.assets import fetch_file
from talkgs_cli.heads.head_picture import HeadPicture, Rasterizer, draw_head
from talkgs_cli.heads.makehuman import MakeHumanArchive
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.heads.open_head_build import Anatomy, build_arrays
from talkgs_cli.types import REGIONS, HeadModel

Detector = Callable[[NDArray[np.uint8]], NDArray[Any] | None]

FACE_POINTS = 468  # the rest are the irises
OPENING_RAD = (0.12, 0.18, 0.24)
TURNS_RAD = ((0.0, 0.0), (0.2, 0.0), (-0.2, 0.0), (0.0, 0.14), (0.0, -0.14), (0.38, 0), (-0.38, 0))
UPPER_LIP_UP = 0.25  # parts the lips from the teeth
CONTACT_PIXEL_M = 5e-5
LIP_DEPTH_M = 0.003  # the lips meet no further behind the rim than this
IRIS_RADIUS_M = 0.0059
BODY_REGIONS = ("skin", "lips", "mouth_interior", "ears", "scalp", "neck")


@dataclass(frozen=True)
class View:
    """A picture of the head and the landmarks found in it."""

    picture: HeadPicture
    landmarks: NDArray[np.float64]  # [478, 3]


def bare_head() -> OpenHead:
    """The open head without landmarks and with coarse regions, as `derive_anatomy` wants it."""
    with MakeHumanArchive(fetch_file("makehuman")) as archive:
        arrays, names = build_arrays(archive, None)
    tensors: dict[str, Any] = {
        name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    return OpenHead(names, **tensors)


def derive_anatomy(
    bare: OpenHead,
    detect: Detector,
    rasterize: Rasterizer,
    lips_outer: Sequence[int],
    lips_inner: Sequence[int],
) -> Anatomy:
    """Find the landmarks on the surface and name the regions.

    Args:
        bare: From `bare_head`.
        detect: RGB uint8 picture to [478, 3] pixels, or None.
        rasterize: As `rendering.mesh.rasterize_mesh`.
        lips_outer: Landmarks of the outer lip line, a closed polygon.
        lips_inner: Landmarks of the inner lip line, a closed polygon.
    """
    head = bare
    for _ in range(2):  # the second round sees lips and brows in colour
        views = list(look(head, detect, rasterize))
        points = _symmetric(surface_points(head, views))  # [468, 3]
        corners, weights = on_surface(head, views, points)
        move_to_contact(head, corners, weights, lips_inner, rasterize)
        regions = _regions(head, corners, weights, lips_outer, lips_inner, rasterize)
        head = _with_table(bare, corners, weights, regions)
    quad_regions = regions.reshape(-1, 2)[:, 0]
    body = bare.body_vertices.numpy()
    return Anatomy(quad_regions, np.arange(len(corners)), body[corners], weights)


def _with_table(
    bare: OpenHead, corners: NDArray[Any], weights: NDArray[Any], regions: NDArray[Any]
) -> OpenHead:
    return replace(
        bare,
        face_regions=torch.from_numpy(regions),
        landmark_index=torch.arange(len(corners)),
        landmark_vertices=torch.from_numpy(corners),
        landmark_weights=torch.from_numpy(weights).float(),
    )


def opened_pose(
    head: HeadModel, opening_rad: float, upper_lip: float = UPPER_LIP_UP
) -> NDArray[np.float64]:
    """Neutral but for the jaw, and for the upper lip where the head can raise it: [V, 3]."""
    expression = torch.zeros(1, head.expression_count)
    for name in {"mouthUpperUpLeft", "mouthUpperUpRight"} & set(head.expression_names):
        expression[0, head.expression_names.index(name)] = upper_lip
    jaw = torch.tensor([[opening_rad, 0.0, 0.0]])
    return head.vertices(torch.zeros(head.shape_count), expression, jaw)[0].double().numpy()


def reference_pose(head: HeadModel) -> NDArray[np.float64]:
    """The open-mouthed pose in which points of all views are averaged: [V, 3]."""
    return opened_pose(head, OPENING_RAD[-1])


def look(head: HeadModel, detect: Detector, rasterize: Rasterizer) -> Iterator[View]:
    """The views of the open-mouthed head in which the detector finds a face."""
    for opening in OPENING_RAD:
        points = opened_pose(head, opening)
        for yaw, pitch in TURNS_RAD:
            picture = draw_head(head, points, rasterize, yaw_rad=yaw, pitch_rad=pitch)
            landmarks = detect(picture.image)
            if landmarks is not None:
                yield View(picture, landmarks.astype(np.float64))


def surface_points(head: HeadModel, views: Sequence[View]) -> NDArray[np.float64]:
    """Median of where the views' landmarks hit the skin, in the reference pose: [468, 3].

    A landmark that no view shows on skin is NaN.
    """
    faces = head.faces.numpy()
    reference = reference_pose(head)
    skin = _skin(head)
    hits = np.full((len(views), FACE_POINTS, 3), np.nan)
    for view, place in zip(views, hits, strict=True):
        for mark, (x, y) in enumerate(view.landmarks[:FACE_POINTS, :2]):
            pixel = _nearest_skin_pixel(view.picture.triangle, skin, x, y)
            if pixel is not None:
                face = faces[view.picture.triangle[pixel]]
                place[mark] = view.picture.barycentric[pixel] @ reference[face]
    return np.asarray(np.nanmedian(hits, axis=0))


def on_surface(
    head: HeadModel, views: Sequence[View], points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The skin that was seen nearest to [468, 3] points, then the irises: corners and weights."""
    faces = head.faces.numpy()
    seen = np.unique(np.concatenate([np.unique(v.picture.triangle) for v in views]))
    candidates = seen[(seen >= 0)]
    candidates = candidates[_skin(head)[candidates]]
    chosen, weights = closest_points(points, reference_pose(head)[faces[candidates]])
    corners = faces[candidates[chosen]]
    iris_corners, iris_weights = irises(head)
    return np.concatenate([corners, iris_corners]), np.concatenate([weights, iris_weights])


def _skin(head: HeadModel) -> NDArray[np.bool_]:
    inside = ("upper_teeth", "lower_teeth", "tongue", "eyes", "mouth_interior")
    return ~np.isin(head.face_regions.numpy(), [REGIONS.index(name) for name in inside])


def move_to_contact(
    head: HeadModel,
    corners: NDArray[np.int64],
    weights: NDArray[np.float64],
    lips_inner: Sequence[int],
    rasterize: Rasterizer,
) -> None:
    """Put the inner lip points (but the mouth's corners) where the closed lips meet, in place.

    A detector looks at open mouths and sees the rim, some millimetres outside the line where the
    lips touch; with such points every closed mouth would be fitted with lips that overlap. In a
    column of pixels of the closed mouth, the contact is where the surface jumps furthest when the
    mouth opens.
    """
    faces, template = head.faces.numpy(), opened_pose(head, 0.0, 0.0)
    inner = np.array(lips_inner)
    points = np.einsum("lkc,lk->lc", template[corners[inner]], weights[inner])
    low = points.min(axis=0) - 0.006
    size_m = points.max(axis=0) + 0.006 - low
    size = int(size_m[1] / CONTACT_PIXEL_M), int(size_m[0] / CONTACT_PIXEL_M)
    pixels = (template - low) / CONTACT_PIXEL_M  # seen from the front, far away
    pixels[:, 1] = size[0] - pixels[:, 1]
    pixels[:, 2] = 1.0 / CONTACT_PIXEL_M - pixels[:, 2]
    triangle, barycentric = rasterize(pixels, faces, size, backfaces=False)
    inside = [REGIONS.index(name) for name in ("upper_teeth", "lower_teeth", "tongue")]
    skin = (triangle >= 0) & ~np.isin(head.face_regions.numpy()[triangle], inside)
    reference = reference_pose(head)
    half = len(inner) // 2  # corner, lower lip, corner, upper lip
    for place in range(len(inner)):
        if place % half == 0:
            continue
        column = int((points[place, 0] - low[0]) / CONTACT_PIXEL_M)
        depth = np.einsum(
            "rkc,rk->rc", template[faces[triangle[:, column]]], barycentric[:, column]
        )
        rows = np.flatnonzero(skin[:, column] & (depth[:, 2] > points[place, 2] - LIP_DEPTH_M))
        if len(rows) < 2:
            continue
        hit = faces[triangle[rows, column]]
        height = np.einsum("rk,rk->r", reference[hit][..., 1], barycentric[rows, column])
        above = int((height[:-1] - height[1:]).argmax())
        row = rows[above + 1] if place < half else rows[above]
        corners[inner[place]] = faces[triangle[row, column]]
        weights[inner[place]] = barycentric[row, column]


def _nearest_skin_pixel(
    triangle: NDArray[np.int32], skin: NDArray[np.bool_], x: float, y: float, reach: int = 4
) -> tuple[int, int] | None:
    """The pixel under (x, y), or the nearest within reach, that shows skin: (row, column)."""
    column, row = int(np.floor(x)), int(np.floor(y))
    height, width = triangle.shape
    top, left = max(0, row - reach), max(0, column - reach)
    part = triangle[top : min(height, row + reach + 1), left : min(width, column + reach + 1)]
    rows, columns = np.nonzero((part >= 0) & skin[part])
    if not len(rows):
        return None
    best = np.hypot(columns + left + 0.5 - x, rows + top + 0.5 - y).argmin()
    return int(rows[best] + top), int(columns[best] + left)


def _symmetric(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each point with its mirror partner, found by one-to-one matching."""
    mirrored = points * np.array([-1.0, 1.0, 1.0])
    distance = np.linalg.norm(points[:, None] - mirrored[None], axis=2)
    _, partner = linear_sum_assignment(distance)
    if not (partner[partner] == np.arange(len(points))).all():
        raise ValueError("The landmarks have no clean mirror pairing: look at the pictures.")
    return (points + mirrored[partner]) / 2


def closest_points(
    points: NDArray[np.float64], triangles: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For [P, 3] points the nearest of [K, 3, 3] triangles and the barycentric weights there.

    The weights of the foot of the perpendicular are clipped to the triangle, which is the closest
    point up to the triangle's own size.
    """
    origin = triangles[:, 0]
    edges = triangles[:, 1:] - origin[:, None]  # [K, 2, 3]
    gram = np.linalg.inv(edges @ edges.transpose(0, 2, 1) + 1e-14 * np.eye(2))
    chosen = np.zeros(len(points), np.int64)
    weights = np.zeros((len(points), 3))
    for index, point in enumerate(points):
        inner = np.einsum("kij,kjc,kc->ki", gram, edges, point - origin)
        all_weights = np.concatenate([1 - inner.sum(1, keepdims=True), inner], axis=1).clip(0)
        all_weights /= all_weights.sum(1, keepdims=True)
        feet = np.einsum("ki,kic->kc", all_weights, triangles)
        chosen[index] = np.linalg.norm(feet - point, axis=1).argmin()
        weights[index] = all_weights[chosen[index]]
    return chosen, weights


def irises(head: HeadModel) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Centre and ring of each iris on the front of the eyeballs: points 468 to 477."""
    faces = head.faces.numpy()
    template = opened_pose(head, 0.0, 0.0)
    eyeball = faces[head.face_regions.numpy() == REGIONS.index("eyes")]
    corners, weights = [], []
    for side in (-1.0, 1.0):  # the right eye comes first
        ball = eyeball[template[eyeball].mean(axis=1)[:, 0] * side > 0]
        centre = template[np.unique(ball)].mean(axis=0)
        front = template[np.unique(ball), 2].max()
        # Ring: image right, top, image left, bottom; image right is the subject's left, +x.
        ring = IRIS_RADIUS_M * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
        points = np.concatenate([centre[:2] + ring, np.full((5, 1), front)], axis=1)
        chosen, weight = closest_points(points, template[ball])
        corners.append(ball[chosen])
        weights.append(weight)
    return np.concatenate(corners), np.concatenate(weights)


def _regions(
    head: OpenHead,
    corners: NDArray[np.int64],
    weights: NDArray[np.float64],
    lips_outer: Sequence[int],
    lips_inner: Sequence[int],
    rasterize: Rasterizer,
) -> NDArray[np.int64]:
    """Name each face's region: [F], the two halves of a quad alike."""
    faces = head.faces.numpy()
    regions = head.face_regions.numpy().copy()
    body = np.isin(regions, [REGIONS.index(name) for name in BODY_REGIONS])
    neutral = head.template.double().numpy()
    reference = reference_pose(head)
    marks = np.einsum("lkc,lk->lc", neutral[corners], weights)
    open_marks = np.einsum("lkc,lk->lc", reference[corners], weights)
    centre = neutral[faces].mean(axis=1).reshape(-1, 2, 3).mean(axis=1).repeat(2, axis=0)
    open_centre = reference[faces].mean(axis=1).reshape(-1, 2, 3).mean(axis=1).repeat(2, axis=0)

    regions[body] = REGIONS.index("skin")
    ear = (np.abs(centre[:, 0]) > 0.070) & (np.abs(centre[:, 1] + 0.004) < 0.042)
    chin, top, ear_z = marks[152], marks[10], marks[234, 2]
    # A plane from behind the chin up to the nape, another from the hairline to the ears' top.
    below = centre[:, 1] < chin[1] + 0.004 + 0.62 * np.maximum(0, chin[2] - 0.012 - centre[:, 2])
    under_nape = centre[:, 1] < -0.045
    neck = (below & under_nape) & (head.jaw_weights.numpy()[faces].mean(axis=1) < 0.3)
    above = centre[:, 1] > top[1] + 0.9 * (centre[:, 2] - top[2])
    behind = (centre[:, 2] < ear_z - 0.01) & ~neck
    regions[body & (above | behind)] = REGIONS.index("scalp")
    regions[body & neck] = REGIONS.index("neck")
    regions[body & ear] = REGIONS.index("ears")

    outer = _inside(open_centre, open_marks[list(lips_outer)])
    inner = _inside(open_centre, open_marks[list(lips_inner)])
    near = open_centre[:, 2] > open_marks[list(lips_inner), 2].min() - 0.012
    seen = np.zeros(len(faces), dtype=bool)
    for yaw in (-1.2, -0.6, 0.0, 0.6, 1.2):
        for pitch in (-0.7, 0.0, 0.7):
            picture = draw_head(head, neutral, rasterize, yaw_rad=yaw, pitch_rad=pitch)
            seen[picture.triangle[picture.triangle >= 0]] = True
    seen = seen.reshape(-1, 2).any(axis=1).repeat(2)
    mouth = marks[list(lips_inner)]
    low = mouth.min(axis=0) - np.array([0.012, 0.03, 0.07])
    high = mouth.max(axis=0) + np.array([0.012, 0.03, 0.002])
    box = ((centre > low) & (centre < high)).all(axis=1)
    regions[body & box & ~seen] = REGIONS.index("mouth_interior")
    regions[body & outer & near & (seen | ~inner) & (box | seen)] = REGIONS.index("lips")
    return _mirrored(regions, centre)


def _mirrored(regions: NDArray[np.int64], centre: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the right side ([F] labels, [F, 3] centres) the labels of the left."""
    right = np.flatnonzero(centre[:, 0] < 0)
    _, twin = cKDTree(centre).query(centre[right] * np.array([-1.0, 1.0, 1.0]))
    result = regions.copy()
    result[right] = regions[twin]
    return result


def _inside(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether [K, 3] points lie inside a [P, 3] polygon as seen from the front."""
    outline = (polygon[:, :2] * 1000).astype(np.float32)
    return np.array(
        [
            cv2.pointPolygonTest(outline, (float(x * 1000), float(y * 1000)), False) >= 0
            for x, y, _ in points
        ]
    )
