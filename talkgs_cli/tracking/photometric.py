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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkgs_cli.runtime import Progress, one_thread
from talkgs_cli.tracking.closures import Closures
from talkgs_cli.tracking.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LEFT_EYE,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
    RIGHT_EYE,
)
from talkgs_cli.tracking.point_appearance import HUBER, Appearance, Band, Floats, Picture
from talkgs_cli.types import REGIONS, Crop, HeadModel, HeadMotion, Tracking

ReadFrame = Callable[[int], NDArray[np.uint8]]

POINTS = 5000
ALIGNED_REGIONS = ("skin", "lips")
POSE = 6
EYE_DISTANCE_PX = 64.0  # frames are shrunk until their eyes are this far apart, at most
ROUND_MOUTH = 0.6  # of the way from mouth to eyes
# Half width and height of what a blink folds away, of the distance of the eyes' middles: there is
# no texture that stays.
LID_REACH = (0.32, 0.24)
FACING = 0.35  # cosine of the steepest angle at which a point is looked at
LEARNING_FRAMES = 160
LEARNING_ROUNDS = 3
STEPS = 3  # Gauss-Newton steps a frame
COVERED = 0.12  # share of points round the mouth with strange colours; speech moves 0.03
STRANGE = 4.0  # standard deviations of colour
TINT_NOISE = 4.0  # 8-bit steps: how far light and compression move a colour
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

    rotation_rad: float = 0.004
    shift_px: float = 0.5
    mode: float = 0.3
    redundancy: float = 2.0


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
        eyes = tracking.landmarks[:, [OUTER_EYE_LEFT, OUTER_EYE_RIGHT], :2][valid]
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
        self.closures = Closures(head, tracking, crop.scale * self.scale)
        self.appearance = Appearance(POINTS, DARK_NOISE)
        self.tints = [Appearance(POINTS, TINT_NOISE) for _ in range(3)]

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
        mouth, eyes = self._places(settled, neutral)
        between_eyes = eyes.mean(0)
        reach = np.array(LID_REACH) * np.linalg.norm(eyes[0] - eyes[1])
        from_eyes = corners.mean(1).numpy()[:, None, :2] - eyes[:, :2]  # [F, 2 eyes, 2]
        folds = (np.linalg.norm(from_eyes / reach, axis=2) < 1).any(1)
        areas = (normals[:, 2].clamp_min(0)).numpy() * ~folds  # as seen from the front
        chosen = rng.choice(len(faces), POINTS, p=areas / areas.sum())
        weights = rng.dirichlet(np.ones(3), POINTS)
        middle = (corners[torch.from_numpy(chosen)].mean(1)).numpy()  # [K, 3]
        reach = ROUND_MOUTH * np.linalg.norm(mouth - between_eyes)
        self.round_mouth = np.linalg.norm((middle - mouth)[:, :2], axis=1) < reach  # [K]
        used, place = torch.unique(faces[torch.from_numpy(chosen)], return_inverse=True)
        self.head = settled.only(used)
        self.corners = place  # [K, 3] into the used vertices
        self.barycentric = torch.from_numpy(weights).float()  # [K, 3]
        basis = self.tracking.corrective_basis[:, used]  # [C, V', 3]
        self.whole_basis = basis
        at_points = torch.einsum("ckpd,kp->kcd", basis[:, place], self.barycentric)
        # x, y, z of [K, C - 1] metres for each unit of a corrective; the last, the mean, stays.
        self.basis = [axis.contiguous().numpy() for axis in at_points[:, :-1].unbind(-1)]

    @staticmethod
    def _places(settled: HeadModel, neutral: Tensor) -> tuple[Floats, Floats]:
        """[3] of the mouth and [2, 3] of the eyes, head frame."""
        points = (neutral[settled.landmark_vertices] * settled.landmark_weights[..., None]).sum(1)
        row = {int(index): k for k, index in enumerate(settled.landmark_index)}
        mouth = points[[row[INNER_LIP_UPPER], row[INNER_LIP_LOWER]]].mean(0)
        eyes = torch.stack(
            [points[[row[k] for k in lids]].mean(0) for lids in (LEFT_EYE, RIGHT_EYE)]
        )
        return mouth.numpy(), eyes.numpy()

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

    def _read(self, index: int) -> Picture:
        return Picture.of(self.frame(index), self.label(index), self.scale)

    # -- one frame -------------------------------------------------------------------------------

    def _align(
        self,
        picture: Picture,
        points: Floats,
        normals: Floats,
        pose: Floats,
        index: int,
        steps: int,
    ) -> _Aligned:
        """Gauss-Newton of frame `index` from [K, 3] points and normals (head frame) and a pose."""
        rotation, shift = pose[:3, :3], pose[:3, 3]
        camera = points @ rotation.T + shift
        away = ((normals @ rotation.T) * camera).sum(1)
        facing = away < -FACING * np.linalg.norm(camera, axis=1)
        pixels = self._pixels(camera)
        band = Band.of(picture, pixels, self.eye_px)
        seen = facing & (band.at(band.skin, pixels) > 0.99)
        change = np.zeros(POSE + self.modes)
        counted = np.where(seen, 1 / self.appearance.deviation, 0).astype(np.float32)  # [K]
        if not steps or np.count_nonzero(counted) < 10 * len(change):
            tint = band.at(picture.tint, pixels, whole=True)
            return _Aligned(change, band.at(band.value, pixels), seen, tint)
        known = np.diag(1 / self.unit**2)
        wanted = np.zeros(len(known))
        px_per_metre = float(self.intrinsics[0, 0] / shift[2])
        closures = self.closures.equations(index, rotation, px_per_metre, self.eye_px)
        known[POSE:, POSE:] += closures.curvature
        wanted[POSE:] = closures.pull
        known, wanted = known * self.weights.redundancy, wanted * self.weights.redundancy
        moved = _Moved(points, camera - shift, camera, rotation, pixels)
        for _ in range(steps):
            residual = (band.at(band.value, moved.pixels) - self.appearance.mean) * counted
            slopes = self._slopes(band, moved) * counted[:, None]  # [K, 6 + modes]
            robust = 1 / np.maximum(1, np.abs(residual) / HUBER)
            weighted = slopes * robust[:, None]
            curvature = (slopes.T @ weighted).astype(np.float64) + known
            gradient = weighted.T @ residual + known @ change - wanted
            change = change - np.linalg.solve(curvature, gradient)
            moved = self._moved(points, rotation, shift, change)
        value = band.at(band.value, moved.pixels)
        return _Aligned(change, value, seen, band.at(picture.tint, moved.pixels, whole=True))

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

    def _slopes(self, band: Band, moved: _Moved) -> Floats:
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
        seen = np.stack([aligned.seen for aligned in found])
        for channel, tint in enumerate(self.tints):
            tint.learn(np.stack([aligned.tint[:, channel] for aligned in found]), seen)

    def _pictures(self, frames: NDArray[np.intp]) -> Iterator[Picture]:
        """Read the frames, a few ahead in a thread: decoding takes as long as aligning."""
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as pool:
            ahead: deque[Future[Picture]] = deque()
            for index in frames.tolist():
                ahead.append(pool.submit(self._read, index))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            for picture in ahead:
                yield picture.result()

    def _walk(
        self, frames: NDArray[np.intp], pictures: Iterable[Picture], steps: int
    ) -> Iterator[tuple[int, _Aligned]]:
        motion, waiting = self.tracking.motion, iter(pictures)
        for first in range(0, len(frames), CHUNK):
            part = frames[first : first + CHUNK]
            points, normals = self._pose(motion.at(torch.from_numpy(part)))
            for row, index in enumerate(part.tolist()):
                pose = motion.world_to_camera[index].numpy()
                picture = next(waiting)
                yield index, self._align(picture, points[row], normals[row], pose, index, steps)

    def _strange(self, aligned: _Aligned) -> float:
        """Share of the points round the mouth whose colour is not theirs; 0 to 1.

        A change of light moves all points alike and is taken out first.
        """
        seen = aligned.seen & np.isfinite(self.tints[0].deviation)
        if np.count_nonzero(seen & self.round_mouth) < 20:
            return 0.0
        off = np.zeros(POINTS, np.float32)
        for channel, tint in enumerate(self.tints):
            apart = aligned.tint[:, channel] - tint.mean
            apart = (apart - np.median(apart[seen])) / tint.deviation
            off = np.maximum(off, np.abs(apart))
        return float((off[seen & self.round_mouth] > STRANGE).mean())

    def refine(self, advance: Callable[[int], None]) -> tuple[HeadMotion, NDArray[np.bool_]]:
        """The clip's motion, aligned, and [T] where something covers the mouth.

        Frames without a face, and covered ones, keep their motion.
        """
        motion = self.tracking.motion
        poses = motion.world_to_camera.double().numpy().copy()
        corrective = motion.corrective.clone()
        covered = np.zeros(len(motion), bool)
        frames = np.flatnonzero(self.tracking.valid.numpy())
        for index, aligned in self._walk(frames, self._pictures(frames), STEPS):
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
