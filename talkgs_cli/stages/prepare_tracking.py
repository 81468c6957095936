"""Runs the trackers over a video, frame by frame: landmarks first, then crop frames and labels.

The landmarks, 6 kB a frame, go to disk as they come: memory hardly grows with the clip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from talkgs_cli.frame_rows import FrameRows, Rows, RowWriter, middles
from talkgs_cli.landmark_points import BLENDSHAPE_NAMES, LANDMARK_COUNT
from talkgs_cli.runtime import atomic_path, disk_errors
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.crop import FOREHEAD
from talkgs_cli.tracking.labels import CHIN, label_image
from talkgs_cli.tracking.landmarks import FaceLandmarker
from talkgs_cli.tracking.matting import PersonMatting
from talkgs_cli.types import LABELS, Crop

# One filter for all rows: a third faster to write and to read.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG)
LABEL_PNG = (*_PNG, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
# Pictures hold hardly any runs; without looking for them a fifth faster, a twentieth larger.
FRAME_PNG = (*_PNG, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY)
NO_SCORES = np.zeros(len(BLENDSHAPE_NAMES), np.float32)
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
        landmarks: [T, 478, 3] float32 pixels, on disk; interpolated where there is no face.
        blendshapes: [T, 52] float32; interpolated likewise.
        valid: [T] bool, whether a face was seen.
        faces_seen: [T] uint8 faces of like size.
        change: [T] float32 how much the picture changes from the frame before, 0 to 1.
    """

    landmarks: Rows
    blendshapes: NDArray[np.float32]
    valid: NDArray[np.bool_]
    faces_seen: NDArray[np.uint8]
    change: NDArray[np.float32]

    @classmethod
    def load(cls, path: Path) -> Observations:
        """Read what `observe` wrote."""
        with safe_open(path, framework="np") as file:
            names = (field.name for field in fields(cls) if field.name != "landmarks")
            found = {name: file.get_tensor(name) for name in names}
        found["valid"] = found["valid"].astype(bool)
        return cls(FrameRows.of(path, "landmarks"), **found)

    def cuts(self) -> NDArray[np.intp]:
        """Frames before which the picture is cut, or the face moves implausibly far."""
        return np.flatnonzero(self._jumps() | self._changes())

    def _jumps(self) -> NDArray[np.bool_]:
        """[T] whether the face is where it can't have moved from the frame before."""
        centre = middles(self.landmarks)  # [T, 2]
        ends = self.landmarks[:, [CHIN, FOREHEAD], :2]
        height = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
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
    path: Path,
    advance: Callable[[int], None],
) -> Observations:
    """Follow the face through all frames.

    Args:
        frames: All frames, in order.
        landmarker: Finds the face.
        path: The safetensors file that keeps what is found; it appears when all is found.
        advance: Told about every frame.
    """
    valid, blendshapes, faces_seen, change = [], [], [], []
    nothing = np.zeros((LANDMARK_COUNT, 3), np.float32)
    before: NDArray[np.float32] | None = None
    with atomic_path(path) as partial, RowWriter(partial, "landmarks", nothing.shape) as landmarks:
        for frame in frames:
            thumbnail = _thumbnail(frame)
            change.append(0.0 if before is None else float(np.abs(thumbnail - before).mean()))
            before = thumbnail
            seen = landmarker.track(frame)
            valid.append(seen is not None)
            faces_seen.append(0 if seen is None else min(seen.faces_seen, 255))
            landmarks.append(nothing if seen is None else seen.landmarks)
            blendshapes.append(NO_SCORES if seen is None else seen.blendshapes)
            advance(1)
        scores = np.array(blendshapes, np.float32).reshape(len(valid), len(BLENDSHAPE_NAMES))
        mask = np.array(valid, bool)
        _fill(landmarks, mask)
        _fill(scores, mask)
        others: dict[str, NDArray[Any]] = {
            "blendshapes": scores,
            "valid": mask.astype(np.uint8),
            "faces_seen": np.array(faces_seen, np.uint8),
            "change": np.array(change, np.float32),
        }
        landmarks.finish(others, {})
    return Observations.load(path)


def _thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255.0, np.float32)


def _fill(values: NDArray[np.float32] | RowWriter, valid: NDArray[np.bool_]) -> None:
    """Fill the rows of [T, ...] that are not valid, in place: linear between, held at both ends."""
    at = np.flatnonzero(valid)
    for t in np.flatnonzero(~valid).tolist() if len(at) else ():
        after = int(np.searchsorted(at, t))
        left, right = int(at[max(after - 1, 0)]), int(at[min(after, len(at) - 1)])
        share = 0.0 if left == right else (t - left) / (right - left)
        values[t] = values[left] * (1 - share) + values[right] * share


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
    landmarks: Rows,
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
            labels = label_image(face, crop.to_crop(landmarks[index][:, :2]), matting.matte(face))
            bgr = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2BGR), np.uint8)
            waiting.append(writers.submit(_write_png, speaker.frame_file(index), bgr, FRAME_PNG))
            waiting.append(writers.submit(_write_png, speaker.label_file(index), labels, LABEL_PNG))
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


def _write_png(path: Path, image: NDArray[np.uint8], options: tuple[int, ...]) -> None:
    _, data = cv2.imencode(".png", image, options)
    with disk_errors(path):
        path.write_bytes(data.tobytes())
