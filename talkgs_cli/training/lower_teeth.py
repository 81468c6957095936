"""Where a speaker's lower teeth are: the head model only guesses it from the shape of the face.

Where they are too low they hide behind the lip, and the tongue has to draw them. So the
row is moved along the jaw until what the mesh shows as teeth is what is bright in open mouths. The
upper row stays: it belongs to the skull, on which the landmarks of the upper face lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.metrics.lips import opening
from talkgs_cli.rendering.mesh import rasterize_mesh
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.landmark_points import LIPS_INNER
from talkgs_cli.types import REGIONS, Tracking

LOOKS = 48  # frames looked at
OPEN_SHARE = 0.2  # of the frames, those with the widest mouths, they are spread over
MIDDLE = 0.5  # of the mouth's width; towards the corners teeth lie in shadow
REACH_M = 0.005
STEP_M = 0.0005
COST_PER_M = 30.0  # in correlation: of two places as good as each other, the nearer
WORTH_IT = 0.1  # of correlation, without which they stay where the model has them
TEETH = ("upper_teeth", "lower_teeth")
DRAWN = (*TEETH, "tongue", "mouth_interior", "lips")
LEAST_PIXELS = 500  # inside all mouths together; fewer tell nothing


@dataclass(frozen=True)
class _Look:
    """An open mouth, cut out of a frame.

    Attributes:
        camera: [V', 3] vertices of its surroundings, in the camera, metres.
        rise: [V', 3] how far they move there if the lower teeth rise by a metre.
        intrinsics: [3, 3] pixels of the cut-out.
        inside: [h, w] bool, between the lips and near the middle.
        brightness: [n] of those pixels.
    """

    camera: NDArray[np.float64]
    rise: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    inside: NDArray[np.bool_]
    brightness: NDArray[np.float64]

    def teeth_at(
        self, height_m: float, faces: NDArray[np.int64], teeth: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """[n] 1 where the mesh shows teeth, the lower ones moved by so much."""
        camera = self.camera + height_m * self.rise
        pixels = camera @ self.intrinsics.T
        points = np.column_stack([pixels[:, :2] / pixels[:, 2:], camera[:, 2]])
        height, width = self.inside.shape
        triangle, _ = rasterize_mesh(points, faces, (height, width))
        return ((triangle >= 0) & teeth[triangle])[self.inside].astype(np.float64)


def find_lower_teeth(
    speaker: SpeakerFolder, tracking: Tracking, head: SpeakerHead, frames: list[int]
) -> float:
    """Find them in the frames with the widest mouths.

    Args:
        speaker: Its crop frames are looked at.
        tracking: Of the whole clip.
        head: The speaker's head, teeth as the model has them.
        frames: Frames that may be learnt from.

    Returns:
        Metres above where the model has them; 0 where it has none, or the video shows none.
    """
    regions = head.head.face_regions.numpy()
    drawn = np.isin(regions, [REGIONS.index(name) for name in DRAWN])
    teeth = np.isin(regions[drawn], [REGIONS.index(name) for name in TEETH])
    vertices, faces = np.unique(head.head.faces.numpy()[drawn], return_inverse=True)
    looks = _looks(speaker, tracking, head, frames, vertices) if teeth.any() else []
    brightness = np.concatenate([look.brightness for look in looks] or [np.zeros(0)])
    if len(brightness) < LEAST_PIXELS:
        return 0.0

    def agreement(height_m: float) -> float:
        shown = np.concatenate([look.teeth_at(height_m, faces, teeth) for look in looks])
        if shown.min() == shown.max():
            return 0.0
        return float(np.corrcoef(shown, brightness)[0, 1])

    steps = np.arange(-round(REACH_M / STEP_M), round(REACH_M / STEP_M) + 1) * STEP_M
    worth = {height: agreement(height) for height in steps.tolist()}
    best = max(worth, key=lambda height: worth[height] - COST_PER_M * abs(height))
    return best if worth[best] - worth[0.0] > WORTH_IT else 0.0


def _looks(
    speaker: SpeakerFolder,
    tracking: Tracking,
    head: SpeakerHead,
    frames: list[int],
    vertices: NDArray[np.int64],
) -> list[_Look]:
    """The open mouths; `vertices` [V'] are those that are drawn."""
    amount = opening(tracking.landmarks)[frames]
    count = max(LOOKS, round(OPEN_SHARE * len(frames)))
    widest = np.sort(np.argsort(-amount)[:count])
    chosen = widest[np.unique(np.linspace(0, len(widest) - 1, LOOKS).astype(int))]
    whole = speaker.crop.intrinsics(tracking.intrinsics.numpy()).astype(np.float64)
    looks = []
    for index in (frames[place] for place in chosen):
        lips = speaker.crop.to_crop(tracking.landmarks[index][list(LIPS_INNER), :2])  # [20, 2]
        left, top = np.floor(lips.min(0)).astype(int)
        right, bottom = np.ceil(lips.max(0)).astype(int)
        if left < 0 or top < 0 or max(right, bottom) > speaker.crop.size:
            continue
        inside = _inside(lips - [left, top], (bottom - top, right - left))
        # Lips, tongue and gums are red: how bright green and blue are tells teeth from them.
        picture = speaker.frame(index)[top:bottom, left:right, 1:].min(axis=2)
        motion = tracking.motion.at(slice(index, index + 1))
        pose = motion.world_to_camera[0].numpy().astype(np.float64)
        posed = head.vertices(motion.expression, motion.jaw, motion.corrective)
        rise = head.raise_lower_teeth(posed, motion.jaw, 1.0) - posed
        looks.append(
            _Look(
                posed[0, vertices].numpy() @ pose[:3, :3].T + pose[:3, 3],
                rise[0, vertices].numpy() @ pose[:3, :3].T,
                whole - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]]),
                inside,
                picture[inside].astype(np.float64),
            )
        )
    return looks


def _inside(lips: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """[h, w] whether a pixel lies between the inner lips ([20, 2] pixels) and near the middle."""
    filled = np.zeros(size, np.uint8)
    cv2.fillPoly(filled, [np.round((lips - 0.5) * 16).astype(np.int32)], 1, shift=4)
    off = np.abs(np.arange(size[1]) + 0.5 - size[1] / 2)
    return filled.astype(bool) & (off < MIDDLE * size[1] / 2)
