"""The demo video's true motion on disk, and how far a tracking is from it; it makes no motion."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from talkgs_cli.errors import BadInput
from talkgs_cli.heads import load_head
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    IRISES,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
    inter_ocular_px,
)
from talkgs_cli.runtime import atomic_path
from talkgs_cli.types import HeadMotion

if TYPE_CHECKING:
    from talkgs_cli.types import Tracking

TENSORS = (
    "expression",
    "jaw",
    "world_to_camera",
    "landmarks",
    "landmark_index",
    "opening",
    "intrinsics",
)


@dataclass(frozen=True)
class DemoTruth:
    """What really moved in T frames of the demo video.

    Attributes:
        expression: [T, E] of the open head.
        jaw: [T, 3] axis-angle, radians; +x opens.
        world_to_camera: [T, 4, 4].
        landmarks: [T, L, 2] pixels.
        landmark_index: [L] which of the tracker's 478 points.
        opening: [T] distance of the inner lips, pixels.
        intrinsics: [3, 3] pixels.
        frame_rate: Frames per second.
    """

    expression: Tensor
    jaw: Tensor
    world_to_camera: Tensor
    landmarks: Tensor
    landmark_index: Tensor
    opening: Tensor
    intrinsics: Tensor
    frame_rate: Fraction

    def __len__(self) -> int:
        return len(self.jaw)

    @property
    def motion(self) -> HeadMotion:
        """The same as a `HeadMotion` without correctives."""
        return HeadMotion(
            self.expression, self.jaw, torch.zeros(len(self), 0), self.world_to_camera
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file; the same truth gives the same bytes."""
        from safetensors.torch import save_file

        with atomic_path(path) as partial:
            save_file(
                {name: getattr(self, name).contiguous() for name in TENSORS},
                partial,
                {"frame_rate": str(self.frame_rate)},
            )

    @classmethod
    def load(cls, path: Path) -> DemoTruth:
        """Read what `save` wrote."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                rate = Fraction(file.metadata()["frame_rate"])
                return cls(**{name: file.get_tensor(name) for name in TENSORS}, frame_rate=rate)
        except (SafetensorError, OSError) as error:
            raise BadInput(
                f"{path} can't be read as the truth of a demo video.",
                hint="Remove the demo folder and run: talkgs demo",
            ) from error


def truth_path(video: Path) -> Path:
    """Where the truth of a demo video lies: beside it."""
    return video.with_name(f"{video.stem}.truth.safetensors")


def truth_error(truth: DemoTruth, tracking: Tracking) -> dict[str, float]:
    """How far a tracking of the demo video is from what really moved.

    Returns:
        jaw_correlation: Of the jaw angle over time.
        opening_correlation: Of the distance of the inner lips.
        pose_degrees: Mean angle between true and tracked rotation, each from its own mean pose.
        jaw_degrees: Mean difference of the jaw angles, each from its own mean.
        expression_iod: Mean distance of the deformations of the two heads at the landmarks (irises
            aside), each from its own mean face, as a share of the distance of the outer eye
            corners; `expression_moved_iod` is how far the true landmarks move.
        landmark_iod: Mean distance of tracked from true points (irises aside), as a share of the
            distance of the outer eye corners.
        fitted_landmark_iod: The same for the landmarks of the fitted head.
    """
    from talkgs_cli.tracking.head_fitting import projected_landmarks

    count = min(len(truth), len(tracking))
    seen = torch.from_numpy(tracking.landmarks[:count, :, :2])
    counted = ~torch.isin(truth.landmark_index, torch.tensor(IRISES))
    distance = (seen[:, truth.landmark_index] - truth.landmarks[:count])[:, counted].norm(dim=-1)
    eyes = torch.from_numpy(inter_ocular_px(tracking.landmarks[:count]))
    opening = (seen[:, INNER_LIP_UPPER] - seen[:, INNER_LIP_LOWER]).norm(dim=-1)
    true_turn = _from_mean(truth.world_to_camera[:count, :3, :3])
    seen_turn = _from_mean(tracking.motion.world_to_camera[:count, :3, :3])
    head = load_head(tracking.head)
    fitted = projected_landmarks(head, tracking)[:count]
    own = {int(point): row for row, point in enumerate(head.landmark_index)}
    shared = counted & torch.tensor([int(point) in own for point in truth.landmark_index])
    rows = torch.tensor([own[int(point)] for point in truth.landmark_index[shared]])
    off = (fitted[:, rows] - truth.landmarks[:count, shared]).norm(dim=-1)
    moved, apart = _deformations(truth, tracking, rows, shared)
    jaws = [jaw[:count, 0] - jaw[:count, 0].mean() for jaw in (truth.jaw, tracking.motion.jaw)]
    return {
        "jaw_correlation": _correlation(truth.jaw[:count, 0], tracking.motion.jaw[:count, 0]),
        "opening_correlation": _correlation(truth.opening[:count], opening),
        "pose_degrees": float(torch.rad2deg(_angle(true_turn, seen_turn)).mean()),
        "landmark_iod": float((distance.mean(1) / eyes).mean()),
        "jaw_degrees": float(torch.rad2deg(jaws[0] - jaws[1]).abs().mean()),
        "expression_iod": apart,
        "expression_moved_iod": moved,
        "fitted_landmark_iod": float((off.mean(1) / eyes).mean()),
    }


def _deformations(
    truth: DemoTruth, tracking: Tracking, rows: Tensor, shared: Tensor
) -> tuple[float, float]:
    """How far the true face's landmarks move, and how far the tracked face's move differs."""
    count = min(len(truth), len(tracking))
    face = OpenHead.load()
    true_head = SpeakerHead(
        face, torch.zeros(face.shape_count), torch.zeros(0, *face.template.shape)
    )
    seen_head = SpeakerHead(load_head(tracking.head), tracking.shape, tracking.corrective_basis)
    no_correctives = torch.zeros(count, 0)
    true = true_head.landmarks(truth.expression[:count], truth.jaw[:count], no_correctives)
    motion = tracking.motion.at(slice(0, count))
    seen = seen_head.landmarks(motion.expression, motion.jaw, motion.corrective)

    def bend(points: Tensor, index: Tensor) -> Tensor:
        right, left = (int((index == c).nonzero()[0]) for c in (OUTER_EYE_RIGHT, OUTER_EYE_LEFT))
        mean = points.mean(0)
        return (points - mean) / (mean[right] - mean[left]).norm()

    true = bend(true, truth.landmark_index)[:, shared]
    seen = bend(seen, seen_head.head.landmark_index)[:, rows]
    return float(true.norm(dim=-1).mean()), float((true - seen).norm(dim=-1).mean())


def _correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]).double())[0, 1])


def _from_mean(rotations: Tensor) -> Tensor:
    """[T, 3, 3] rotations relative to their mean, so that different rest poses do not count."""
    left, _, right = torch.linalg.svd(rotations.double().mean(0))
    return rotations.double() @ (left @ right).T


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """[T] radians between rotations; exact for small angles, unlike the arc cosine."""
    chord = (first - second).norm(dim=(1, 2)) / 8**0.5
    return 2 * torch.asin(chord.clamp(max=1))
