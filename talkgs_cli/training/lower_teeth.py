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
from talkgs_cli.landmark_points import LIPS_INNER
from talkgs_cli.metrics.lips import opening
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.rendering.mesh import rasterize_mesh
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import REGIONS, Tracking

LOOKS = 48  # frames looked at
OPEN_SHARE = 0.2  # of the frames, those with the widest mouths, they are spread over
MIDDLE = 0.5  # of the mouth's width; towards the corners teeth lie in shadow
REACH_M = 0.005
STEP_M = 0.0005
COST_PER_M = 30.0  # in correlation: of two places as good as each other, the nearer
WORTH_IT = 0.1  # of correlation, without which they stay where the model has them
WHITE = 0.6  # of their red, at least, is what half of the teeth's pixels have of green and blue
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
        colours: [n, 3] red, green, blue of those pixels.
    """

    camera: NDArray[np.float64]
    rise: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    inside: NDArray[np.bool_]
    colours: NDArray[np.float64]

    def teeth_at(
        self, height_m: float, faces: NDArray[np.int64], teeth: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """[n] whether the mesh shows teeth there, the lower ones moved by so much."""
        camera = self.camera + height_m * self.rise
        pixels = camera @ self.intrinsics.T
        points = np.column_stack([pixels[:, :2] / pixels[:, 2:], camera[:, 2]])
        height, width = self.inside.shape
        triangle, _ = rasterize_mesh(points, faces, (height, width))
        return np.asarray(((triangle >= 0) & teeth[triangle])[self.inside])


def find_lower_teeth(
    speaker: SpeakerFolder,
    tracking: Tracking,
    head: SpeakerHead,
    frames: list[int],
    exposure: Exposure,
) -> float:
    """Find them in the frames with the widest mouths.

    Args:
        speaker: Its crop frames are looked at.
        tracking: Of the whole clip.
        head: The speaker's head, teeth as the model has them.
        frames: Frames that may be learnt from.
        exposure: Their light.

    Returns:
        Metres above where the model has them; 0 where it has none, or the video shows none.
    """
    regions = head.head.face_regions.numpy()
    drawn = np.isin(regions, [REGIONS.index(name) for name in DRAWN])
    teeth = np.isin(regions[drawn], [REGIONS.index(name) for name in TEETH])
    vertices, faces = np.unique(head.head.faces.numpy()[drawn], return_inverse=True)
    looks = _looks(speaker, tracking, head, frames, exposure, vertices) if teeth.any() else []
    colours = np.concatenate([look.colours for look in looks] or [np.zeros((0, 3))])
    # Lips, tongue and gums are red: how bright green and blue are tells teeth from them.
    brightness = colours[:, 1:].min(axis=1)
    if len(brightness) < LEAST_PIXELS or np.ptp(brightness) == 0:
        return 0.0

    def shown(height_m: float) -> NDArray[np.bool_]:
        return np.concatenate([look.teeth_at(height_m, faces, teeth) for look in looks])

    def agreement(height_m: float) -> float:
        there = shown(height_m)
        if there.all() or not there.any():
            return 0.0
        return float(np.corrcoef(there, brightness)[0, 1])

    last = round(REACH_M / STEP_M)
    heights = [step * STEP_M for step in range(-last, last + 1)]
    agreed = {height: agreement(height) for height in heights}
    best = max(heights, key=lambda height: agreed[height] - COST_PER_M * abs(height))
    if best in (heights[0], heights[-1]) or agreed[best] - agreed[0.0] < WORTH_IT:
        return 0.0
    # A tongue that is brighter than the throat behind it agrees as well.
    whiteness = np.median((brightness / colours[:, 0].clip(1))[shown(best)])
    return best if whiteness > WHITE else 0.0


def _looks(
    speaker: SpeakerFolder,
    tracking: Tracking,
    head: SpeakerHead,
    frames: list[int],
    exposure: Exposure,
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
        picture = exposure.moved(speaker.frame(index)[top:bottom, left:right], index)
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
