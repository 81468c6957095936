"""Aligns the track with the pixels: every frame's face with one common appearance of the skin.

Landmarks jitter by about a pixel, skin texture does not. Points on the fitted head remember how
bright they are over the whole clip; each frame's pose and correctives are then moved, within what
landmark noise allows, until its pixels fit that memory. It filters nothing over time and changes
neither identity nor expression units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from talkgs_cli.landmark_points import OUTER_EYE_LEFT, OUTER_EYE_RIGHT
from talkgs_cli.runtime import Progress, one_thread
from talkgs_cli.tracking.closures import Closures
from talkgs_cli.tracking.point_appearance import HUBER, Appearance, Band, Floats, Picture
from talkgs_cli.tracking.surface_points import SurfacePoints
from talkgs_cli.types import Crop, HeadModel, HeadMotion, Tracking

ReadFrame = Callable[[int], NDArray[np.uint8]]

POINTS = 3000
POSE = 6
EYE_DISTANCE_PX = 64.0  # frames are shrunk until their eyes are this far apart, at most
FACING = 0.35  # cosine of the steepest angle at which a point is looked at
LEARNING_FRAMES = 80  # twice as many move the points by 0.02 to 0.04 pixels
LEARNING_ROUNDS = 3
STEPS = 3  # Gauss-Newton steps a frame
COVERED = 0.12  # share of points round the mouth with strange colours; speech moves 0.03
STRANGE = 4.0  # standard deviations of colour
TINT_NOISE = 4.0  # 8-bit steps: how far light and compression move a colour
DARK_NOISE = 0.5  # 8-bit steps: no point is surer than this
CHUNK = 32  # frames posed at once
WORKERS = 2  # threads; Python itself computes in one of them only


@dataclass(frozen=True)
class PhotometricWeights:
    """How far pixels may move the track.

    Attributes:
        rotation_rad, shift_px, mode: One standard deviation of the landmark track's noise, in
            radians, pixels at an eye distance of 64, and units of a corrective.
        redundancy: How many neighbouring points tell the same story.
    """

    rotation_rad: float = 0.004
    shift_px: float = 0.5
    mode: float = 0.3
    redundancy: float = 2.0


@dataclass(frozen=True)
class _Moved:
    """Points [K, 3] in the head frame, turned, in the camera; rotation; [K, 2] pixels; rows."""

    points: Floats
    turned: Floats
    camera: Floats
    rotation: Floats
    pixels: Floats
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class _Aligned:
    """What aligning one frame found.

    Attributes:
        change: [6 + modes] of the pose (rotation vector and shift, camera frame), correctives.
        value: [K] brightness of the points that are seen.
        seen: [K] which are.
        tint: [K, 3] their colour, CIELAB as uint8.
    """

    change: NDArray[np.float64]
    value: Floats
    seen: NDArray[np.bool_]
    tint: Floats


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
        eyes = tracking.landmarks[:, [OUTER_EYE_LEFT, OUTER_EYE_RIGHT], :2][valid.numpy()]
        eye_px = float(np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1).mean()) * crop.scale
        self.scale = min(1.0, EYE_DISTANCE_PX / eye_px)
        self.eye_px = eye_px * self.scale
        self.intrinsics = crop.intrinsics(tracking.intrinsics.numpy()).astype(np.float32)
        self.intrinsics[:2] *= self.scale
        depth = float(tracking.motion.world_to_camera[valid][:, 2, 3].mean())
        self.metres_per_px = depth / self.intrinsics[0, 0]
        self.surface = SurfacePoints(
            head.settle(tracking.shape), tracking.corrective_basis, POINTS, seed
        )
        self.modes = self.surface.modes[0].shape[1]
        # One unit of each unknown: landmark noise.
        unit = self.eye_px / EYE_DISTANCE_PX * self.metres_per_px
        w = self.weights
        self.unit = np.array(
            [w.rotation_rad] * 3
            + [w.shift_px * unit] * 2
            + [3 * w.shift_px * unit]  # towards the camera little can be seen
            + [w.mode] * self.modes
        )
        self.closures = Closures(head, tracking, crop.scale * self.scale)
        self.appearance = Appearance(POINTS, DARK_NOISE)
        self.tints = [Appearance(POINTS, TINT_NOISE) for _ in range(3)]

    # -- geometry --------------------------------------------------------------------------------

    def _pixels(self, camera: Floats) -> Floats:
        k = self.intrinsics
        return camera[:, :2] / camera[:, 2:] * k[[0, 1], [0, 1]] + k[:2, 2]

    def _read(self, index: int) -> Picture:
        return Picture.of(self.frame(index), self.label(index), self.scale)

    # -- one frame -------------------------------------------------------------------------------

    def _align(
        self,
        read: Callable[[int], Picture],
        points: Floats,
        normals: Floats,
        pose: Floats,
        index: int,
        steps: int,
    ) -> _Aligned:
        """Gauss-Newton of frame `index` from [K, 3] points and normals (head frame) and a pose."""
        picture = read(index)
        rotation, shift = pose[:3, :3], pose[:3, 3]
        camera = points @ rotation.T + shift
        away = ((normals @ rotation.T) * camera).sum(1)
        facing = away < -FACING * np.linalg.norm(camera, axis=1)
        pixels = self._pixels(camera)
        band = Band.of(picture, pixels, self.eye_px)
        seen = facing & (band.at(band.skin, pixels) > 0.99)
        rows = np.flatnonzero(seen)  # only these are looked at
        change = np.zeros(POSE + self.modes)
        moved = _Moved(
            points[rows], camera[rows] - shift, camera[rows], rotation, pixels[rows], rows
        )
        if steps and np.isfinite(self.appearance.deviation[rows]).sum() >= 10 * len(change):
            change, moved = self._solve(band, moved, shift, index, steps)
        value, tint = np.zeros(POINTS, np.float32), np.zeros((POINTS, 3), np.float32)
        value[rows] = band.at(band.value, moved.pixels)
        tint[rows] = band.at(picture.tint, moved.pixels, whole=True)
        return _Aligned(change, value, seen, tint)

    def _solve(
        self, band: Band, start: _Moved, shift: Floats, index: int, steps: int
    ) -> tuple[NDArray[np.float64], _Moved]:
        """The change that makes the seen points look as they should, and where they are then."""
        known = np.diag(1 / self.unit**2)
        wanted = np.zeros(len(known))
        px_per_metre = float(self.intrinsics[0, 0] / shift[2])
        closures = self.closures.equations(index, start.rotation, px_per_metre, self.eye_px)
        known[POSE:, POSE:] += closures.curvature
        wanted[POSE:] = closures.pull
        known, wanted = known * self.weights.redundancy, wanted * self.weights.redundancy
        mean, counted = self.appearance.mean[start.rows], 1 / self.appearance.deviation[start.rows]
        basis = [axis[start.rows] for axis in self.surface.modes]
        change, moved = np.zeros(len(known)), start
        for _ in range(steps):
            residual = (band.at(band.value, moved.pixels) - mean) * counted
            slopes = self._slopes(band, moved, basis) * counted[:, None]  # [K, 6 + modes]
            robust = 1 / np.maximum(1, np.abs(residual) / HUBER)
            weighted = slopes * robust[:, None]
            curvature = (slopes.T @ weighted).astype(np.float64) + known
            gradient = weighted.T @ residual + known @ change - wanted
            change = change - np.linalg.solve(curvature, gradient)
            moved = self._moved(start, shift, change, basis)
        return change, moved

    def _moved(
        self, start: _Moved, shift: Floats, change: NDArray[np.float64], basis: list[Floats]
    ) -> _Moved:
        """The points after a change of pose and correctives."""
        turn = Rotation.from_rotvec(change[:3]).as_matrix() @ start.rotation
        turn = np.asarray(turn, np.float32)
        coefficients = change[POSE:].astype(np.float32)
        bent = start.points + np.stack([axis @ coefficients for axis in basis], axis=1)
        turned = bent @ turn.T
        camera = turned + shift + change[3:POSE].astype(np.float32)
        return _Moved(bent, turned, camera, turn, self._pixels(camera), start.rows)

    def _slopes(self, band: Band, moved: _Moved, basis: list[Floats]) -> Floats:
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
        np.multiply(basis[0], in_head[:, :1], out=slopes[:, POSE:])
        slopes[:, POSE:] += basis[1] * in_head[:, 1:2]
        slopes[:, POSE:] += basis[2] * in_head[:, 2:]
        return slopes

    # -- the clip --------------------------------------------------------------------------------

    def learn(self, advance: Callable[[int], None]) -> None:
        """Find the common appearance: alternately align some frames and average them."""
        valid = np.flatnonzero(self.tracking.valid.numpy())
        some = valid[np.unique(np.linspace(0, len(valid) - 1, LEARNING_FRAMES).astype(int))]
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="pictures") as pool:
            pictures = dict(zip(some.tolist(), pool.map(self._read, some.tolist()), strict=True))
        for turn in range(LEARNING_ROUNDS):
            found = []
            for _, aligned in self._walk(some, pictures.__getitem__, STEPS if turn else 0):
                found.append(aligned)
                advance(1)
            self.appearance.learn(
                np.stack([aligned.value for aligned in found]),
                np.stack([aligned.seen for aligned in found]),
            )
        seen = np.stack([aligned.seen for aligned in found])
        for channel, tint in enumerate(self.tints):
            tint.learn(np.stack([aligned.tint[:, channel] for aligned in found]), seen)

    def _walk(
        self, frames: NDArray[np.intp], read: Callable[[int], Picture], steps: int
    ) -> Iterator[tuple[int, _Aligned]]:
        """Align frames one by one: while one is decoded, another can be computed."""
        motion = self.tracking.motion
        waiting: deque[tuple[int, Future[_Aligned]]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="aligning") as pool:
            for first in range(0, len(frames), CHUNK):
                part = frames[first : first + CHUNK]
                points, normals = self.surface.posed(motion.at(torch.from_numpy(part)))
                for row, index in enumerate(part.tolist()):
                    pose = motion.world_to_camera[index].numpy()
                    found = pool.submit(
                        self._align, read, points[row], normals[row], pose, index, steps
                    )
                    waiting.append((index, found))
                while len(waiting) > CHUNK // 2:
                    index, found = waiting.popleft()
                    yield index, found.result()
            for index, found in waiting:
                yield index, found.result()

    def _strange(self, aligned: _Aligned) -> float:
        """Share of the points round the mouth whose colour is not theirs; 0 to 1.

        A change of light moves all points alike and is taken out first.
        """
        seen = aligned.seen & np.isfinite(self.tints[0].deviation)
        if np.count_nonzero(seen & self.surface.round_mouth) < 20:
            return 0.0
        off = np.zeros(POINTS, np.float32)
        for channel, tint in enumerate(self.tints):
            apart = aligned.tint[:, channel] - tint.mean
            apart = (apart - np.median(apart[seen])) / tint.deviation
            off = np.maximum(off, np.abs(apart))
        return float((off[seen & self.surface.round_mouth] > STRANGE).mean())

    def refine(self, advance: Callable[[int], None]) -> tuple[HeadMotion, NDArray[np.bool_]]:
        """The clip's motion, aligned, and [T] where something covers the mouth.

        Frames without a face, and covered ones, keep their motion.
        """
        motion = self.tracking.motion
        poses = motion.world_to_camera.double().numpy().copy()
        corrective = motion.corrective.clone()
        covered = np.zeros(len(motion), bool)
        frames = np.flatnonzero(self.tracking.valid.numpy())
        for index, aligned in self._walk(frames, self._read, STEPS):
            advance(1)
            covered[index] = self._strange(aligned) > COVERED
            if covered[index]:
                continue
            turn = Rotation.from_rotvec(aligned.change[:3]).as_matrix()
            poses[index, :3, :3] = turn @ poses[index, :3, :3]
            poses[index, :3, 3] += aligned.change[3:POSE]
            corrective[index, :-1] += torch.from_numpy(aligned.change[POSE:]).float()
        world_to_camera = torch.from_numpy(poses).float()
        aligned_motion = HeadMotion(motion.expression, motion.jaw, corrective, world_to_camera)
        return aligned_motion, binary_dilation(covered)  # the frame before and after is smeared


def photometric_refinement(
    head: HeadModel,
    tracking: Tracking,
    crop: Crop,
    frame: ReadFrame,
    label: ReadFrame,
    progress: Progress,
) -> Tracking:
    """Align a tracking with its crop frames: pose and correctives of every frame with a face.

    Frames in which something covers the mouth are no longer valid.

    Args:
        head: The head model of the tracking.
        tracking: From `fit_head`; not changed.
        crop: Where the crop frames lie.
        frame: Reads crop frame number t, [S, S, 3] uint8.
        label: Reads its label image, [S, S].
        progress: Told about one stage.
    """
    count = int(tracking.valid.sum())
    learning = LEARNING_ROUNDS * min(LEARNING_FRAMES, count)
    with one_thread(), progress.stage("Aligning with the pixels", learning + count) as advance:
        aligner = PhotometricAligner(head, tracking, crop, frame, label)
        aligner.learn(advance)
        motion, covered = aligner.refine(advance)
    return replace(tracking, motion=motion, valid=tracking.valid & ~torch.from_numpy(covered))
