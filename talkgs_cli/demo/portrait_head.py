"""The open head laid onto the demo's photograph: identity, pose, and where each vertex lies in it.

One picture cannot tell a face's depth, so the identity is held close to the mean and what the head
cannot express is added as a fixed displacement in the image plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from talkgs_cli.landmark_points import BLENDSHAPE_NAMES, IRISES, LIPS_INNER, LIPS_OUTER
from talkgs_cli.types import REGIONS, HeadModel, project

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from talkgs_cli.demo.portrait import Portrait

FOCAL_SIDES = 5.0  # focal length in picture sides: a portrait lens
STEPS = 300
# Metres, head frame: brings the head's teeth to where the photograph shows them.
TEETH_SHIFT_M = {
    "upper_teeth": (0.0, -0.0042, 0.001),
    "lower_teeth": (0.0, -0.0030, -0.001),
    "tongue": (0.0, -0.0030, -0.001),
}
RIGID = ("upper_teeth", "lower_teeth", "tongue", "mouth_interior", "eyes")


@dataclass(frozen=True)
class PortraitHead:
    """A head that coincides with the photograph.

    Attributes:
        head: The head model.
        shape: [S] identity.
        expression: [1, E] of the photograph.
        jaw: [1, 3] of the photograph, radians.
        world_to_camera: [1, 4, 4] of the photograph.
        intrinsics: [3, 3] of the photograph, in units of its side.
        correction: [V, 3] metres, added to every frame.
        texture: [V, 2] where each vertex lies in the photograph, in units of its side.
    """

    head: HeadModel
    shape: Tensor
    expression: Tensor
    jaw: Tensor
    world_to_camera: Tensor
    intrinsics: Tensor
    correction: Tensor
    texture: NDArray[np.float32]

    def vertices(self, expression: Tensor, jaw: Tensor) -> Tensor:
        """[T, V, 3] metres, of [T, E] expressions and [T, 3] jaws."""
        return self.head.vertices(self.shape, expression, jaw) + self.correction


def landmarks_of(head: HeadModel, vertices: Tensor) -> Tensor:
    """[T, L, 3] the tracker's points on [T, V, 3] vertices."""
    corners = vertices[:, head.landmark_vertices]  # [T, L, 3, 3]
    return (corners * head.landmark_weights[:, :, None]).sum(2)


def fit_portrait(head: HeadModel, portrait: Portrait) -> PortraitHead:
    """Find identity, expression and pose of the photograph; deterministic."""
    side = portrait.image.shape[0]
    target = torch.from_numpy(portrait.landmarks[head.landmark_index.numpy(), :2]) / side  # [L, 2]
    intrinsics = torch.tensor([[FOCAL_SIDES, 0, 0.5], [0, FOCAL_SIDES, 0.5], [0, 0, 1]])
    weight = _weights(head)
    start = _start_expression(head, portrait)
    low, high = head.expression_range.T
    shape = torch.zeros(head.shape_count, requires_grad=True)
    expression = start.clone().requires_grad_()
    jaw = torch.zeros(1, 3, requires_grad=True)
    pose = _start_pose(head, target).requires_grad_()

    def projected() -> Tensor:
        vertices = head.vertices(shape, expression.clamp(low, high)[None], jaw)
        return project(landmarks_of(head, vertices), _camera(pose), intrinsics)[0]

    for step in range(STEPS):
        if step in (0, STEPS // 4):
            parts = [{"params": [pose], "lr": 1e-2}]
            if step:
                parts[0]["lr"] = 3e-3
                parts += [{"params": [shape, expression], "lr": 3e-2}]
                parts += [{"params": [jaw], "lr": 5e-3}]
            optimizer = torch.optim.Adam(parts)
        distance = (projected() - target).norm(dim=1) / 0.01
        loss = (weight * distance).mean() + 0.02 * shape.square().mean() * len(shape) ** 0.5
        loss = loss + 0.05 * (expression - start).square().sum() + 2 * jaw[0, 1:].square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        residual = target - projected()
        found = expression.clamp(low, high)[None]
        camera = _camera(pose)
        vertices = head.vertices(shape, found, jaw)
        correction = _correction(head, vertices, camera, intrinsics, residual)
        texture = project(vertices + correction, camera, intrinsics)[0].numpy()
    return PortraitHead(
        head, shape.detach(), found, jaw.detach(), camera, intrinsics, correction, texture
    )


def _weights(head: HeadModel) -> Tensor:
    """[L] how much each landmark counts."""
    index = head.landmark_index
    weight = torch.ones(len(index))
    weight[torch.isin(index, torch.tensor(LIPS_INNER + LIPS_OUTER))] = 3.0
    weight[torch.isin(index, torch.tensor(IRISES))] = 0.0
    return weight


def _start_expression(head: HeadModel, portrait: Portrait) -> Tensor:
    """[E] the landmarker's own scores, where the head has a unit of that name."""
    scores = dict(zip(BLENDSHAPE_NAMES, portrait.blendshapes.tolist(), strict=True))
    values = [scores.get(name, 0.0) for name in head.blendshape_names]
    return torch.tensor(values).clamp(*head.expression_range.T)


def _start_pose(head: HeadModel, target: Tensor) -> Tensor:
    """[6] rotation vector and translation that put the mean head where the landmarks are."""
    rest = head.vertices(
        torch.zeros(head.shape_count), torch.zeros(1, head.expression_count), torch.zeros(1, 3)
    )
    points = landmarks_of(head, rest)[0]
    spread = points[:, :2].std(0).mean() / target.std(0).mean()
    depth = FOCAL_SIDES * spread
    centre = (target.mean(0) - 0.5) * depth / FOCAL_SIDES
    middle = points.mean(0)
    shift = [centre[0] - middle[0], centre[1] + middle[1], depth + middle[2]]
    return torch.cat([torch.full((3,), 1e-3), torch.stack(shift)])


def _camera(pose: Tensor) -> Tensor:
    """[1, 4, 4] world-to-camera of a [6] pose; no rotation looks straight at the face."""
    x, y, z = pose[:3]
    zero = torch.zeros(())
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotation = facing @ torch.linalg.matrix_exp(skew)
    top = torch.cat([rotation, pose[3:, None]], dim=1)
    return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])[None]


def _correction(
    head: HeadModel, vertices: Tensor, camera: Tensor, intrinsics: Tensor, residual: Tensor
) -> Tensor:
    """[V, 3] metres: the [L, 2] landmark residual spread over the skin, parallel to the image."""
    used = _weights(head) > 0
    at_landmarks = project(landmarks_of(head, vertices), camera, intrinsics)[0, used].numpy()
    at_vertices = project(vertices, camera, intrinsics)[0].numpy()
    at_landmarks, first = np.unique(at_landmarks.round(5), axis=0, return_index=True)
    spread = RBFInterpolator(
        at_landmarks, residual[used].numpy()[first], neighbors=60, smoothing=1e-4, kernel="linear"
    )
    low, high = at_landmarks.min(0) - 0.02, at_landmarks.max(0) + 0.02
    shift = torch.from_numpy(spread(np.clip(at_vertices, low, high))).float()
    shift = shift * _softness(head)[:, None]
    depth = (vertices[0] @ camera[0, :3, :3].T + camera[0, :3, 3])[:, 2:]
    in_camera = torch.cat([shift * depth / FOCAL_SIDES, torch.zeros_like(depth)], dim=1)
    correction = in_camera @ camera[0, :3, :3]
    for name, offset in TEETH_SHIFT_M.items():
        corners = head.faces[head.face_regions == REGIONS.index(name)].flatten()
        correction[corners] = torch.tensor(offset)
    return correction


def _softness(head: HeadModel) -> Tensor:
    """[V] 1 on skin and lips, 0 on vertices that belong only to teeth, tongue, eyes."""
    soft = torch.zeros(int(head.faces.max()) + 1)
    rigid = torch.isin(head.face_regions, torch.tensor([REGIONS.index(name) for name in RIGID]))
    soft[head.faces[~rigid].flatten()] = 1.0
    return soft
