"""Follows one face through a video: 478 points and 52 blendshape scores a frame.

It runs MediaPipe's three networks with LiteRT and NumPy alone, because the mediapipe package calls
home; it does not smooth, and it fits no head.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.landmark_points import (
    BLENDSHAPE_POINTS,
    LANDMARK_COUNT,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
)
from talkgs_cli.tracking.face_detector import FaceBox, FaceDetector
from talkgs_cli.tracking.litert import Network

INPUT_SIZE = 256
REGION_SCALE = 1.5  # the network was trained on squares this much larger than the face
PRESENCE_THRESHOLD = 0.5
REFINEMENTS = 2  # passes after a detection, whose region is too coarse for the points
UPRIGHT_RAD = np.pi / 4
LARGE_FACE_SHARE = 0.4  # a second face counts from this share of the largest one's size


@dataclass(frozen=True)
class FaceObservation:
    """What one frame shows of the face.

    Attributes:
        landmarks: [478, 3] float32 x, y in pixels (centres at +0.5), z in pixels, smaller = nearer.
        blendshapes: [52] float32 scores, 0 to 1, in the order of `BLENDSHAPE_NAMES`.
        presence: The network's confidence that this is a face, 0 to 1.
        faces_seen: Faces of like size at the last look at the whole frame.
    """

    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    presence: float
    faces_seen: int


@dataclass(frozen=True)
class _Region:
    """A rotated square of the frame: centre [2] px, side px, angle rad (clockwise on screen)."""

    centre: NDArray[np.floating]
    side: float
    angle: float

    def to_frame(self) -> NDArray[np.float32]:
        """[2, 3] affine map from network pixels to frame pixels, both with centres at +0.5."""
        scale = self.side / INPUT_SIZE
        cosine, sine = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        turn = np.array([[cosine, -sine], [sine, cosine]])
        shift = self.centre - turn @ np.full(2, INPUT_SIZE / 2)
        return np.concatenate([turn, shift[:, None]], axis=1).astype(np.float32)


class FaceLandmarker:
    """Tracks the largest face; give it the frames in order.

    Args:
        task_file: face_landmarker.task (a zip of three networks).
        look_around_every: Frames between two looks at the whole frame that count the faces.
    """

    def __init__(self, task_file: Path, look_around_every: int = 12) -> None:
        with zipfile.ZipFile(task_file) as task:
            self._detector = FaceDetector(task.read("face_detector.tflite"))
            self._points = Network(task.read("face_landmarks_detector.tflite"))
            self._scores = Network(task.read("face_blendshapes.tflite"))
        self._look_around_every = look_around_every
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next frame starts with a detection."""
        self._region: _Region | None = None
        self._faces_seen = 0
        self._frame_index = 0

    def track(self, frame: NDArray[np.uint8]) -> FaceObservation | None:
        """Observe the next frame.

        Args:
            frame: [H, W, 3] uint8 RGB.

        Returns:
            The face, or None when there is none.
        """
        found = None
        if self._region is not None:
            found = self._locate(frame, self._region)
            if found is not None and self._frame_index % self._look_around_every == 0:
                self._faces_seen = max(1, self._count_faces(frame, self._detector.find(frame)))
        if found is None:
            found = self._detect(frame)
        self._frame_index += 1
        if found is None:
            self._region = None
            return None
        landmarks, presence = found
        self._region = _region_of_landmarks(landmarks)
        (scores,) = self._scores(landmarks[None, BLENDSHAPE_POINTS, :2])
        return FaceObservation(landmarks, scores.ravel(), presence, self._faces_seen)

    def upright_score(self, frame: NDArray[np.uint8]) -> float:
        """The detector's score of the largest face that stands upright in a frame, 0 without one.

        Faces on their side, and what looks like a face in one that is upside down, score lower.
        The face that is followed is forgotten.

        Args:
            frame: [H, W, 3] uint8 RGB.
        """
        self.reset()
        for box in self._detector.find(frame):
            if abs(_region_of_box(box).angle) > UPRIGHT_RAD:
                continue
            found = self._locate(frame, _region_of_box(box), REFINEMENTS)
            if found is not None and abs(_region_of_landmarks(found[0]).angle) < UPRIGHT_RAD:
                return box.score
        return 0.0

    def _detect(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float] | None:
        """Look at the whole frame for the largest box that really is a face."""
        boxes = self._detector.find(frame)
        self._faces_seen = 0
        for box in boxes:
            found = self._locate(frame, _region_of_box(box), REFINEMENTS)
            if found is not None:
                self._faces_seen = max(1, self._count_faces(frame, boxes))
                return found
        return None

    def _count_faces(self, frame: NDArray[np.uint8], boxes: list[FaceBox]) -> int:
        """How many boxes are faces of like size; one box is taken at its word."""
        large = [b for b in boxes if b.extent.max() >= LARGE_FACE_SHARE * boxes[0].extent.max()]
        if len(large) < 2:
            return len(large)
        return sum(self._locate(frame, _region_of_box(box)) is not None for box in large)

    def _locate(
        self, frame: NDArray[np.uint8], region: _Region, refinements: int = 0
    ) -> tuple[NDArray[np.float32], float] | None:
        """Run the point network on a region, then again on the region it found."""
        landmarks, presence = self._run_points(frame, region)
        for _ in range(refinements):
            if presence < PRESENCE_THRESHOLD:
                break
            landmarks, presence = self._run_points(frame, _region_of_landmarks(landmarks))
        return (landmarks, presence) if presence >= PRESENCE_THRESHOLD else None

    def _run_points(
        self, frame: NDArray[np.uint8], region: _Region
    ) -> tuple[NDArray[np.float32], float]:
        to_frame = region.to_frame()
        patch = _sample(frame, to_frame, region.side / INPUT_SIZE)
        points, presence, _tongue = self._points(patch[None])
        landmarks = points.reshape(LANDMARK_COUNT, 3).copy()
        landmarks[:, :2] = landmarks[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]
        landmarks[:, 2] *= region.side / INPUT_SIZE
        return landmarks, float(1 / (1 + np.exp(-np.clip(presence.item(), -80, 80))))


def _sample(
    frame: NDArray[np.uint8], to_frame: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """The [256, 256, 3] patch of a region in 0..1.

    A large face is sampled several times per network pixel and averaged: bilinear sampling alone
    would alias, and the points would tremble. cv2 counts pixel centres at whole numbers.
    """
    fine = int(np.clip(round(scale), 1, 4))
    matrix = to_frame.copy()
    matrix[:, :2] /= fine
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
    side = INPUT_SIZE * fine
    patch = cv2.warpAffine(
        frame,
        matrix,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if fine > 1:
        patch = cv2.resize(patch, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
    return np.multiply(patch, np.float32(1 / 255), dtype=np.float32)


def _region_of_box(box: FaceBox) -> _Region:
    right, left = box.eyes
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    return _Region(box.centre, float(box.extent.max()) * REGION_SCALE, angle)


def _region_of_landmarks(landmarks: NDArray[np.float32]) -> _Region:
    """The square around all points, upright in the face's own frame."""
    across = landmarks[OUTER_EYE_LEFT, :2] - landmarks[OUTER_EYE_RIGHT, :2]
    angle = float(np.arctan2(across[1], across[0]))
    cosine, sine = np.cos(angle), np.sin(angle)
    upright = np.array([[cosine, -sine], [sine, cosine]])  # points @ this: turned back
    turned = landmarks[:, :2] @ upright
    low, high = turned.min(0), turned.max(0)
    return _Region((low + high) / 2 @ upright.T, float((high - low).max()) * REGION_SCALE, angle)
