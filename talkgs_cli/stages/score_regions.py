"""Which frames and which pixels `score` measures: runs of frames; face square, oval, mouth box.

It measures nothing itself. Everything is in pixels of the original frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows
from talkgs_cli.landmark_points import LIPS_OUTER, OVAL

REGIONS = ("full", "face", "mask", "mouth")
FACE_MARGIN = 1.10  # of the oval's longer side
MOUTH_MARGIN = 1.25  # of the lips' width
MOUTH_ASPECT = 0.8

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Regions:
    """Fixed-size face and mouth boxes that follow the face.

    Attributes:
        frame_size: (height, width) of the frames.
        face_side: Side of the face square.
        mouth_size: (height, width) of the mouth box.
    """

    frame_size: tuple[int, int]
    face_side: int
    mouth_size: tuple[int, int]

    @classmethod
    def of(
        cls,
        landmarks: Rows,
        frame_size: tuple[int, int],
        valid: NDArray[np.bool_] | slice = slice(None),
    ) -> Regions:
        """Size the boxes for the largest face seen.

        Args:
            landmarks: [T, 478, 2 or 3], pixels.
            frame_size: (height, width).
            valid: [T] frames with a face.
        """
        oval = np.ptp(landmarks[:, OVAL, :2][valid], axis=1)  # [T, 2]
        wanted = math.ceil(float(oval.max()) * FACE_MARGIN / 16) * 16
        side = min(wanted, *frame_size)
        lips = float(np.ptp(landmarks[:, LIPS_OUTER, 0][valid], axis=1).max())
        width = min(max(2 * math.ceil(lips * MOUTH_MARGIN / 2), 14), side)
        height = min(max(int(width * MOUTH_ASPECT) // 2 * 2, 12), side)
        return cls(frame_size, side, (height, width))

    def face(self, landmarks: NDArray[np.floating]) -> Box:
        """The face square of one frame, moved inside the frame: (rows, columns)."""
        oval = landmarks[OVAL, :2]
        corner = np.round((oval.min(0) + oval.max(0)) / 2 - self.face_side / 2).astype(int)
        return _inside(corner, (self.face_side, self.face_side), self.frame_size)

    def mouth(self, landmarks: NDArray[np.floating]) -> Box:
        """The mouth box of one frame, within the face square, in the square's own pixels."""
        rows, columns = self.face(landmarks)
        height, width = self.mouth_size
        centre = landmarks[LIPS_OUTER, :2].mean(0) - [columns.start, rows.start]
        corner = np.floor(centre - [width / 2, height / 2]).astype(int)
        return _inside(corner, self.mouth_size, (self.face_side, self.face_side))

    def oval(self, landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
        """[face_side, face_side] pixels inside the face oval, in the face square."""
        import cv2

        rows, columns = self.face(landmarks)
        mask = np.zeros((self.face_side, self.face_side), np.uint8)
        # OpenCV's pixel centres are whole numbers, ours are at +0.5.
        points = landmarks[OVAL, :2] - [columns.start + 0.5, rows.start + 0.5]
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, shift=4)
        return mask.astype(bool)


def choose_runs(usable: Sequence[int], max_frames: int, run_frames: int) -> list[range]:
    """Runs of neighbouring frames, spread evenly, with at most `max_frames` frames in all.

    >>> choose_runs(range(10, 20), 100, 25)
    [range(10, 20)]
    >>> choose_runs(range(100), 20, 10)
    [range(0, 10), range(90, 100)]

    Args:
        usable: Frame numbers that may be measured, rising.
        max_frames: Most frames in all; 0: no limit.
        run_frames: Length of a run where not everything fits.
    """
    stretches = _stretches(usable)
    if not max_frames or len(usable) <= max_frames:
        return stretches
    length = min(run_frames, max_frames)
    count = max(1, max_frames // length)
    places = np.linspace(0, len(usable) - length, count).round().astype(int)
    return _stretches([usable[k] for place in places for k in range(place, place + length)])


def _stretches(numbers: Sequence[int]) -> list[range]:
    runs: list[range] = []
    for number in numbers:
        if runs and number == runs[-1].stop:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _inside(corner: NDArray[np.integer], size: tuple[int, int], within: tuple[int, int]) -> Box:
    """The box of `size` (height, width) at `corner` (x, y), moved inside `within`."""
    left = int(np.clip(corner[0], 0, within[1] - size[1]))
    top = int(np.clip(corner[1], 0, within[0] - size[0]))
    return slice(top, top + size[0]), slice(left, left + size[1])
