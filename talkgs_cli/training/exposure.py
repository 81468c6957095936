"""Measures how the light changes in a clip: skin, point by point, against its usual colour.

Learning it beside the Gaussians does not work: their blendshapes would explain the light by the
mouth that went with it. So it is measured before the fit, from pixels alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.heads import load_head
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.surface_points import SurfacePoints
from talkgs_cli.types import LABELS, HeadMotion, Tracking, project

POINTS = 1000
FACING = 0.35  # cosine of the steepest angle at which a point is looked at
BLUR_PX = 5  # pores and noise are not light
MEASURABLE = (8, 250)  # 8-bit steps; what is darker or clipped tells no ratio
LEARNING_FRAMES = 200
ROUNDS = 3  # usual colours and gains in turn
LEAST_POINTS = 20
# A clip whose gains spread less than this is lit steadily: turning the head makes as much.
STEADY = 0.015
CHUNK = 64  # frames at once
WORKERS = 2

Floats = NDArray[np.float32]


def measure_exposure(
    speaker: SpeakerFolder, tracking: Tracking, frames: list[int], progress: Progress
) -> Exposure:
    """Look at the skin of some frames and, where the light changes, of all.

    Round the mouth nothing is looked at: what is said must not change the light.

    Args:
        speaker: Its crop frames are looked at.
        tracking: Of the whole clip.
        frames: Those that may be learnt from: their mean is the average light.
        progress: Told where the light changes.

    Returns:
        A gain for every frame; those without a face get their neighbours'.
    """
    skin = _Skin(speaker, tracking)
    places = np.unique(np.linspace(0, len(frames) - 1, LEARNING_FRAMES).astype(int))
    usual, gains = _usual(skin.colours(np.asarray(frames)[places]))
    known = np.isfinite(gains).all(axis=1)
    average = gains[known].mean(axis=0) if known.any() else np.zeros(3, np.float32)
    spread = float(np.sqrt(np.square(gains[known] - average).mean())) if known.any() else 0.0
    if spread < STEADY:
        return Exposure()
    progress.note(f"The light of this clip changes by {100 * spread:.0f} %: the face follows it.")
    seen = np.flatnonzero(tracking.valid.numpy())
    found = np.empty((len(seen), 3), np.float32)
    with progress.stage("Measuring the light", len(seen)) as advance:
        for start in range(0, len(seen), CHUNK):
            part = seen[start : start + CHUNK]
            found[start : start + CHUNK] = _gains(skin.colours(part), usual) - average
            advance(len(part))
    known = np.isfinite(found).all(axis=1)
    every = np.arange(len(tracking.valid))
    logs = [np.interp(every, seen[known], found[known, channel]) for channel in range(3)]
    return Exposure(np.exp(np.stack(logs, axis=1)).astype(np.float32))


class _Skin:
    """Samples the colour of points on the skin."""

    def __init__(self, speaker: SpeakerFolder, tracking: Tracking) -> None:
        self.speaker, self.tracking = speaker, tracking
        settled = load_head(tracking.head).settle(tracking.shape)
        self.points = SurfacePoints(settled, tracking.corrective_basis, POINTS, seed=0)
        intrinsics = speaker.crop.intrinsics(tracking.intrinsics.numpy())
        self.intrinsics = torch.from_numpy(intrinsics).float()  # [3, 3]

    def colours(self, frames: NDArray[np.integer]) -> Floats:
        """[B, K, 3] logarithms of the colours; NaN where no skin is seen."""
        pixels, facing = self._projected(self.tracking.motion.at(torch.from_numpy(frames)))
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="light") as pool:
            return np.stack(list(pool.map(self._look, frames.tolist(), pixels, facing)))

    def _projected(self, motion: HeadMotion) -> tuple[Floats, NDArray[np.bool_]]:
        """[B, K, 2] pixels and [B, K] whether a point faces the camera, away from the mouth."""
        points, normals = self.points.posed(motion)
        pose = motion.world_to_camera
        pixels = project(torch.from_numpy(points), pose, self.intrinsics).numpy()
        camera = -(pose[:, :3, :3].mT @ pose[:, :3, 3:]).mT.numpy()  # [B, 1, 3] in the head's frame
        sight = points - camera
        facing = (normals * sight).sum(-1) < -FACING * np.linalg.norm(sight, axis=-1)
        return pixels, facing & ~self.points.round_mouth

    def _look(self, frame: int, pixels: Floats, facing: NDArray[np.bool_]) -> Floats:
        """[K, 3] of one frame."""
        image = cv2.blur(self.speaker.frame(frame), (BLUR_PX, BLUR_PX))
        skin = (self.speaker.label(frame) == LABELS["skin"]).astype(np.uint8)
        skin = np.asarray(cv2.erode(skin, np.ones((BLUR_PX, BLUR_PX))), np.uint8)
        place = (pixels - 0.5).astype(np.float32)[None]  # OpenCV counts pixel centres from 0
        x, y = place[..., 0], place[..., 1]
        seen = cv2.remap(skin, x, y, cv2.INTER_NEAREST)[0].astype(bool) & facing
        colours = cv2.remap(image, x, y, cv2.INTER_LINEAR)[0].astype(np.float32)
        told = seen[:, None] & (colours > MEASURABLE[0]) & (colours < MEASURABLE[1])
        return np.log(np.where(told, colours, np.float32(np.nan)))


def _usual(colours: Floats) -> tuple[Floats, Floats]:
    """([K, 3] usual logarithms of the points, [B, 3] of the gains), found in turn."""
    gains = np.zeros((len(colours), 3), np.float32)
    for _ in range(ROUNDS):
        usual = _median(colours - gains[:, None], axis=0)
        gains = _gains(colours, usual)
    return usual, gains


def _gains(colours: Floats, usual: Floats) -> Floats:
    """[B, 3] logarithms of the gains; NaN where too little skin is seen."""
    apart = colours - usual
    enough = np.isfinite(apart).sum(axis=1) >= LEAST_POINTS  # [B, 3]
    return np.where(enough, _median(apart, axis=1), np.float32(np.nan))


def _median(values: Floats, axis: int) -> Floats:
    """Median of what is known; NaN where nothing is."""
    hidden = np.ma.masked_invalid(values)
    return np.asarray(np.ma.median(hidden, axis=axis).filled(np.nan), np.float32)
