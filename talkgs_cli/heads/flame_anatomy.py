"""Where the tracker's 478 points and the regions lie on a FLAME head, which comes without them.

The open head is laid over the FLAME head and lends its table; then the head is drawn, a landmark
detector looks at the pictures, and what it sees replaces what was lent. Detector and rasteriser
are passed in; no files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from talkgs_cli.heads.derive_anatomy import (
    FACE_POINTS,
    Detector,
    closest_points,
    irises,
    look,
    move_to_contact,
    on_surface,
    opened_pose,
    reference_pose,
    surface_points,
)
from talkgs_cli.heads.flame import JOINTS, FlameHead
from talkgs_cli.heads.head_picture import Rasterizer
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.types import REGIONS, HeadModel

Floats = NDArray[np.float64]
Placing = Callable[[Floats], Floats]  # points of the open head to the FLAME head, both opened

ROUNDS = 30  # of the rigid alignment
EYES_COUNT_AS = 60  # points, so that the eyeballs stay on each other
MIN_VIEWS = 9  # of 21; fewer, and the pictures are not trusted
LARGEST_MOVE_M = 0.025  # a seen landmark further from the lent one is the detector's mistake
LENT_REGIONS = ("skin", "lips", "ears", "scalp", "neck")  # FLAME has neither teeth nor tongue
BALL_WEIGHT = 0.5  # a triangle that follows an eye joint by more is eyeball
LEFT_IRIS, RIGHT_IRIS = 473, 468
# The border between mouth and upper face, as heights between lips (0) and irises (1).
MOUTH_BELOW, UPPER_ABOVE = 0.35, 0.65


def find_landmarks(
    bare: FlameHead,
    open_head: OpenHead,
    detect: Detector,
    rasterize: Rasterizer,
    lips_inner: Sequence[int],
) -> FlameHead:
    """Find landmarks and regions of a head that has neither.

    Args:
        bare: The FLAME head.
        open_head: Lends its table.
        detect: RGB uint8 picture to [478, 3] pixels, or None.
        rasterize: As `rendering.mesh.rasterize_mesh`.
        lips_inner: Landmarks of the inner lip line, a closed polygon: corner, lower lip, corner,
            upper lip.

    Returns:
        The head with its table: "derived" from pictures, or "transferred" from the open head
        where the detector takes too few pictures for a face.
    """
    place = align(open_head, bare)
    head = _with_regions(bare, open_head, place)
    lent = place(_marks(open_head, reference_pose(open_head)))[:FACE_POINTS]  # [468, 3]
    skin = np.flatnonzero(head.face_regions.numpy() != REGIONS.index("eyes"))
    faces = head.faces.numpy()[skin]
    chosen, weights = closest_points(lent, reference_pose(head)[faces])
    head = _with_table(head, "transferred", faces[chosen], weights)
    views = list(look(head, detect, rasterize))
    if len(views) < MIN_VIEWS:
        return _regions_by_landmarks(head, open_head)
    points = surface_points(head, views)
    doubtful = ~(np.linalg.norm(points - lent, axis=1) < LARGEST_MOVE_M)  # NaN is doubtful too
    points[doubtful] = lent[doubtful]
    corners, weights = on_surface(head, views, points)
    move_to_contact(head, corners, weights, lips_inner, rasterize)
    derived = _with_table(head, "derived", corners[:FACE_POINTS], weights[:FACE_POINTS])
    return _regions_by_landmarks(derived, open_head)


def align(open_head: OpenHead, head: FlameHead) -> Placing:
    """A similarity that lays the open head's face on the FLAME head, both with open mouths.

    Eyeballs meet first; then the landmarks' nearest points on the surface pull (iterative closest
    point), while the eyeballs count as `EYES_COUNT_AS` points.
    """
    source, surface = reference_pose(open_head), reference_pose(head)
    eyes = open_head.faces.numpy()[open_head.face_regions.numpy() == REGIONS.index("eyes")]
    sides = source[eyes].mean(axis=1)[:, 0] > 0
    balls = np.stack(
        [source[np.unique(eyes[sides == side])].mean(axis=0) for side in (True, False)]
    )
    joints = head.joints[[JOINTS.index("left_eye"), JOINTS.index("right_eye")]].double().numpy()
    marks = _marks(open_head, source)[:FACE_POINTS]
    skin = ~_eyeballs(head)
    vertices = surface[np.unique(head.faces.numpy()[skin])]
    tree = cKDTree(vertices)

    scale = float(np.linalg.norm(joints[0] - joints[1]) / np.linalg.norm(balls[0] - balls[1]))
    turn, shift = np.eye(3), joints.mean(axis=0) - scale * balls.mean(axis=0)
    moving = np.concatenate([marks, balls])
    weights = np.ones(len(moving))
    weights[-2:] = EYES_COUNT_AS
    for _ in range(ROUNDS):
        _, nearest = tree.query(scale * marks @ turn.T + shift)
        target = np.concatenate([vertices[nearest], joints])
        scale, turn, shift = _similarity(moving, target, weights)
    return lambda points: np.asarray(scale * points @ turn.T + shift)


def _similarity(points: Floats, target: Floats, weights: Floats) -> tuple[float, Floats, Floats]:
    """The weighted least-squares scale, rotation and shift from [P, 3] onto [P, 3]."""
    share = (weights / weights.sum())[:, None]
    centre, target_centre = (share * points).sum(axis=0), (share * target).sum(axis=0)
    arms, target_arms = points - centre, target - target_centre
    left, values, right = np.linalg.svd((share * target_arms).T @ arms)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ np.diag(sign) @ right
    scale = float((values * sign).sum() / (share * arms**2).sum())
    return scale, turn, target_centre - scale * turn @ centre


def _marks(head: HeadModel, points: Floats) -> Floats:
    """[L, 3] landmarks on [V, 3] posed vertices, in the tracker's order."""
    order = np.argsort(head.landmark_index.numpy())
    corners = head.landmark_vertices.numpy()[order]
    return np.einsum("lkc,lk->lc", points[corners], head.landmark_weights.double().numpy()[order])


def _with_table(
    head: FlameHead, table: str, corners: NDArray[np.int64], weights: Floats
) -> FlameHead:
    """The head with the 468 points of the face and the irises."""
    iris_corners, iris_weights = irises(head)
    corners = np.concatenate([corners, iris_corners])
    return replace(
        head,
        table=table,
        landmark_index=torch.arange(len(corners)),
        landmark_vertices=torch.from_numpy(corners),
        landmark_weights=torch.from_numpy(np.concatenate([weights, iris_weights])).float(),
    )


def _regions_by_landmarks(head: FlameHead, open_head: OpenHead) -> FlameHead:
    """Lend the regions once more, with the open head bent so that the landmarks meet."""
    source = _marks(open_head, reference_pose(open_head))[:FACE_POINTS]
    target = _marks(head, reference_pose(head))[:FACE_POINTS]
    bend = RBFInterpolator(10 * source, target, smoothing=1e-5)  # thin plates; decimetres
    return _with_regions(head, open_head, lambda points: np.asarray(bend(10 * points)))


def _with_regions(head: FlameHead, open_head: OpenHead, place: Placing) -> FlameHead:
    """Name each triangle after the nearest of the open head's skin; eyeballs follow eye joints."""
    regions = open_head.face_regions.numpy()
    lent = np.isin(regions, [REGIONS.index(name) for name in LENT_REGIONS])
    source = reference_pose(open_head)[open_head.faces.numpy()[lent]].mean(axis=1)
    centres = reference_pose(head)[head.faces.numpy()].mean(axis=1)
    _, nearest = cKDTree(place(source)).query(centres)
    named = regions[lent][nearest]
    named[_eyeballs(head)] = REGIONS.index("eyes")
    return replace(head, face_regions=torch.from_numpy(named))


def _eyeballs(head: FlameHead) -> NDArray[np.bool_]:
    """[F] triangles that turn with an eye."""
    follows = head.joint_weights[1:].sum(dim=0).numpy()
    return np.asarray(follows[head.faces.numpy()].min(axis=1) > BALL_WEIGHT)


def mouth_coordinates(head: FlameHead, lips_inner: Sequence[int]) -> torch.Tensor:
    """[E - 4] bool: expression coordinates with most of their motion about the mouth.

    FLAME's coordinates are principal components and move the whole face; those that mostly move
    eyes and brows are left to the recorded motion when speech drives the head.
    """
    points = _marks(head, opened_pose(head, 0.0))
    basis = head.expression_basis.double().numpy()
    motion = np.stack([_marks(head, mode) for mode in basis])[:, :FACE_POINTS]  # [E - 4, 468, 3]
    lips = points[list(lips_inner), 1].mean()
    eyes = points[[LEFT_IRIS, RIGHT_IRIS], 1].mean()
    level = (points[:FACE_POINTS, 1] - lips) / (eyes - lips)
    share = np.clip((UPPER_ABOVE - level) / (UPPER_ABOVE - MOUTH_BELOW), 0, 1)
    strength = np.square(motion).sum(axis=2)  # [E - 4, 468]
    return torch.from_numpy((strength * share).sum(axis=1) > 0.5 * strength.sum(axis=1))
