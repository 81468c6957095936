"""`Avatar`: a fitted speaker that can be rendered.

It composes head, Gaussians and camera; it neither trains, reads audio nor touches real frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import in_parts
from talkgs_cli.heads import load_head
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.rendering import rasterize
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.rendering.gaussian_head import CODE_SIZE, GaussianHead
from talkgs_cli.rendering.grain import Grain
from talkgs_cli.runtime import atomic_path
from talkgs_cli.types import Crop, HeadMotion, Tracking

if TYPE_CHECKING:
    from talkgs_cli.speaker import SpeakerFolder

PRINCIPAL_COMPONENTS = CODE_SIZE - 3
FRAMES_AT_ONCE = 128  # whose landmarks are posed together
CODE_LIMIT = 3.5  # standard deviations; beyond them the blendshape network was never trained


@dataclass
class DrivingCode:
    """Turns a motion into the 16-d input of W_gamma: 13 principal components and the rotation.

    The components are those of the head-frame landmarks, lips and eyes weighted, over the training
    frames; all 16 numbers are standardised and clipped (our reading of the paper's 16-d input).

    Attributes:
        mean: [D] mean of the weighted landmark vector.
        components: [13, D].
        code_mean: [16].
        code_std: [16].
        landmark_weights: [L].
    """

    mean: Tensor
    components: Tensor
    code_mean: Tensor
    code_std: Tensor
    landmark_weights: Tensor

    @classmethod
    def fit(cls, points: Tensor, poses: Tensor, landmark_weights: Tensor) -> DrivingCode:
        """Learn the code from T frames of [L, 3] head-frame landmarks and [T, 4, 4] poses."""
        weighted = (points * landmark_weights[:, None]).flatten(1)  # [T, D]
        mean = weighted.mean(0)
        _, _, right = torch.linalg.svd(weighted - mean, full_matrices=False)
        found = min(PRINCIPAL_COMPONENTS, len(right))
        components = torch.zeros(PRINCIPAL_COMPONENTS, weighted.shape[1])
        components[:found] = right[:found]
        blank = torch.zeros(CODE_SIZE)
        code = cls(mean, components, blank, blank + 1, landmark_weights)
        raw = code._raw(points, poses)
        return cls(mean, components, raw.mean(0), raw.std(0).clamp_min(1e-6), landmark_weights)

    def _raw(self, points: Tensor, poses: Tensor) -> Tensor:
        weighted = (points * self.landmark_weights[:, None]).flatten(1)
        shape = (weighted - self.mean) @ self.components.T
        return torch.cat([shape, rotation_vectors(poses[:, :3, :3])], dim=1)

    def __call__(self, points: Tensor, poses: Tensor) -> Tensor:
        """[T, L, 3] landmarks and [T, 4, 4] poses to [T, 16] codes."""
        code = (self._raw(points, poses) - self.code_mean) / self.code_std
        return code.clamp(-CODE_LIMIT, CODE_LIMIT)


def rotation_vectors(rotations: Tensor) -> Tensor:
    """[T, 3, 3] rotations to [T, 3] axis-angle, relative to looking straight into the camera."""
    from scipy.spatial.transform import Rotation

    facing = np.diag([1.0, -1.0, -1.0])  # head y up, z out of the face; camera y down, z forward
    relative = rotations.double().numpy() @ facing
    return torch.from_numpy(Rotation.from_matrix(relative).as_rotvec()).float()


class Avatar:
    """A speaker ready to be rendered, frame by frame, in crop pixels."""

    def __init__(
        self,
        head: SpeakerHead,
        gaussians: GaussianHead,
        code: DrivingCode,
        tracking: Tracking,
        crop: Crop,
        grain: float = 0.0,
        exposure: Exposure | None = None,
    ) -> None:
        self.head = head
        self.gaussians = gaussians
        self.code = code
        self.tracking = tracking
        self.crop = crop
        self.grain = Grain(grain, crop.size)
        self.exposure = exposure or Exposure()
        intrinsics = crop.intrinsics(tracking.intrinsics.numpy())
        self.intrinsics = torch.from_numpy(intrinsics).float()  # [3, 3]

    # -- files -----------------------------------------------------------------------------------

    @classmethod
    def load(cls, speaker: SpeakerFolder) -> Avatar:
        """Load the finished fit of a speaker.

        Raises:
            BadInput: the speaker is not fitted, or the fit belongs to another head.
        """
        from safetensors import safe_open

        speaker.require_fit()
        with safe_open(speaker.gaussians, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = file.metadata()
        tracking = speaker.load_tracking()
        if meta["head"] != tracking.head:
            raise BadInput(
                f"{speaker.gaussians} was fitted to the {meta['head']} head, "
                f"the tracking uses {tracking.head}.",
                hint=f"Run: talkgs fit {speaker.path} --force",
            )
        code = DrivingCode(
            **{name[5:]: state.pop(name) for name in list(state) if name.startswith("code.")}
        )
        # Fits from before there were such things have none of them.
        grain = float(state.pop("grain", 0.0))
        gains = state.pop("exposure", None)
        exposure = Exposure(None if gains is None else gains.numpy())
        head = speaker_head(tracking, float(state.pop("lower_teeth_m", 0.0)))
        gaussians = GaussianHead.from_state(state)
        return cls(head, gaussians, code, tracking, speaker.crop, grain, exposure)

    def save(self, path: Path) -> None:
        """Write the deployable part: Gaussians, networks, driving code, teeth, grain, exposure."""
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in self.gaussians.state_dict().items()}
        state |= {f"code.{name}": value.contiguous() for name, value in vars(self.code).items()}
        state["grain"] = torch.tensor(self.grain.strength)
        state["lower_teeth_m"] = torch.tensor(self.head.lower_teeth_m)
        if self.exposure.gains is not None:
            state["exposure"] = torch.from_numpy(self.exposure.gains)
        with atomic_path(path) as partial:
            save_file(state, partial, {"head": self.tracking.head})

    # -- rendering -------------------------------------------------------------------------------

    def codes(self, motion: HeadMotion) -> Tensor:
        """[T, 16] driving codes of a motion, in pieces: memory hardly grows with its length."""
        codes = torch.empty(len(motion), CODE_SIZE)
        for rows in in_parts(len(motion), FRAMES_AT_ONCE):
            part = motion.at(rows)
            codes[rows] = self.code(posed_landmarks(self.head, part), part.world_to_camera)
        return codes

    @torch.no_grad()
    def render(self, motion: HeadMotion) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Yield (rgb [S, S, 3] premultiplied by alpha, alpha [S, S]) of each frame of a motion.

        They are in the clip's average light; `exposure` lays them on a frame.
        """
        device = self.gaussians.offset.device
        black, intrinsics = torch.zeros(1, 3, device=device), self.intrinsics[None].to(device)
        for start in range(0, len(motion), 64):
            part = motion.at(slice(start, start + 64))
            codes = self.codes(part)
            for t in range(len(part)):
                at = slice(t, t + 1)
                vertices = self.head.vertices(
                    part.expression[at], part.jaw[at], part.corrective[at]
                )[0]
                posed = self.gaussians(vertices.to(device), codes[t].to(device))
                colors, alphas, _ = rasterize(
                    posed.means,
                    posed.quats,
                    posed.scales,
                    posed.opacities,
                    posed.colors,
                    part.world_to_camera[at].to(device),
                    intrinsics,
                    self.crop.size,
                    self.crop.size,
                    sh_degree=self.gaussians.sh_degree,
                    backgrounds=black,
                )
                rgb, alpha = colors[0].cpu().numpy(), alphas[0, ..., 0].cpu().numpy()
                self.grain.lay(rgb, alpha, part.world_to_camera[t].numpy().tobytes())
                yield rgb, alpha

    def reference_for(self, motion: HeadMotion, candidates: range) -> int:
        """The candidate frame whose head pose is nearest to the first frame of `motion`.

        A radian counts as much as the head's own size, so that turns and shifts weigh alike.
        """
        poses = self.tracking.motion.world_to_camera[candidates.start : candidates.stop]
        probe = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])  # [4, 3] metres

        def moved(pose: Tensor) -> Tensor:
            return probe @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]

        distance = (moved(poses) - moved(motion.world_to_camera[:1])).square().sum((1, 2))
        valid = self.tracking.valid[candidates.start : candidates.stop]
        distance = torch.where(valid, distance, torch.inf)
        return candidates.start + int(distance.argmin())


def speaker_head(tracking: Tracking, lower_teeth_m: float = 0.0) -> SpeakerHead:
    """The head model with the identity and correctives that `prepare` found.

    Args:
        tracking: What `prepare` found.
        lower_teeth_m: How far above the model's `fit` found the lower teeth.
    """
    head = load_head(tracking.head)
    return SpeakerHead(head, tracking.shape, tracking.corrective_basis, lower_teeth_m)


def posed_landmarks(head: SpeakerHead, motion: HeadMotion) -> Tensor:
    """[T, L, 3] landmarks of a motion, metres, posed in pieces: posing takes many times their size.

    Args:
        head: The speaker's head.
        motion: T frames.
    """
    pieces = []
    for start in range(0, len(motion), FRAMES_AT_ONCE):
        part = motion.at(slice(start, start + FRAMES_AT_ONCE))
        pieces.append(head.landmarks(part.expression, part.jaw, part.corrective))
    return torch.cat(pieces)
