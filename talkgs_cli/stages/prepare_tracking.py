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
from talkgs_cli.types import Crop

PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
)
FILES_IN_FLIGHT = 16
JUMP = 0.35  # face heights from one frame to the next


@dataclass(frozen=True)
class Observations:
    """What the landmarker saw in T frames.

    Attributes:
        landmarks: [T, 478, 3] float32 pixels; interpolated where there is no face.
        blendshapes: [T, 52] float32; interpolated likewise.
        valid: [T] bool, whether a face was seen.
        faces_seen: [T] uint8 faces of like size.
    """

    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    valid: NDArray[np.bool_]
    faces_seen: NDArray[np.uint8]

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

    def jumps(self) -> int:
        """How often the face moves implausibly far from one frame to the next."""
        centre = self.landmarks[..., :2].mean(1)  # [T, 2]
        height = np.linalg.norm(
            self.landmarks[:, CHIN, :2] - self.landmarks[:, FOREHEAD, :2], axis=-1
        )
        both = self.valid[1:] & self.valid[:-1]
        moved = np.linalg.norm(np.diff(centre, axis=0), axis=-1) > JUMP * height[:-1]
        grown = np.abs(np.diff(np.log(np.maximum(height, 1)))) > JUMP
        return int((both & (moved | grown)).sum())


def observe(
    frames: Iterator[NDArray[np.uint8]],
    landmarker: FaceLandmarker,
    advance: Callable[[int], None],
) -> Observations:
    """Follow the face through all frames."""
    landmarks, blendshapes, valid, faces_seen = [], [], [], []
    for frame in frames:
        seen = landmarker.track(frame)
        valid.append(seen is not None)
        faces_seen.append(0 if seen is None else seen.faces_seen)
        if seen is not None:
            landmarks.append(seen.landmarks)
            blendshapes.append(seen.blendshapes)
        advance(1)
    mask = np.array(valid, bool)
    return Observations(
        landmarks=_fill(landmarks, mask, (LANDMARK_COUNT, 3)),
        blendshapes=_fill(blendshapes, mask, (len(BLENDSHAPE_NAMES),)),
        valid=mask,
        faces_seen=np.minimum(faces_seen, 255).astype(np.uint8),
    )


def _fill(
    values: list[NDArray[np.float32]], valid: NDArray[np.bool_], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """[T, ...] values at the valid frames, linear between them, held at both ends."""
    filled = np.zeros((len(valid), *shape), np.float32)
    if not values:
        return filled
    at = np.flatnonzero(valid)
    filled[at] = values
    for t in np.flatnonzero(~valid):
        after = int(np.searchsorted(at, t))
        left, right = at[max(after - 1, 0)], at[min(after, len(at) - 1)]
        share = 0.0 if left == right else (t - left) / (right - left)
        filled[t] = filled[left] * (1 - share) + filled[right] * share
    return filled


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
) -> int:
    """Write every crop frame and its label image as PNG.

    Args:
        frames: Original frames.
        landmarks: [T, 478, 3] original pixels.
        crop: What to cut out.
        matting: Finds the person.
        speaker: Knows the file names.
        advance: Told about every frame.

    Returns:
        How many frames were written.
    """
    with disk_errors(speaker.media):
        speaker.frames.mkdir(parents=True, exist_ok=True)
        speaker.labels.mkdir(parents=True, exist_ok=True)
    waiting: deque[Future[None]] = deque()
    count = 0
    with ThreadPoolExecutor(max_workers=2) as writers:
        for index, frame in enumerate(frames):
            face = cut_out(frame, crop)
            labels = label_image(face, crop.to_crop(landmarks[index, :, :2]), matting.matte(face))
            bgr = np.ascontiguousarray(face[..., ::-1])
            waiting.append(writers.submit(_write_png, speaker.frame_file(index), bgr))
            waiting.append(writers.submit(_write_png, speaker.label_file(index), labels))
            while len(waiting) > FILES_IN_FLIGHT:
                waiting.popleft().result()
            count += 1
            advance(1)
        for written in waiting:
            written.result()
    return count


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", image, PNG_OPTIONS)
    with disk_errors(path):
        path.write_bytes(data.tobytes())
