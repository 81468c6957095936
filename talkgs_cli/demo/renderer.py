"""Draws the photograph with a moved head: a smooth warp of the picture, the textured face on top.

Skin, lips, eyes and teeth are the photograph's own pixels; the mouth's cavity and tongue are
shaded by rule. It knows no time and no sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from talkgs_cli.demo.portrait_head import landmarks_of
from talkgs_cli.landmark_points import LIPS_INNER, OVAL
from talkgs_cli.rendering.mesh import interpolate, rasterize_mesh
from talkgs_cli.types import REGIONS, project

if TYPE_CHECKING:
    from torch import Tensor

    from talkgs_cli.demo.portrait import Portrait
    from talkgs_cli.demo.portrait_head import PortraitHead

SUPERSAMPLING = 2
GRID = 58  # nodes a side of the picture's warp
HAIR_RINGS = (1.2, 1.45)  # hair that moves with the head, in radii of the face
CAVITY = np.array([52, 18, 18], np.float32)  # RGB
TONGUE = np.array([150, 78, 78], np.float32)
SEAM = np.array([0.62, 0.8, 0.8], np.float32)  # share of light lost where closed lips meet
SEAM_GAP = 0.004  # picture sides
LIP_POINTS = 11
LOWER_LIP, UPPER_LIP = LIPS_INNER[:LIP_POINTS], (LIPS_INNER[0], *LIPS_INNER[:9:-1])
WARMTH = np.array([0.75, 1.0, 1.05], np.float32)  # red light goes farther into a mouth
DRAWN = ("skin", "lips", "mouth_interior", "upper_teeth", "lower_teeth", "tongue", "eyes")

Array = NDArray[np.float32]


class PortraitRenderer:
    """Draws one portrait at one size.

    Args:
        portrait: The photograph's layers.
        fitted: The head laid onto it.
        size: Side of the picture, pixels.
    """

    def __init__(self, portrait: Portrait, fitted: PortraitHead, size: int) -> None:
        self._portrait = portrait
        self._fitted = fitted
        self._size = size
        regions = fitted.head.face_regions.numpy()
        drawn = np.isin(regions, [REGIONS.index(name) for name in DRAWN])
        drawn &= self._near_face(fitted.head.faces.numpy())
        self._faces = fitted.head.faces.numpy()[drawn]
        self._vertices = np.unique(self._faces)
        self._regions = regions[drawn]
        index = fitted.head.landmark_index.tolist()
        self._inner_lips = [index.index(point) for point in UPPER_LIP + LOWER_LIP]
        self._warp = _Warp(fitted)

    def _near_face(self, faces: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[F] triangles that lie on the face in the photograph and look at the camera there."""
        at = self._fitted.texture[faces]  # [F, 3, 2]
        first, second = at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]
        turned = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0  # y points down
        pixel = np.clip(at.mean(1) * len(self._portrait.image), 0, len(self._portrait.image) - 1)
        column, row = pixel.astype(int).T
        on_face = cv2.dilate(self._portrait.face_alpha, np.ones((9, 9)))[row, column] > 0
        return np.asarray((turned | ~np.isin(self._fitted.head.face_regions, [0])) & on_face)

    def draw(self, vertices: Tensor, world_to_camera: Tensor, gaze: Array) -> NDArray[np.uint8]:
        """Draw one frame.

        Args:
            vertices: [V, 3] metres, head frame.
            world_to_camera: [4, 4].
            gaze: [2] shift of the irises, in picture sides.

        Returns:
            [size, size, 3] RGB.
        """
        fine = self._size * SUPERSAMPLING
        picture = self._lookup(self._portrait.image, self._warp(vertices, world_to_camera, fine))
        camera = world_to_camera.numpy()
        depth = vertices.numpy() @ camera[2, :3] + camera[2, 3]
        flat = project(vertices[None], world_to_camera[None], self._fitted.intrinsics)[0].numpy()
        points = np.concatenate([flat * fine, depth[:, None]], axis=1)
        drawn = points[self._vertices, :2]
        left, top = np.clip(np.floor(drawn.min(0)).astype(int) - 2, 0, fine)
        right, bottom = np.clip(np.ceil(drawn.max(0)).astype(int) + 2, 0, fine)
        window = picture[top:bottom, left:right]  # a view: only the face's part is drawn
        points[:, :2] -= (left, top)
        triangle, barycentric = rasterize_mesh(points, self._faces, window.shape[:2])
        values = np.concatenate([self._fitted.texture, vertices.numpy()[:, 2:]], axis=1)
        looked_up = interpolate(values, self._faces, triangle, barycentric)  # [H, W, 3]
        at, near = looked_up[..., :2], looked_up[..., 2]
        face, alpha = self._shade(triangle, at, near, gaze, 0.02 * fine)
        window += alpha[..., None] * (face - window)
        window *= self._seam(window.shape[:2], vertices, world_to_camera, fine, (left, top))
        small = cv2.resize(picture, (self._size, self._size), interpolation=cv2.INTER_AREA)
        return np.clip(small + 0.5, 0, 255).astype(np.uint8)

    def _lookup(self, layer: Array | NDArray[np.uint8], at: Array) -> Array:
        """Sample a layer at [..., 2] places in picture sides."""
        pixel = (at * len(self._portrait.image) - 0.5).astype(np.float32)
        sampled = cv2.remap(
            layer, pixel[..., 0], pixel[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(sampled, np.float32)

    def _shade(
        self, triangle: NDArray[np.int32], at: Array, depth: Array, gaze: Array, reach: float
    ) -> tuple[Array, Array]:
        """The face layer and its alpha: [H, W, 3], [H, W]."""
        region = np.where(triangle >= 0, self._regions[triangle], -1)
        is_ = {name: region == REGIONS.index(name) for name in DRAWN}
        face = self._lookup(self._portrait.skin, at)
        face[is_["eyes"]] = self._lookup(self._portrait.eyes, at - gaze)[is_["eyes"]]
        teeth = self._lookup(self._portrait.teeth, at)
        inside = is_["mouth_interior"] | is_["upper_teeth"] | is_["lower_teeth"] | is_["tongue"]
        face[inside] = CAVITY
        face[is_["tongue"]] = TONGUE
        for name in ("upper_teeth", "lower_teeth"):
            face[is_[name]] = teeth[is_[name]]
        light = self._light(inside, depth, reach)[..., None]
        light = np.where(is_["upper_teeth"][..., None], 0.35 + 0.65 * light, light)
        face = np.where(inside[..., None], face * light**WARMTH, face)
        alpha = self._lookup(self._portrait.face_alpha, at)
        alpha = np.where(inside | is_["eyes"], 1.0, alpha) * (triangle >= 0)
        return face, alpha.astype(np.float32)

    def _seam(
        self,
        window: tuple[int, ...],
        vertices: Tensor,
        world_to_camera: Tensor,
        fine: int,
        corner: tuple[int, int],
    ) -> Array:
        """[H, W, 3] light left at the line where closed lips meet; 1 where they are apart."""
        points = landmarks_of(self._fitted.head, vertices[None])[:, self._inner_lips]
        flat = project(points, world_to_camera[None], self._fitted.intrinsics)[0].numpy()
        upper, lower = flat[:LIP_POINTS], flat[LIP_POINTS:]
        strength = np.clip(1.5 - np.linalg.norm(upper - lower, axis=1) / SEAM_GAP, 0, 1)
        line = np.round(((upper + lower) / 2 * fine - corner - 0.5) * 16).astype(np.int32)
        mask = np.zeros(window, np.float32)
        thickness = max(round(0.004 * fine), 1)
        for index in range(LIP_POINTS - 1):
            shade = float(strength[index : index + 2].mean())
            cv2.line(mask, line[index], line[index + 1], shade, thickness, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(mask, (0, 0), 0.0035 * fine)
        return np.asarray(1 - soft[..., None] * SEAM, np.float32)

    def _light(self, inside: NDArray[np.bool_], depth: Array, reach: float) -> Array:
        """[H, W] light that reaches the mouth: little through a narrow gap and far back."""
        open_ = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), reach)
        front = depth[inside].max() if inside.any() else 0.0
        return np.clip(0.45 + 0.8 * open_, 0, 1) * np.clip(1 - (front - depth) / 0.045, 0.25, 1)


class _Warp:
    """Moves the whole picture with the head: hair and outline follow, collar and border stay."""

    def __init__(self, fitted: PortraitHead) -> None:
        self._fitted = fitted
        index = fitted.head.landmark_index.tolist()
        self._oval = [index.index(point) for point in OVAL if point in index]
        corners = fitted.texture[fitted.head.landmark_vertices.numpy()]
        weights = fitted.head.landmark_weights.numpy()[:, :, None]
        self._landmarks = (corners * weights).sum(1)  # [L, 2]
        oval = self._landmarks[self._oval]
        middle = oval.mean(0)
        upper = oval[oval[:, 1] < middle[1] + 0.25 * np.ptp(oval[:, 1])]
        self._hair = np.concatenate([middle + ring * (upper - middle) for ring in HAIR_RINGS])
        chin = oval[:, 1].max() + 0.28 * np.ptp(oval[:, 1])
        line = np.linspace(0, 1, 9)
        still = [(x, y) for y in (chin, (chin + 1) / 2, 1.0) for x in line if y <= 1]
        still += [(x, 0.0) for x in line] + [(x, y) for x in (0.0, 1.0) for y in line]
        self._still = np.unique(np.array(still), axis=0)
        places = np.concatenate([oval, self._hair, self._still])
        nodes = (np.stack(np.meshgrid(*[np.arange(GRID)] * 2), -1) + 0.5) / GRID
        self._nodes = nodes.astype(np.float32)  # [GRID, GRID, 2]
        spread = RBFInterpolator(places, np.eye(len(places)), smoothing=1e-3, kernel="linear")
        self._spread = spread(nodes.reshape(-1, 2)).astype(np.float32)  # [GRID * GRID, places]

    def __call__(self, vertices: Tensor, world_to_camera: Tensor, size: int) -> Array:
        """[size, size, 2] where in the photograph each pixel lies, in picture sides."""
        fitted = self._fitted
        points = landmarks_of(fitted.head, vertices[None])[:, self._oval]
        oval = project(points, world_to_camera[None], fitted.intrinsics)[0].numpy()
        moved = np.concatenate(
            [
                oval - self._landmarks[self._oval],
                self._move_rigidly(world_to_camera) - self._hair,
                np.zeros_like(self._still),
            ]
        ).astype(np.float32)
        forward = (self._spread @ moved).reshape(GRID, GRID, 2)
        source = self._nodes
        for _ in range(4):  # the picture is looked up backwards: source + forward(source) = node
            at = source * GRID - 0.5
            source = self._nodes - cv2.remap(
                forward, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        return cv2.resize(source - self._nodes, (size, size)) + _pixel_centres(size)

    def _move_rigidly(self, world_to_camera: Tensor) -> Array:
        """[P, 2] where hair at the head's depth goes with the head's pose."""
        rest = self._fitted.world_to_camera[0].numpy().astype(np.float64)
        intrinsics = self._fitted.intrinsics.numpy().astype(np.float64)
        homogeneous = np.concatenate([self._hair, np.ones((len(self._hair), 1))], axis=1)
        at_depth = homogeneous @ np.linalg.inv(intrinsics).T * rest[2, 3]
        local = (at_depth - rest[:3, 3]) @ rest[:3, :3]
        camera = world_to_camera.numpy().astype(np.float64)
        moved = (local @ camera[:3, :3].T + camera[:3, 3]) @ intrinsics.T
        return np.asarray(moved[:, :2] / moved[:, 2:], np.float32)


def _pixel_centres(size: int) -> Array:
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.stack(np.meshgrid(centres, centres), axis=-1)
