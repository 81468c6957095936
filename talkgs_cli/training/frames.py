"""The frames a fit looks at: a window round the face with its masks, loaded ahead in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import middles
from talkgs_cli.landmark_points import LIPS_OUTER
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import LABELS, Tracking

WINDOW_STEP = 16  # the rasteriser works in tiles of 16 pixels
MARGIN_PX = 8
AHEAD = 6  # frames decoded before they are needed
COARSE_ABOVE_PX = 192  # windows whose shorter side is less are never halved

Box = tuple[slice, slice]  # rows, columns


@dataclass
class TrainingFrame:
    """One frame, cut to the window.

    Attributes:
        index: Frame number in the clip.
        image: [3, h, w] RGB.
        mask: [h, w] 1 where the renderer is responsible.
        weight: [h, w] weight of each pixel in the L1 loss.
        mouth: Where the mouth is.
        intrinsics: [3, 3] of the window.
    """

    index: int
    image: Tensor
    mask: Tensor
    weight: Tensor
    mouth: Box
    intrinsics: Tensor

    def to(self, device: torch.device) -> TrainingFrame:
        """Move the tensors."""
        return TrainingFrame(
            self.index,
            self.image.to(device),
            self.mask.to(device),
            self.weight.to(device),
            self.mouth,
            self.intrinsics.to(device),
        )


@dataclass(frozen=True)
class WantedFrame:
    """A frame to load, and how often it is halved."""

    index: int
    halvings: int = 0


class FrameWindows:
    """Cuts training frames out of a speaker's crops.

    Args:
        speaker: A prepared speaker.
        tracking: Its tracking.
        candidates: Frames that may be asked for.
        mouth_weight: L1 weight inside the mouth box.
    """

    def __init__(
        self,
        speaker: SpeakerFolder,
        tracking: Tracking,
        candidates: Sequence[int],
        mouth_weight: float,
    ) -> None:
        self.speaker = speaker
        self.mouth_weight = mouth_weight
        crop = speaker.crop
        self.intrinsics = torch.from_numpy(crop.intrinsics(tracking.intrinsics.numpy())).float()
        lips = crop.to_crop(tracking.landmarks[:, LIPS_OUTER, :2])  # [T, 20, 2]
        self.mouth_centre = lips.mean(1)  # [T, 2]
        width = np.percentile(np.ptp(lips[list(candidates), :, 0], axis=1), 99) * 1.25
        self.mouth_half = np.array([width / 2, width * 0.4])
        # The face moves little inside the fixed crop: its own window is fixed in size, not place.
        self.face_centre = crop.to_crop(middles(tracking.landmarks))  # [T, 2]
        self.below, self.size = self._window(candidates)

    def _window(self, candidates: Sequence[int]) -> tuple[NDArray[np.float64], tuple[int, int]]:
        """Offset of the window's centre from the face's, and its (height, width)."""
        boxes = []
        for index in list(candidates)[:: max(1, len(candidates) // 48)]:
            rows, columns = np.nonzero(self.speaker.label(index) >= LABELS["neck"])
            if len(rows):
                x, y = self.face_centre[index]
                boxes.append(
                    [columns.min() - x, columns.max() + 1 - x, rows.min() - y, rows.max() + 1 - y]
                )
        if not boxes:
            raise BadInput(
                f"No label image of {self.speaker.path} shows a face.",
                hint="Run talkgs prepare again with --force.",
            )
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        spans = [high[1] - low[0], high[3] - low[2]]
        width, height = (
            min(
                -(-int(span + 2 * MARGIN_PX) // WINDOW_STEP) * WINDOW_STEP,
                self.speaker.crop.size,
            )
            for span in spans
        )
        return np.array([(low[0] + high[1]) / 2, (low[2] + high[3]) / 2]), (height, width)

    def load(self, index: int, halvings: int = 0) -> TrainingFrame:
        """Read, cut and mask one frame.

        Args:
            index: Its number.
            halvings: How often it is halved, for the coarse part of a fit.
        """
        height, width = self.size
        limit = self.speaker.crop.size
        centre = self.face_centre[index] + self.below
        left = int(np.clip(round(centre[0] - width / 2), 0, limit - width))
        top = int(np.clip(round(centre[1] - height / 2), 0, limit - height))
        image = self.speaker.frame(index)[top : top + height, left : left + width]
        label = self.speaker.label(index)[top : top + height, left : left + width]
        face = (label >= LABELS["neck"]).astype(np.uint8)
        mask = cv2.dilate(face, np.ones((5, 5), np.uint8))
        corner = self.mouth_centre[index] - self.mouth_half - [left, top]
        shrink = 2**halvings
        if shrink > 1:
            small = (width // shrink, height // shrink)
            image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
            mask = np.asarray(cv2.resize(mask, small, interpolation=cv2.INTER_NEAREST), np.uint8)
        x0, y0 = np.maximum(corner / shrink, 0).astype(int).tolist()
        x1, y1 = np.maximum((corner + 2 * self.mouth_half) / shrink, 0).astype(int).tolist()
        mouth = (slice(y0, y1), slice(x0, x1))
        weight = np.ones(mask.shape, np.float32)
        weight[mouth] = self.mouth_weight
        intrinsics = self.intrinsics.clone()
        intrinsics[0, 2] -= left
        intrinsics[1, 2] -= top
        intrinsics[:2] /= shrink
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return TrainingFrame(
            index,
            pixels.contiguous().float().div_(255),
            torch.from_numpy(mask).float(),
            torch.from_numpy(weight),
            mouth,
            intrinsics,
        )

    @property
    def halvings(self) -> int:
        """How often a coarse fit halves the window."""
        return int(min(self.size) >= COARSE_ABOVE_PX)

    def stream(self, wanted: Iterable[WantedFrame]) -> Iterator[TrainingFrame]:
        """Yield the frames in the given order, decoded a few steps ahead in a thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="frames") as pool:
            queue = iter(wanted)

            def submit() -> Iterator[Future[TrainingFrame]]:
                for want in islice(queue, 1):
                    yield pool.submit(self.load, want.index, want.halvings)

            pending: deque[Future[TrainingFrame]] = deque()
            for _ in range(AHEAD):
                pending.extend(submit())
            while pending:
                frame = pending.popleft().result()
                pending.extend(submit())
                yield frame
