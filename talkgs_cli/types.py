"""The shapes that pass between modules: camera, crop, motion, tracking, the head-model protocol.

It holds data and the arithmetic that defines it; nothing here reads files or trains.

Conventions: lengths in metres, head frame = world frame (x to the subject's left, y up, z out of
the face); OpenCV cameras (x right, y down, z forward); pixel centres at +0.5; quaternions wxyz.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.frame_rows import Rows

REGIONS = (
    "skin",
    "lips",
    "mouth_interior",
    "upper_teeth",
    "lower_teeth",
    "tongue",
    "eyes",
    "ears",
    "scalp",
    "neck",
)
"""Names of the mesh regions; `HeadModel.face_regions` holds indices into this tuple."""

LABELS = {"background": 0, "person": 1, "neck": 2, "skin": 3, "mouth": 4, "eyes": 5}
"""Values of a label image (media/labels): what each pixel of a crop frame shows.

`person` is hair, clothes and torso; `neck` the strip under the jaw that the renderer also covers;
`skin`, `mouth` (inside the inner lips) and `eyes` (inside the lids) make up the face.
"""


class HeadModel(Protocol):
    """A parametric head. Everything downstream asks it for its sizes; nothing assumes FLAME's."""

    name: str
    shape_count: int
    expression_count: int
    expression_names: tuple[str, ...]
    expression_range: Tensor  # [E, 2] lowest and highest sensible value
    mouth_expression: Tensor  # [E] bool: the coordinates that speech moves
    blendshape_names: tuple[
        str, ...
    ]  # ARKit name per expression coordinate, "" where there is none
    faces: Tensor  # [F, 3] int64
    face_regions: Tensor  # [F] int64, indices into REGIONS
    landmark_index: Tensor  # [L] int64: which of the tracker's 478 points
    landmark_vertices: Tensor  # [L, 3] int64
    landmark_weights: Tensor  # [L, 3] barycentric

    def vertices(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Pose the head in its own frame.

        Args:
            shape: [S] or [B, S] identity coefficients, about unit variance.
            expression: [B, E] expression coefficients.
            jaw: [B, 3] axis-angle of the jaw, radians; +x opens.

        Returns:
            [B, V, 3] vertices, metres, head frame.
        """

    def only(self, vertices: Tensor) -> HeadModel:
        """The same head with only the [K] vertices named; without faces and landmarks."""

    def settle(self, shape: Tensor) -> HeadModel:
        """The same head with the identity `shape` [S] built in; its own S is 0."""


@dataclass(frozen=True)
class Crop:
    """The fixed square of the original frame that is tracked, fitted and pasted back.

    Attributes:
        left: Left edge in the original frame, whole pixels.
        top: Top edge in the original frame, whole pixels.
        side: Side in original pixels.
        size: Side of the stored crop frames in pixels (side resampled to size).
    """

    left: int
    top: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Crop pixels per original pixel."""
        return self.size / self.side

    def to_crop(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map [..., 2] original-frame pixels to crop pixels (both with centres at +0.5)."""
        return (points - np.array([self.left, self.top], points.dtype)) * self.scale

    def intrinsics(self, intrinsics: NDArray[np.floating]) -> NDArray[np.floating]:
        """Move the original frame's [3, 3] intrinsics into the crop."""
        moved = intrinsics.copy()
        moved[0, 2] -= self.left
        moved[1, 2] -= self.top
        moved[:2] *= self.scale
        return moved


@dataclass
class HeadMotion:
    """How the head of one speaker moves over T frames.

    Attributes:
        expression: [T, E] expression coefficients.
        jaw: [T, 3] axis-angle, radians.
        corrective: [T, C] coefficients of the speaker's corrective shapes.
        world_to_camera: [T, 4, 4] head frame to camera, metres.
    """

    expression: Tensor
    jaw: Tensor
    corrective: Tensor
    world_to_camera: Tensor

    def __len__(self) -> int:
        return len(self.expression)

    def at(self, index: Tensor | NDArray[np.integer] | slice) -> HeadMotion:
        """Pick frames."""
        return HeadMotion(
            self.expression[index],
            self.jaw[index],
            self.corrective[index],
            self.world_to_camera[index],
        )


@dataclass
class Tracking:
    """What `prepare` found out about the head; float32, original-frame pixels.

    Attributes:
        landmarks: [T, 478, 3] tracked points: x, y in pixels, z in pixels relative to the face;
            the largest array of a clip, so it stays on disk.
        blendshapes: [T, 52] ARKit scores of the landmarker, in its own order.
        valid: [T] bool, frames to use. False where no face was seen, and the other fields are
            interpolated; and where something covers the mouth, and they are as tracked.
        intrinsics: [3, 3] camera of the original frame, pixels.
        shape: [S] identity of the speaker.
        motion: Per-frame expression, jaw, correctives and pose.
        corrective_basis: [C, V, 3] metres; the first `mouth_correctives` move with speech.
        mouth_correctives: How many of the correctives belong to the mouth.
        head: Name of the head model.
    """

    landmarks: Rows
    blendshapes: Tensor
    valid: Tensor
    intrinsics: Tensor
    shape: Tensor
    motion: HeadMotion
    corrective_basis: Tensor
    mouth_correctives: int
    head: str

    def __len__(self) -> int:
        return len(self.landmarks)


@dataclass
class VideoInfo:
    """What ffmpeg says of a video, after rotation.

    Attributes:
        size: (height, width) as displayed.
        frame_rate: Average rate.
        duration_s: Seconds.
        has_audio: Whether there is a sound stream.
        constant_rate: False when the container says the rate varies.
    """

    size: tuple[int, int]
    frame_rate: Fraction
    duration_s: float
    has_audio: bool
    constant_rate: bool = True


def project(points: Tensor, world_to_camera: Tensor, intrinsics: Tensor) -> Tensor:
    """Project points with a pinhole camera.

    Args:
        points: [B, P, 3] world points, metres.
        world_to_camera: [B, 4, 4].
        intrinsics: [3, 3], pixels.

    Returns:
        [B, P, 2] pixels, centres at +0.5.
    """
    camera = points @ world_to_camera[:, :3, :3].transpose(1, 2) + world_to_camera[:, None, :3, 3]
    focal = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    return camera[..., :2] / camera[..., 2:] * focal + intrinsics[:2, 2]


def pack_mouth(motion: HeadMotion, mouth_expression: Tensor, mouth_correctives: int) -> Tensor:
    """The part of a motion that speech drives, as one vector a frame.

    Args:
        motion: T frames.
        mouth_expression: [E] bool of the head model.
        mouth_correctives: How many of the correctives belong to the mouth.

    Returns:
        [T, M]: mouth expression, jaw, mouth correctives.
    """
    return torch.cat(
        [
            motion.expression[:, mouth_expression],
            motion.jaw,
            motion.corrective[:, :mouth_correctives],
        ],
        dim=1,
    )


def unpack_mouth(
    mouth: Tensor, rest: HeadMotion, mouth_expression: Tensor, mouth_correctives: int
) -> HeadMotion:
    """Put a mouth vector into a motion: everything but the mouth is kept from `rest`.

    Args:
        mouth: [T, M] as `pack_mouth` makes it.
        rest: T frames that give pose, eyes, brows.
        mouth_expression: [E] bool of the head model.
        mouth_correctives: How many of the correctives belong to the mouth.
    """
    count = int(mouth_expression.sum())
    expression, corrective = rest.expression.clone(), rest.corrective.clone()
    expression[:, mouth_expression] = mouth[:, :count]
    corrective[:, :mouth_correctives] = mouth[:, count + 3 :]
    return HeadMotion(expression, mouth[:, count : count + 3], corrective, rest.world_to_camera)
