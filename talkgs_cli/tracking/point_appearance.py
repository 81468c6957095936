"""How points on the face look: samples of one frame, and what they look like over a clip.

It knows pixels and points in pixels, no head and no camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.types import LABELS

Floats = NDArray[np.float32]

FINE, COARSE = 0.012, 0.10  # band of detail that is compared, share of the eye distance
HUBER = 1.5  # standard deviations


@dataclass(frozen=True)
class Picture:
    """A crop frame, shrunk: brightness, blurred CIELAB colours and labels, uint8."""

    grey: NDArray[np.uint8]
    tint: NDArray[np.uint8]
    label: NDArray[np.uint8]

    @classmethod
    def of(cls, frame: NDArray[np.uint8], label: NDArray[np.uint8], scale: float) -> Picture:
        """Shrink a [S, S, 3] crop frame and its [S, S] labels by `scale`, at most 1."""
        if scale < 1:
            size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
            # Down to a half, four neighbours hold what an area does, in a fraction of the time.
            how = cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
            frame = np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8)
            marks = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
            label = np.asarray(marks, np.uint8)
        return cls(
            np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8),
            np.asarray(cv2.blur(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), (5, 5)), np.uint8),
            label,
        )


@dataclass(frozen=True)
class Band:
    """Brightness of a frame round the face, its slopes, where skin is; `corner`'s pixel centre."""

    value: Floats
    slope_x: Floats
    slope_y: Floats
    skin: Floats
    corner: Floats

    @classmethod
    def of(cls, picture: Picture, pixels: Floats, eye_px: float) -> Band:
        """Band-passed brightness round the face, and where its skin is."""
        grey, label = picture.grey, picture.label
        low = np.maximum(pixels.min(0) - 2 * COARSE * eye_px, 0).astype(int)
        high = np.ceil(np.maximum(pixels.max(0) + 2 * COARSE * eye_px, low + 3)).astype(int)
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        light = grey[window].astype(np.float32)
        fine = cv2.GaussianBlur(light, (0, 0), max(0.5, FINE * eye_px))
        band = fine - cv2.GaussianBlur(light, (0, 0), COARSE * eye_px)
        skin = (label[window] == LABELS["skin"]).astype(np.float32)
        # Scharr's weights sum to 32. A skin of 1 pixel less: its rim shows what is behind.
        return cls(
            np.asarray(band, np.float32),
            np.asarray(cv2.Scharr(band, cv2.CV_32F, 1, 0, scale=1 / 32), np.float32),
            np.asarray(cv2.Scharr(band, cv2.CV_32F, 0, 1, scale=1 / 32), np.float32),
            np.asarray(cv2.erode(skin, np.ones((3, 3))), np.float32),
            (low + 0.5).astype(np.float32),
        )

    def at(self, image: NDArray[Any], pixels: Floats, *, whole: bool = False) -> Floats:
        """Values at [K, 2] points (pixel centres at +0.5): [K] or [K, 3]."""
        if not len(pixels):  # OpenCV wants one point at least
            return np.zeros((0, *image.shape[2:]), np.float32)
        place = pixels - (0.5 if whole else self.corner)
        sampled = cv2.remap(image, place[None, :, 0], place[None, :, 1], cv2.INTER_LINEAR)
        return np.asarray(sampled[0], np.float32)


class Appearance:
    """Values of the points over the clip, brightness or one channel of colour: mean and spread.

    Args:
        count: Points.
        floor: No point is surer than this.
    """

    def __init__(self, count: int, floor: float) -> None:
        self.floor = floor
        self.mean = np.zeros(count, np.float32)
        self.deviation = np.full(count, np.inf, np.float32)

    def learn(self, values: Floats, seen: NDArray[np.bool_]) -> None:
        """Take mean and spread of [B, K] values where `seen`; points rarely seen are left out."""
        often = seen.sum(0)
        # From medians: a hand before the face for a fifth of the clip is no part of it.
        masked = np.where(seen, values, np.nan)
        masked[:, often == 0] = 0
        mean = np.nanmedian(masked, axis=0)
        deviation = 1.48 * np.nanmedian(np.abs(masked - mean), axis=0)
        for _ in range(2):
            apart = np.abs(values - mean) / (HUBER * deviation + 1e-6)
            weight = seen / np.maximum(1, apart)
            mean = (values * weight).sum(0) / np.maximum(weight.sum(0), 1e-6)
        enough = often >= max(3, 0.1 * len(values))
        self.mean = mean.astype(np.float32)
        noise = np.median(deviation[enough]) if enough.any() else np.inf
        spread = np.sqrt(deviation**2 + max(0.5 * noise, self.floor) ** 2)
        self.deviation = np.where(enough, spread, np.inf).astype(np.float32)
