"""Aligns the track with the pixels: every frame's face with one common appearance of the skin.

Landmarks jitter by about a pixel, skin texture does not. Points on the fitted head remember how
bright they are over the whole clip; each frame's pose and correctives are then moved, within what
landmark noise allows, until its pixels fit that memory. It filters nothing over time and changes
neither identity nor expression units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from talkgs_cli.runtime import Progress
from talkgs_cli.tracking.landmark_points import OUTER_EYE_LEFT, OUTER_EYE_RIGHT
from talkgs_cli.types import LABELS, REGIONS, Crop, HeadModel, HeadMotion, Tracking

Floats = NDArray[np.float32]
ReadFrame = Callable[[int], NDArray[np.uint8]]

POINTS = 5000
ALIGNED_REGIONS = ("skin", "lips")
POSE = 6
EYE_DISTANCE_PX = 64.0  # frames are shrunk until their eyes are this far apart, at most
FINE, COARSE = 0.012, 0.10  # band of detail that is compared, share of the eye distance
FACING = 0.35  # cosine of the steepest angle at which a point is looked at
LEARNING_FRAMES = 160
LEARNING_ROUNDS = 3
STEPS = 3  # Gauss-Newton steps a frame
HUBER = 1.5  # standard deviations
DARK_NOISE = 0.5  # 8-bit steps: no point is surer than this
CHUNK = 32  # frames posed at once
AHEAD = 6  # frames read ahead


@dataclass(frozen=True)
class PhotometricWeights:
    """How far pixels may move the track.

    Attributes:
        rotation_rad, shift_px, mode: One standard deviation of the landmark track's noise, in
            radians, pixels at an eye distance of 64, and units of a corrective.
        redundancy: How many neighbouring points tell the same story.
    """

    rotation_rad: float = 0.01
    shift_px: float = 0.5
    mode: float = 0.3
    redundancy: float = 2.0


@dataclass(frozen=True)
class _Picture:
    """A crop frame, shrunk: brightness and labels, uint8."""

    grey: NDArray[np.uint8]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class _Band:
    """Brightness of a frame round the face, its slopes, where skin is; `corner`'s pixel centre."""

    value: Floats
    slope_x: Floats
    slope_y: Floats
    skin: Floats
    corner: Floats

    def at(self, image: Floats, pixels: Floats) -> Floats:
        """Values at [K, 2] points (pixel centres at +0.5): [K]."""
        place = pixels - self.corner
        sampled = cv2.remap(image, place[None, :, 0], place[None, :, 1], cv2.INTER_LINEAR)
        return np.asarray(sampled[0], np.float32)


@dataclass(frozen=True)
class _Moved:
    """Points [K, 3] in the head frame, turned, and in the camera; the rotation; [K, 2] pixels."""

    points: Floats
    turned: Floats
    camera: Floats
    rotation: Floats
    pixels: Floats


@dataclass(frozen=True)
class _Aligned:
    """What aligning one frame found.

    Attributes:
        change: [6 + modes] of the pose (rotation vector and shift, camera frame), correctives.
        value: [K] brightness of the points.
        seen: [K] which of them are seen.
    """

    change: NDArray[np.float64]
    value: Floats
    seen: NDArray[np.bool_]


class Appearance:
    """Brightness of the points over the clip: mean and spread."""

    def __init__(self, count: int) -> None:
        self.mean = np.zeros(count, np.float32)
        self.deviation = np.full(count, np.inf, np.float32)

    def learn(self, values: Floats, seen: NDArray[np.bool_]) -> None:
        """Take mean and spread of [B, K] values where `seen`; points rarely seen are left out."""
        often = seen.sum(0)
        weight = seen.astype(np.float32)
        for _ in range(3):
            total = np.maximum(weight.sum(0), 1e-6)
            mean = (values * weight).sum(0) / total
            apart = values - mean
            deviation = np.sqrt((apart**2 * weight).sum(0) / total)
            weight = seen / np.maximum(1, np.abs(apart) / (HUBER * deviation + 1e-6))
        enough = often >= max(3, 0.1 * len(values))
        self.mean = mean.astype(np.float32)
        noise = np.median(deviation[enough]) if enough.any() else np.inf
        spread = np.sqrt(deviation**2 + max(0.5 * noise, DARK_NOISE) ** 2)
        self.deviation = np.where(enough, spread, np.inf).astype(np.float32)


class PhotometricAligner:
    """Refines a tracking by its pixels.

    Args:
        head: The head model of the tracking.
        tracking: To be refined; not changed.
        crop: Where the crop frames lie.
        frame: Reads crop frame number t, [S, S, 3] uint8.
        label: Reads its label image, [S, S].
        weights: How far it may go.
        seed: Of the choice of points.
    """

    def __init__(
        self,
        head: HeadModel,
        tracking: Tracking,
        crop: Crop,
        frame: ReadFrame,
        label: ReadFrame,
        weights: PhotometricWeights | None = None,
        seed: int = 0,
    ) -> None:
        self.tracking, self.frame, self.label = tracking, frame, label
        self.weights = weights or PhotometricWeights()
        valid = tracking.valid
        eyes = tracking.landmarks[valid][:, [OUTER_EYE_LEFT, OUTER_EYE_RIGHT], :2]
        eye_px = float((eyes[:, 0] - eyes[:, 1]).norm(dim=-1).mean()) * crop.scale
        self.scale = min(1.0, EYE_DISTANCE_PX / eye_px)
        self.eye_px = eye_px * self.scale
        self.intrinsics = crop.intrinsics(tracking.intrinsics.numpy()).astype(np.float32)
        self.intrinsics[:2] *= self.scale
        depth = float(tracking.motion.world_to_camera[valid][:, 2, 3].mean())
        self.metres_per_px = depth / self.intrinsics[0, 0]
        self._place_points(head.settle(tracking.shape), seed)
        self.modes = self.basis[0].shape[1]
        # One unit of each unknown: landmark noise.
        unit = self.eye_px / EYE_DISTANCE_PX * self.metres_per_px
        w = self.weights
        self.unit = np.array(
            [w.rotation_rad] * 3
            + [w.shift_px * unit] * 2
            + [3 * w.shift_px * unit]  # towards the camera little can be seen
            + [w.mode] * self.modes
        )
        self.appearance = Appearance(len(self.barycentric))

    def _place_points(self, settled: HeadModel, seed: int) -> None:
        """Scatter points evenly over the front of the face."""
        rng = np.random.default_rng(seed)
        kept = [REGIONS.index(name) for name in ALIGNED_REGIONS]
        faces = settled.faces[torch.isin(settled.face_regions, torch.tensor(kept))]
        neutral = settled.vertices(
            torch.zeros(0), torch.zeros(1, settled.expression_count), torch.zeros(1, 3)
        )[0]
        corners = neutral[faces].double()
        normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = (normals[:, 2].clamp_min(0)).numpy()  # as seen from the front
        chosen = rng.choice(len(faces), POINTS, p=areas / areas.sum())
        weights = rng.dirichlet(np.ones(3), POINTS)
        used, place = torch.unique(faces[torch.from_numpy(chosen)], return_inverse=True)
        self.head = settled.only(used)
        self.corners = place  # [K, 3] into the used vertices
        self.barycentric = torch.from_numpy(weights).float()  # [K, 3]
        basis = self.tracking.corrective_basis[:, used]  # [C, V', 3]
        self.whole_basis = basis
        at_points = torch.einsum("ckpd,kp->kcd", basis[:, place], self.barycentric)
        # x, y, z of [K, C - 1] metres for each unit of a corrective; the last, the mean, stays.
        self.basis = [axis.contiguous().numpy() for axis in at_points[:, :-1].unbind(-1)]

    # -- geometry --------------------------------------------------------------------------------

    def _pose(self, motion: HeadMotion) -> tuple[Floats, Floats]:
        """[B, K, 3] points and [B, K, 3] outward unit normals, head frame."""
        posed = self.head.vertices(torch.zeros(0), motion.expression, motion.jaw)
        posed = posed + torch.einsum("bc,cvd->bvd", motion.corrective, self.whole_basis)
        triangles = posed[:, self.corners]  # [B, K, 3, 3]
        points = (triangles * self.barycentric[..., None]).sum(2)
        normals = torch.linalg.cross(
            triangles[:, :, 1] - triangles[:, :, 0], triangles[:, :, 2] - triangles[:, :, 0]
        )
        return points.numpy(), torch.nn.functional.normalize(normals, dim=-1).numpy()

    def _pixels(self, camera: Floats) -> Floats:
        k = self.intrinsics
        return camera[:, :2] / camera[:, 2:] * k[[0, 1], [0, 1]] + k[:2, 2]

    # -- pictures --------------------------------------------------------------------------------

    def _read(self, index: int) -> _Picture:
        grey = np.asarray(cv2.cvtColor(self.frame(index), cv2.COLOR_RGB2GRAY), np.uint8)
        label = self.label(index)
        if self.scale == 1:
            return _Picture(grey, label)
        size = (round(grey.shape[1] * self.scale), round(grey.shape[0] * self.scale))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        marks = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        return _Picture(np.asarray(small, np.uint8), np.asarray(marks, np.uint8))

    def _band(self, picture: _Picture, pixels: Floats) -> _Band:
        """Band-passed brightness round the face, and where its skin is."""
        grey, label = picture.grey, picture.label
        low = np.maximum(pixels.min(0) - 2 * COARSE * self.eye_px, 0).astype(int)
        high = np.ceil(np.maximum(pixels.max(0) + 2 * COARSE * self.eye_px, low + 3)).astype(int)
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        light = grey[window].astype(np.float32)
        fine = cv2.GaussianBlur(light, (0, 0), max(0.5, FINE * self.eye_px))
        band = fine - cv2.GaussianBlur(light, (0, 0), COARSE * self.eye_px)
        skin = (label[window] == LABELS["skin"]).astype(np.float32)
        # Scharr's weights sum to 32. A skin of 1 pixel less: its rim shows what is behind.
        return _Band(
            np.asarray(band, np.float32),
            np.asarray(cv2.Scharr(band, cv2.CV_32F, 1, 0, scale=1 / 32), np.float32),
            np.asarray(cv2.Scharr(band, cv2.CV_32F, 0, 1, scale=1 / 32), np.float32),
            np.asarray(cv2.erode(skin, np.ones((3, 3))), np.float32),
            (low + 0.5).astype(np.float32),
        )

    # -- one frame -------------------------------------------------------------------------------

    def _align(
        self, picture: _Picture, points: Floats, normals: Floats, pose: Floats, steps: int
    ) -> _Aligned:
        """Gauss-Newton of one frame from [K, 3] points and normals (head frame) and a pose."""
        rotation, shift = pose[:3, :3], pose[:3, 3]
        camera = points @ rotation.T + shift
        away = ((normals @ rotation.T) * camera).sum(1)
        facing = away < -FACING * np.linalg.norm(camera, axis=1)
        pixels = self._pixels(camera)
        band = self._band(picture, pixels)
        seen = facing & (band.at(band.skin, pixels) > 0.99)
        change = np.zeros(POSE + self.modes)
        counted = np.where(seen, 1 / self.appearance.deviation, 0).astype(np.float32)  # [K]
        if not steps or np.count_nonzero(counted) < 10 * len(change):
            return _Aligned(change, band.at(band.value, pixels), seen)
        prior = self.weights.redundancy / self.unit**2
        moved = _Moved(points, camera - shift, camera, rotation, pixels)
        for _ in range(steps):
            residual = (band.at(band.value, moved.pixels) - self.appearance.mean) * counted
            slopes = self._slopes(band, moved) * counted[:, None]  # [K, 6 + modes]
            robust = 1 / np.maximum(1, np.abs(residual) / HUBER)
            weighted = slopes * robust[:, None]
            curvature = (slopes.T @ weighted).astype(np.float64) + np.diag(prior)
            gradient = weighted.T @ residual + prior * change
            change = change - np.linalg.solve(curvature, gradient)
            moved = self._moved(points, rotation, shift, change)
        return _Aligned(change, band.at(band.value, moved.pixels), seen)

    def _moved(
        self, points: Floats, rotation: Floats, shift: Floats, change: NDArray[np.float64]
    ) -> _Moved:
        """The points after a change of pose and correctives."""
        turn = (Rotation.from_rotvec(change[:3]).as_matrix() @ rotation).astype(np.float32)
        coefficients = change[POSE:].astype(np.float32)
        bent = points + np.stack([axis @ coefficients for axis in self.basis], axis=1)
        turned = bent @ turn.T
        camera = turned + shift + change[3:POSE].astype(np.float32)
        return _Moved(bent, turned, camera, turn, self._pixels(camera))

    def _slopes(self, band: _Band, moved: _Moved) -> Floats:
        """[K, 6 + modes] change of brightness with rotation, shift and correctives."""
        camera, turned, k = moved.camera, moved.turned, self.intrinsics
        across = band.at(band.slope_x, moved.pixels) * k[0, 0] / camera[:, 2]
        down = band.at(band.slope_y, moved.pixels) * k[1, 1] / camera[:, 2]
        away = -(across * camera[:, 0] + down * camera[:, 1]) / camera[:, 2]
        slopes = np.empty((len(camera), POSE + self.modes), np.float32)
        slopes[:, 0] = turned[:, 1] * away - turned[:, 2] * down
        slopes[:, 1] = turned[:, 2] * across - turned[:, 0] * away
        slopes[:, 2] = turned[:, 0] * down - turned[:, 1] * across
        slopes[:, 3], slopes[:, 4], slopes[:, 5] = across, down, away
        in_head = slopes[:, 3:6] @ moved.rotation  # [K, 3]
        np.multiply(self.basis[0], in_head[:, :1], out=slopes[:, POSE:])
        slopes[:, POSE:] += self.basis[1] * in_head[:, 1:2]
        slopes[:, POSE:] += self.basis[2] * in_head[:, 2:]
        return slopes

    # -- the clip --------------------------------------------------------------------------------

    def learn(self, advance: Callable[[int], None]) -> None:
        """Find the common appearance: alternately align some frames and average them."""
        valid = np.flatnonzero(self.tracking.valid.numpy())
        some = valid[np.unique(np.linspace(0, len(valid) - 1, LEARNING_FRAMES).astype(int))]
        pictures = list(self._pictures(some))
        for turn in range(LEARNING_ROUNDS):
            found = []
            for _, aligned in self._walk(some, pictures, STEPS if turn else 0):
                found.append(aligned)
                advance(1)
            self.appearance.learn(
                np.stack([aligned.value for aligned in found]),
                np.stack([aligned.seen for aligned in found]),
            )

    def _pictures(self, frames: NDArray[np.intp]) -> Iterator[_Picture]:
        """Read the frames, a few ahead in a thread: decoding takes as long as aligning."""
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as pool:
            ahead: deque[Future[_Picture]] = deque()
            for index in frames.tolist():
                ahead.append(pool.submit(self._read, index))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            for picture in ahead:
                yield picture.result()

    def _walk(
        self, frames: NDArray[np.intp], pictures: Iterable[_Picture], steps: int
    ) -> Iterator[tuple[int, _Aligned]]:
        motion, waiting = self.tracking.motion, iter(pictures)
        for first in range(0, len(frames), CHUNK):
            part = frames[first : first + CHUNK]
            points, normals = self._pose(motion.at(torch.from_numpy(part)))
            for row, index in enumerate(part.tolist()):
                pose = motion.world_to_camera[index].numpy()
                picture = next(waiting)
                yield index, self._align(picture, points[row], normals[row], pose, steps)

    def refine(self, advance: Callable[[int], None]) -> HeadMotion:
        """The clip's motion, aligned; frames without a face keep theirs."""
        motion = self.tracking.motion
        poses = motion.world_to_camera.double().numpy().copy()
        corrective = motion.corrective.clone()
        frames = np.flatnonzero(self.tracking.valid.numpy())
        for index, aligned in self._walk(frames, self._pictures(frames), STEPS):
            turn = Rotation.from_rotvec(aligned.change[:3]).as_matrix()
            poses[index, :3, :3] = turn @ poses[index, :3, :3]
            poses[index, :3, 3] += aligned.change[3:POSE]
            corrective[index, :-1] += torch.from_numpy(aligned.change[POSE:]).float()
            advance(1)
        world_to_camera = torch.from_numpy(poses).float()
        return HeadMotion(motion.expression, motion.jaw, corrective, world_to_camera)


def photometric_refinement(
    head: HeadModel,
    tracking: Tracking,
    crop: Crop,
    frame: ReadFrame,
    label: ReadFrame,
    progress: Progress,
) -> Tracking:
    """Align a tracking with its crop frames: pose and correctives of every frame with a face.

    Args:
        head: The head model of the tracking.
        tracking: From `fit_head`; not changed.
        crop: Where the crop frames lie.
        frame: Reads crop frame number t, [S, S, 3] uint8.
        label: Reads its label image, [S, S].
        progress: Told about one stage.
    """
    aligner = PhotometricAligner(head, tracking, crop, frame, label)
    count = int(tracking.valid.sum())
    learning = LEARNING_ROUNDS * min(LEARNING_FRAMES, count)
    with progress.stage("Aligning with the pixels", learning + count) as advance:
        aligner.learn(advance)
        return replace(tracking, motion=aligner.refine(advance))
