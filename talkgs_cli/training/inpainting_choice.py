"""Which frame is to lie under which rendered one when the Inpainting Generator is trained.

In `speak` neck, collar and hair underneath are those of the very pose that is rendered, only the
mouth is another. Two frames of a clip never agree like that, and a network that sees them disagree
learns to distrust what is underneath: it put the render's collar beside the real one. So most pairs
are the rendered frame itself with the face of another; the rest agree round the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import LABELS, Tracking, project

Bytes = NDArray[np.uint8]

NEAREST = 24  # frames nearest in head rotation that are compared
BEST = 3  # of them, one of those that agree best is taken
FACE_ONLY = 0.8  # share of the pairs in which only the face is another frame's
OTHER_MOUTHS = 6  # of the nearest, those whose mouths differ most: one of them is taken then
APART_S = 0.2  # and at least so far away in time: its neighbours show the same mouth
MOST_CANDIDATES = 600  # frames compared at most; each is held as a thumbnail
THUMBNAIL = 64  # pixels
AROUND = 0.12  # of the crop's side: how far round the face frames have to agree
PROBES = 200  # vertices that tell how the head moved between two frames


@dataclass(frozen=True)
class Pair:
    """Frame numbers: the one that is rendered and aimed at, and the one underneath.

    Attributes:
        target: The frame that is rendered.
        reference: The frame underneath.
        face_only: Whether only its face lies underneath, in the target's own frame.
    """

    target: int
    reference: int
    face_only: bool = False


class Alignment:
    """How the head of one frame is brought onto the head of another, in the crop.

    Args:
        head: The speaker's head.
        tracking: Its motion.
        intrinsics: [3, 3] of the crop.
    """

    def __init__(self, head: SpeakerHead, tracking: Tracking, intrinsics: Tensor) -> None:
        seen = tracking.valid.nonzero()[:, 0]
        some = tracking.motion.at(seen[:: max(1, len(seen) // 100)])
        mean = head.vertices(some.expression, some.jaw, some.corrective).mean(0)  # [V, 3]
        skin = head.head.landmark_vertices.flatten().unique()
        self.probes = mean[skin[:: max(1, len(skin) // PROBES)]]  # [P, 3] metres
        self.poses = tracking.motion.world_to_camera
        self.intrinsics = intrinsics

    def __call__(self, pair: Pair) -> NDArray[np.float64]:
        """[2, 3] affine map from the reference's crop pixels to the target's."""
        both = torch.tensor([pair.reference, pair.target])
        points = project(self.probes.expand(2, -1, -1), self.poses[both], self.intrinsics)
        centred = points.double().numpy() - 0.5  # [2, P, 2]; OpenCV counts centres from 0
        columns = np.column_stack([centred[0], np.ones(len(centred[0]))])
        solution: NDArray[np.float64]
        solution, *_ = np.linalg.lstsq(columns, centred[1], rcond=None)
        return solution.T

    def nearest(self, target: int, candidates: Tensor, apart: int) -> Tensor:
        """[n] the candidates nearest in rotation, at least `apart` frames away."""
        far = candidates[(candidates - target).abs() >= apart]
        relative = self.poses[far, :3, :3] @ self.poses[target, :3, :3].T
        cosine = relative.diagonal(dim1=1, dim2=2).sum(1)  # 1 + 2 cos
        return far[(-cosine).argsort()[:NEAREST]]


class PairChooser:
    """Chooses faces with another mouth, and frames that agree with a target round the face.

    Args:
        speaker: Where the frames are.
        alignment: Brings one head onto another.
        openings: [T] how far the mouth is open in each frame of the clip.
        candidates: Frames that may lie underneath.
        exposure: Light of the clip's frames: what differs by it alone agrees.
    """

    def __init__(
        self,
        speaker: SpeakerFolder,
        alignment: Alignment,
        openings: NDArray[np.float64],
        candidates: Sequence[int],
        exposure: Exposure,
    ) -> None:
        self.speaker, self.alignment, self.openings = speaker, alignment, openings
        self.exposure = exposure
        step = max(1, -(-len(candidates) // MOST_CANDIDATES))
        self.candidates = torch.tensor(candidates[::step])
        self.apart = max(2, round(APART_S * float(speaker.frame_rate)))
        self.scale = THUMBNAIL / speaker.crop.size
        self.seen = {int(index): self._thumbnail(int(index)) for index in self.candidates}

    def choose(self, targets: Sequence[int], seed: int) -> list[Pair]:
        """A frame to lie under each target; targets that have none are left out.

        Args:
            targets: Frames to be rendered.
            seed: Seed of the choice among the best.
        """
        generator = torch.Generator().manual_seed(seed)
        pairs = []
        for target in targets:
            near = self.alignment.nearest(target, self.candidates, self.apart).tolist()
            face_only = bool(torch.rand((), generator=generator) < FACE_ONLY)
            options = [Pair(target, reference, face_only) for reference in near]
            options.sort(key=self.likeness_of_mouths if face_only else self.disagreement)
            if options:
                best = min(OTHER_MOUTHS if face_only else BEST, len(options))
                pick = int(torch.randint(best, (), generator=generator))
                pairs.append(options[pick])
        return pairs

    def likeness_of_mouths(self, pair: Pair) -> float:
        """The less alike the openings of the two mouths, the lower."""
        return -abs(float(self.openings[pair.target] - self.openings[pair.reference]))

    def disagreement(self, pair: Pair) -> float:
        """Mean difference of colours round the face, once the heads lie on each other."""
        target = self.seen.get(pair.target)
        target = self._thumbnail(pair.target) if target is None else target
        matrix = self.alignment(pair)
        matrix[:, 2] = (matrix[:, 2] + 0.5 - matrix[:, :2] @ [0.5, 0.5]) * self.scale
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
        moved = cv2.warpAffine(
            self.seen[pair.reference],
            matrix,
            (THUMBNAIL, THUMBNAIL),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        face = np.maximum(target[..., 3], np.asarray(moved)[..., 3]) > 127
        reach = 2 * round(AROUND * THUMBNAIL) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        around = (cv2.dilate(face.astype(np.uint8), kernel) > 0) & ~face
        difference = cv2.absdiff(target, np.asarray(moved, np.uint8))[..., :3]
        return float(difference[around].mean()) if around.any() else 0.0

    def _thumbnail(self, index: int) -> Bytes:
        """[64, 64, 4] colours, and the face as the fourth."""
        size = (THUMBNAIL, THUMBNAIL)
        colours = cv2.resize(self.speaker.frame(index), size, interpolation=cv2.INTER_AREA)
        face = (self.speaker.label(index) >= LABELS["neck"]).astype(np.uint8) * 255
        colours = self.exposure.moved(np.asarray(colours, np.uint8), index)
        return np.dstack([colours, cv2.resize(face, size, interpolation=cv2.INTER_AREA)])
