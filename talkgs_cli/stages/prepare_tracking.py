"""Runs the trackers over a video, frame by frame: landmarks first, then crop frames and labels.

Memory does not grow with the clip but for the landmarks themselves (6 kB a frame).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from talkgs_cli.runtime import atomic_path, disk_errors
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.crop import FOREHEAD
from talkgs_cli.tracking.labels import CHIN, label_image
from talkgs_cli.tracking.landmarks import BLENDSHAPE_NAMES, LANDMARK_COUNT, FaceLandmarker
from talkgs_cli.tracking.matting import PersonMatting
from talkgs_cli.types import LABELS, Crop

PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,  # one filter for all rows: a third faster to write and to read
    cv2.IMWRITE_PNG_FILTER_AVG,
)
FILES_IN_FLIGHT = 16
JUMP = 0.35  # face heights from one frame to the next
THUMBNAIL = 32  # pixels; two frames are compared at this size
CUT_CHANGE = 0.08  # of full scale: mean change of a thumbnail from which it may be a cut
CUT_STANDS_OUT = 4.0  # times the largest change of the frames around it
CUT_AROUND = 5  # frames either side


@dataclass(frozen=True)
class Observations:
    """What the landmarker saw in T frames.

    Attributes:
        landmarks: [T, 478, 3] float32 pixels; interpolated where there is no face.
        blendshapes: [T, 52] float32; interpolated likewise.
        valid: [T] bool, whether a face was seen.
        faces_seen: [T] uint8 faces of like size.
        change: [T] float32 how much the picture changes from the frame before, 0 to 1.
    """

    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    valid: NDArray[np.bool_]
    faces_seen: NDArray[np.uint8]
    change: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write all fields to a safetensors file."""
        fields = {**vars(self), "valid": self.valid.astype(np.uint8)}
        with atomic_path(path) as partial:
            save_file(fields, partial)

    @classmethod
    def load(cls, path: Path) -> Observations:
        """Read what `save` wrote."""
        fields = load_file(path)
        return cls(**{**fields, "valid": fields["valid"].astype(bool)})

    def cuts(self) -> NDArray[np.intp]:
        """Frames before which the picture is cut, or the face moves implausibly far."""
        return np.flatnonzero(self._jumps() | self._changes())

    def _jumps(self) -> NDArray[np.bool_]:
        """[T] whether the face is where it can't have moved from the frame before."""
        centre = self.landmarks[..., :2].mean(1)  # [T, 2]
        height = np.linalg.norm(
            self.landmarks[:, CHIN, :2] - self.landmarks[:, FOREHEAD, :2], axis=-1
        )
        both = self.valid[1:] & self.valid[:-1]
        moved = np.linalg.norm(np.diff(centre, axis=0), axis=-1) > JUMP * height[:-1]
        grown = np.abs(np.diff(np.log(np.maximum(height, 1)))) > JUMP
        return np.concatenate([[False], both & (moved | grown)])

    def _changes(self) -> NDArray[np.bool_]:
        """[T] whether the whole picture changes at once, as movement does not."""
        padded = np.pad(self.change, CUT_AROUND)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * CUT_AROUND + 1)  # [T, 11]
        around = np.delete(windows, CUT_AROUND, axis=1).max(1)
        return (self.change > CUT_CHANGE) & (self.change > CUT_STANDS_OUT * around)


def observe(
    frames: Iterator[NDArray[np.uint8]],
    landmarker: FaceLandmarker,
    advance: Callable[[int], None],
) -> Observations:
    """Follow the face through all frames."""
    landmarks, blendshapes = Growing((LANDMARK_COUNT, 3)), Growing((len(BLENDSHAPE_NAMES),))
    valid, faces_seen, change = [], [], []
    before: NDArray[np.float32] | None = None
    for frame in frames:
        thumbnail = _thumbnail(frame)
        change.append(0.0 if before is None else float(np.abs(thumbnail - before).mean()))
        before = thumbnail
        seen = landmarker.track(frame)
        valid.append(seen is not None)
        faces_seen.append(0 if seen is None else seen.faces_seen)
        landmarks.append(None if seen is None else seen.landmarks)
        blendshapes.append(None if seen is None else seen.blendshapes)
        advance(1)
    mask = np.array(valid, bool)
    return Observations(
        landmarks=_fill(landmarks.rows, mask),
        blendshapes=_fill(blendshapes.rows, mask),
        valid=mask,
        faces_seen=np.minimum(faces_seen, 255).astype(np.uint8),
        change=np.array(change, np.float32),
    )


class Growing:
    """An array [T, ...] that grows by rows in one place: a list of them would need it twice."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count = 0
        self._data = np.zeros((1024, *shape), np.float32)

    def append(self, row: NDArray[np.float32] | None) -> None:
        """Add a row; None is a row of zeros."""
        if self._count == len(self._data):
            self._data.resize((2 * self._count, *self._data.shape[1:]), refcheck=False)
        if row is not None:
            self._data[self._count] = row
        self._count += 1

    @property
    def rows(self) -> NDArray[np.float32]:
        """All rows so far, not copied."""
        return self._data[: self._count]


def _thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255.0, np.float32)


def _fill(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill the rows of [T, ...] that are not valid, in place: linear between, held at both ends."""
    at = np.flatnonzero(valid)
    for t in np.flatnonzero(~valid) if len(at) else ():
        after = int(np.searchsorted(at, t))
        left, right = at[max(after - 1, 0)], at[min(after, len(at) - 1)]
        share = 0.0 if left == right else (t - left) / (right - left)
        values[t] = values[left] * (1 - share) + values[right] * share
    return values


def cut_out(frame: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """The crop of a frame: [size, size, 3]."""
    rows = slice(crop.top, crop.top + crop.side)
    columns = slice(crop.left, crop.left + crop.side)
    cut = np.ascontiguousarray(frame[rows, columns])
    if crop.size == crop.side:
        return cut
    shrunk = cv2.resize(cut, (crop.size, crop.size), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8)


def write_crops(
    frames: Iterator[NDArray[np.uint8]],
    landmarks: NDArray[np.float32],
    crop: Crop,
    matting: PersonMatting,
    speaker: SpeakerFolder,
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """Write every crop frame and its label image as PNG.

    Args:
        frames: Original frames.
        landmarks: [T, 478, 3] original pixels.
        crop: What to cut out.
        matting: Finds the person.
        speaker: Knows the file names.
        advance: Told about every frame.

    Returns:
        [T] how sharp the face is in each, see `face_sharpness`.
    """
    with disk_errors(speaker.media):
        speaker.frames.mkdir(parents=True, exist_ok=True)
        speaker.labels.mkdir(parents=True, exist_ok=True)
    waiting: deque[Future[None]] = deque()
    sharpness = []
    with ThreadPoolExecutor(max_workers=2) as writers:
        for index, frame in enumerate(frames):
            face = cut_out(frame, crop)
            labels = label_image(face, crop.to_crop(landmarks[index, :, :2]), matting.matte(face))
            bgr = np.ascontiguousarray(face[..., ::-1])
            waiting.append(writers.submit(_write_png, speaker.frame_file(index), bgr))
            waiting.append(writers.submit(_write_png, speaker.label_file(index), labels))
            while len(waiting) > FILES_IN_FLIGHT:
                waiting.popleft().result()
            sharpness.append(face_sharpness(face, labels))
            advance(1)
        for written in waiting:
            written.result()
    return np.array(sharpness, np.float32)


def face_sharpness(frame: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Standard deviation of the Laplacian of the face's brightness, 8-bit units.

    Comparable between frames of one video only: it depends on size, light and compression.

    Args:
        frame: [H, W, 3] uint8 RGB crop frame.
        labels: [H, W] its label image.
    """
    face = labels >= LABELS["skin"]
    if not face.any():
        return 0.0
    light = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(light, cv2.CV_32F)[face].std())


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", image, PNG_OPTIONS)
    with disk_errors(path):
        path.write_bytes(data.tobytes())
