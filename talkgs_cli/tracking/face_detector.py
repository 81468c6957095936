"""Finds faces in a frame, small ones too; it does not follow them from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.tracking.litert import Network

INPUT_SIZE = 128
SCORE_THRESHOLD = 0.5
SAME_FACE_IOU = 0.3
SMALLEST_TILE = 160  # pixels; below this a tile only enlarges noise


@dataclass(frozen=True)
class FaceBox:
    """One detected face, original-frame pixels with centres at +0.5.

    Attributes:
        score: Confidence, 0 to 1.
        centre: [2] x, y of the box.
        extent: [2] width, height of the box.
        eyes: [2, 2] x, y of the subject's right and left eye.
    """

    score: float
    centre: NDArray[np.float32]
    extent: NDArray[np.float32]
    eyes: NDArray[np.float32]


class FaceDetector:
    """MediaPipe's short-range detector, run on the whole frame and, if need be, on tiles.

    The network sees 128 pixels: a face under about a tenth of the frame is lost in them. When the
    whole frame shows nothing, overlapping squares of the frame are tried, large ones first.

    Args:
        model: The bytes of face_detector.tflite.
    """

    def __init__(self, model: bytes) -> None:
        self._network = Network(model)
        self._anchors = _anchors()  # [896, 2] in 0..1

    def find(self, frame: NDArray[np.uint8]) -> list[FaceBox]:
        """All faces of a [H, W, 3] RGB frame, largest first."""
        height, width = frame.shape[:2]
        side = max(height, width)
        middle = np.array([(width - side) // 2, (height - side) // 2])
        boxes = self._find_in_square(frame, middle, side)
        for tile in (min(height, width), min(height, width) // 2):
            if boxes or not SMALLEST_TILE <= tile < side:
                continue
            boxes = [
                box
                for corner in _tile_corners(height, width, tile)
                for box in self._find_in_square(frame, corner, tile)
            ]
        return sorted(_merge(boxes), key=lambda box: -float(box.extent.max()))

    def _find_in_square(
        self, frame: NDArray[np.uint8], corner: NDArray[np.integer], side: int
    ) -> list[FaceBox]:
        square = _cut(frame, corner, side)
        shrunk = cv2.resize(square, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
        outputs = self._network(shrunk[None].astype(np.float32) / 127.5 - 1)
        boxes, logits = sorted(outputs, key=lambda output: -output.shape[-1])  # [1,896,16], [..,1]
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))
        found = np.flatnonzero(scores > SCORE_THRESHOLD)
        values = boxes[0, found] / INPUT_SIZE  # [K, 16]: centre, extent, six points; to the anchor
        anchors = self._anchors[found]
        return _merge(
            [
                FaceBox(
                    score=float(score),
                    centre=(anchor + value[:2]) * side + corner,
                    extent=value[2:4] * side,
                    eyes=(anchor + value[4:8].reshape(2, 2)) * side + corner,
                )
                for score, value, anchor in zip(scores[found], values, anchors, strict=True)
            ]
        )


def _anchors() -> NDArray[np.float32]:
    """Centres of the detector's 896 anchors: 2 on each of 16x16 cells, 6 on each of 8x8."""
    rows = [
        ((x + 0.5) / cells, (y + 0.5) / cells)
        for cells, per_cell in ((16, 2), (8, 6))
        for y in range(cells)
        for x in range(cells)
        for _ in range(per_cell)
    ]
    return np.array(rows, np.float32)


def _cut(frame: NDArray[np.uint8], corner: NDArray[np.integer], side: int) -> NDArray[np.uint8]:
    """The square at `corner`, black where it leaves the frame."""
    height, width = frame.shape[:2]
    left, top = int(corner[0]), int(corner[1])
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return frame[top : top + side, left : left + side]
    square = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
    return square


def _tile_corners(height: int, width: int, tile: int) -> list[NDArray[np.integer]]:
    """Corners of squares that cover the frame with at least half a tile of overlap."""

    def starts(length: int) -> NDArray[np.integer]:
        count = 1 + int(np.ceil((length - tile) / (tile / 2)))
        return np.linspace(0, length - tile, count).round().astype(int)

    return [np.array([x, y]) for y in starts(height) for x in starts(width)]


def _merge(boxes: list[FaceBox]) -> list[FaceBox]:
    """Non-maximum suppression by score-weighted averaging, as the detector was trained for."""
    remaining = sorted(boxes, key=lambda box: -box.score)
    merged = []
    while remaining:
        same = [box for box in remaining if _iou(remaining[0], box) > SAME_FACE_IOU]
        kept = {id(box) for box in same}
        remaining = [box for box in remaining if id(box) not in kept]
        weights = np.array([box.score for box in same], np.float32)
        weights /= weights.sum()

        def mean(name: str, same: list[FaceBox] = same, weights: NDArray = weights) -> NDArray:
            return np.tensordot(weights, np.stack([getattr(box, name) for box in same]), 1)

        merged.append(FaceBox(same[0].score, mean("centre"), mean("extent"), mean("eyes")))
    return merged


def _iou(a: FaceBox, b: FaceBox) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(a.centre - a.extent / 2, b.centre - b.extent / 2)
    high = np.minimum(a.centre + a.extent / 2, b.centre + b.extent / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(float(np.prod(a.extent) + np.prod(b.extent)) - shared, 1e-9)
