"""Bounded, robust Gauss-Newton over a sequence: per-frame pose, expression, jaw; one identity.

Frames are linearised in chunks, so memory does not grow with the clip. It knows no files, no
videos and no correctives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from talkgs_cli.tracking.landmark_rig import LandmarkRig, table_at
from talkgs_cli.types import project

CHUNK = 32  # frames linearised at once: 2 MB each; more of them fit no cache and take longer
POSE = 6  # rotation, translation
JAW_RANGE_RAD = ((-0.02, 0.55), (-0.12, 0.12), (-0.06, 0.06))


@dataclass(frozen=True)
class SolverWeights:
    """What the energy of one frame is made of; landmark residuals count in % of the eye distance.

    The energy is the sum over landmarks of w sqrt(r^2 + soft^2), plus the terms below.
    """

    # Where a residual turns from quadratic to linear, % of the inter-ocular distance.
    soft: float = 0.5
    # Per unit of expression, of coefficients that are not negative: few units explain a frame.
    sparsity: float = 4.0
    # Per squared unit of expression: units that cancel each other stay small.
    ridge: float = 8.0
    # Per squared difference of expression from its neighbours' mean.
    expression_smoothness: float = 120.0
    # Per squared radian of difference of the jaw from its neighbours' mean.
    jaw_smoothness: float = 4000.0
    # Differences well beyond these are real (a blink, a plosive) and are let go.
    expression_jump: float = 0.06
    jaw_jump: float = 0.02
    # Per squared radian of the jaw's swing and roll.
    jaw_sideways: float = 20_000.0
    # Per squared standard deviation of identity, for each keyframe, and half of it at that: this
    # term alone enters the normal equations without the factor two of a square's slope.
    identity: float = 12.0
    # Levenberg-Marquardt damping, relative to the curvature.
    damping: float = 1e-3


@dataclass
class FrameState:
    """Per-frame unknowns of N frames.

    Attributes:
        expression: [N, E].
        jaw: [N, 3] radians.
        rotation: [N, 3, 3] head frame to camera.
        translation: [N, 3] metres, camera.
    """

    expression: Tensor
    jaw: Tensor
    rotation: Tensor
    translation: Tensor

    def at(self, index: Tensor | slice) -> FrameState:
        """Pick frames."""
        return FrameState(
            self.expression[index], self.jaw[index], self.rotation[index], self.translation[index]
        )

    def copy(self) -> FrameState:
        """Tensors of their own."""
        return FrameState(*(value.clone() for value in vars(self).values()))

    def put(self, part: slice, solved: FrameState) -> None:
        """Write some frames.

        Results that are collected in a list instead lie between the large arrays that come and go,
        and the memory of those can't be used again: 40 MB more for each five minutes of video.
        """
        for name, value in vars(self).items():
            value[part] = getattr(solved, name)

    def world_to_camera(self) -> Tensor:
        """[N, 4, 4]."""
        matrix = torch.eye(4).repeat(len(self.jaw), 1, 1)
        matrix[:, :3, :3], matrix[:, :3, 3] = self.rotation, self.translation
        return matrix


@dataclass(frozen=True)
class Observations:
    """What was seen of N frames.

    Attributes:
        points: [N, L, 2] landmarks, pixels, in the rig's order.
        weights: [L] importance of each landmark.
        eye_distance: Inter-ocular distance, pixels, the unit of residuals.
        intrinsics: [3, 3] camera, pixels.
    """

    points: Tensor
    weights: Tensor
    eye_distance: float
    intrinsics: Tensor

    def at(self, index: Tensor | slice) -> Observations:
        """Pick frames."""
        return Observations(self.points[index], self.weights, self.eye_distance, self.intrinsics)


class Seen(Protocol):
    """Where the observations of N frames come from; those of a whole clip need not be in memory."""

    def at(self, index: Tensor | slice) -> Observations:
        """Pick frames."""


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """[B, 3] axis-angle to [B, 3, 3]."""
    return torch.linalg.matrix_exp(_cross_matrix(axis_angle))


def _cross_matrix(v: Tensor) -> Tensor:
    zero = torch.zeros_like(v[..., 0])
    rows = [zero, -v[..., 2], v[..., 1], v[..., 2], zero, -v[..., 0], -v[..., 1], v[..., 0], zero]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


@dataclass
class _Linear:
    """One chunk's residuals [B, 2 L], their slopes [B, 2 L, P] and weights [B, 2 L]."""

    residual: Tensor
    slopes: Tensor
    weights: Tensor
    identity_slopes: Tensor  # [B, 2 L, S], S = 0 when the identity is known

    def curvature(self) -> Tensor:
        return self.slopes.transpose(1, 2) @ (self.slopes * self.weights[..., None])

    def gradient(self) -> Tensor:
        return torch.einsum("brp,br->bp", self.slopes, self.residual * self.weights)


def _linearise(
    rig: LandmarkRig,
    shape: Tensor,
    state: FrameState,
    seen: Observations,
    table: Tensor,
    identity_table: Tensor,
    soft: float,
) -> _Linear:
    points = rig.points(shape, state.expression, state.jaw)  # [B, L, 3] head frame
    turned = points @ state.rotation.transpose(1, 2)
    camera = turned + state.translation[:, None]
    unit = 100.0 / seen.eye_distance  # pixels to residual units
    pixels = project(points, state.world_to_camera(), seen.intrinsics)
    residual = (pixels - seen.points) * unit  # [B, L, 2]
    robust = seen.weights / (residual.square().sum(-1) + soft**2).sqrt()  # [B, L]

    focal = torch.stack([seen.intrinsics[0, 0], seen.intrinsics[1, 1]]) * unit
    depth = camera[..., 2:3]
    to_pixel = torch.zeros(*points.shape[:2], 2, 3)  # d pixel / d camera point
    to_pixel[..., 0, 0], to_pixel[..., 1, 1] = focal[0] / depth[..., 0], focal[1] / depth[..., 0]
    to_pixel[..., 2] = -camera[..., :2] / depth.square() * focal
    from_head = to_pixel @ state.rotation[:, None]  # [B, L, 2, 3]
    moves = table_at(table, state.jaw[:, 0])  # [B, L, 3, E + 3]
    slopes = torch.cat(
        [from_head @ moves, -to_pixel @ _cross_matrix(turned), to_pixel], dim=-1
    )  # [B, L, 2, P]
    identity = (from_head @ identity_table).flatten(1, 2)
    return _Linear(
        residual.flatten(1), slopes.flatten(1, 2), robust.repeat_interleave(2, 1), identity
    )


class SequenceSolver:
    """Gauss-Newton steps over frames, with bounds on expression and jaw.

    Args:
        rig: The head's landmarks.
        seen: What the tracker saw, N frames.
        weights: The energy.
    """

    def __init__(self, rig: LandmarkRig, seen: Seen, weights: SolverWeights) -> None:
        self._rig, self._seen, self._w = rig, seen, weights
        jaw_range = torch.tensor(JAW_RANGE_RAD)
        free = torch.full((POSE,), torch.inf)
        self._low = torch.cat([rig.expression_range[:, 0], jaw_range[:, 0], -free])
        self._high = torch.cat([rig.expression_range[:, 1], jaw_range[:, 1], free])

    def solve_frames(
        self, shape: Tensor, state: FrameState, rounds: int, advance: Callable[[int], None]
    ) -> FrameState:
        """Refine every frame for one identity; calls `advance` with the frames done."""
        table = self._rig.motion_table(shape)
        no_identity = torch.zeros(table.shape[1], 3, 0)
        for _ in range(rounds):
            coupled = _neighbour_mean(state)
            after = state.copy()
            for start in range(0, len(state.jaw), CHUNK):
                part = slice(start, start + CHUNK)
                now = state.at(part)
                linear = _linearise(
                    self._rig, shape, now, self._seen.at(part), table, no_identity, self._w.soft
                )
                curvature, gradient = self._with_priors(linear, now, coupled[part])
                step = self._bounded_step(curvature, gradient, now)
                after.put(part, self._moved(now, step))
                advance(len(now.jaw))
            state = after
        return state

    def solve_identity(
        self, shape: Tensor, state: FrameState, rounds: int, advance: Callable[[int], None]
    ) -> tuple[Tensor, FrameState]:
        """Refine one identity together with all frames given (keyframes: no temporal terms).

        The frames' unknowns are eliminated from the normal equations (Schur complement), so the
        shared step sees how pose and expression would answer.
        """
        identity_table = self._rig.identity_table()
        for _ in range(rounds):
            table = self._rig.motion_table(shape)
            count = len(state.jaw)
            shared_curvature = torch.eye(len(shape)) * self._w.identity * count
            shared_gradient = shape * self._w.identity * count
            solved = []
            for start in range(0, count, CHUNK):
                part = slice(start, start + CHUNK)
                now = state.at(part)
                linear = _linearise(
                    self._rig, shape, now, self._seen.at(part), table, identity_table, self._w.soft
                )
                curvature, gradient = self._with_priors(linear, now, None)
                cross = linear.slopes.transpose(1, 2) @ (
                    linear.identity_slopes * linear.weights[..., None]
                )  # [B, P, S]
                curvature, gradient, cross = self._pin(curvature, gradient, cross, now)
                answer = _solve(curvature, torch.cat([gradient[..., None], cross], dim=-1))
                shared_curvature = shared_curvature + (
                    torch.einsum(
                        "brs,brt->st",
                        linear.identity_slopes,
                        linear.identity_slopes * linear.weights[..., None],
                    )
                    - torch.einsum("bps,bpt->st", cross, answer[..., 1:])
                )
                shared_gradient = shared_gradient + (
                    torch.einsum(
                        "brs,br->s", linear.identity_slopes, linear.residual * linear.weights
                    )
                    - torch.einsum("bps,bp->s", cross, answer[..., 0])
                )
                solved.append((now, answer))
            change = -torch.linalg.solve(shared_curvature, shared_gradient)
            shape = shape + change
            state = joined(
                [
                    self._moved(now, -answer[..., 0] - answer[..., 1:] @ change)
                    for now, answer in solved
                ]
            )
            advance(1)
        return shape, state

    def _with_priors(
        self, linear: _Linear, now: FrameState, coupled: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Normal equations of a chunk with sparsity, jaw and temporal terms: [B, P, P], [B, P]."""
        w, count = self._w, self._rig.expression_count
        curvature, gradient = linear.curvature(), linear.gradient()
        values = torch.cat([now.expression, now.jaw], dim=1)
        stiffness = torch.full((count + 3,), 2 * w.ridge)
        stiffness[count:] = torch.tensor([0.0, 2 * w.jaw_sideways, 2 * w.jaw_sideways])
        pull = values * stiffness
        pull[:, :count] += w.sparsity * (self._low[:count] >= 0)
        if coupled is not None:
            smooth = torch.full((count + 3,), 2 * w.expression_smoothness)
            smooth[count:] = 2 * w.jaw_smoothness
            jump = torch.full((count + 3,), w.expression_jump)
            jump[count:] = w.jaw_jump
            apart = values - coupled
            smooth = smooth / (1 + (apart / jump).square())
            pull = pull + apart * smooth
            stiffness = stiffness + smooth  # [B, E + 3]
        gradient[:, : count + 3] += pull
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        diagonal[:, : count + 3] += stiffness
        diagonal += w.damping * diagonal
        return curvature, gradient

    def _pin(
        self, curvature: Tensor, gradient: Tensor, cross: Tensor, now: FrameState
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take the unknowns that press against a bound out of the equations."""
        values = self._values(now)
        held = ((values <= self._low) & (gradient > 0)) | ((values >= self._high) & (gradient < 0))
        loose = (~held).float()
        curvature = curvature * loose[:, :, None] * loose[:, None, :]
        curvature.diagonal(dim1=1, dim2=2).add_(held.float())
        return curvature, gradient * loose, cross * loose[..., None]

    def _bounded_step(self, curvature: Tensor, gradient: Tensor, now: FrameState) -> Tensor:
        """Minimise the quadratic within the bounds by projected Gauss-Seidel restarts: [B, P]."""
        values = self._values(now)
        low, high = self._low - values, self._high - values
        step = torch.zeros_like(gradient)
        for _ in range(3):
            slope = gradient + (curvature @ step[..., None])[..., 0]
            held = ((step <= low) & (slope > 0)) | ((step >= high) & (slope < 0))
            loose = (~held).float()
            system = curvature * loose[:, :, None] * loose[:, None, :]
            system.diagonal(dim1=1, dim2=2).add_(held.float())
            change = _solve(system, (slope * loose)[..., None])[..., 0]
            step = torch.maximum(torch.minimum(step - change, high), low)
        return step

    def _values(self, now: FrameState) -> Tensor:
        """Current values of the bounded unknowns; pose counts from 0: [B, P]."""
        pose = torch.zeros(len(now.jaw), POSE)
        return torch.cat([now.expression, now.jaw, pose], dim=1)

    def _moved(self, now: FrameState, step: Tensor) -> FrameState:
        count = self._rig.expression_count
        values = (self._values(now) + step).clamp(self._low, self._high)
        turn = rotation_matrix(step[:, count + 3 : count + 6])
        return FrameState(
            values[:, :count],
            values[:, count : count + 3],
            turn @ now.rotation,
            now.translation + step[:, count + 6 :],
        )


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Solve batched symmetric systems; unknowns are scaled first, as metres meet radians."""
    scale = system.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    scaled = system * scale[:, :, None] * scale[:, None, :]
    return torch.linalg.solve(scaled, right * scale[..., None]) * scale[..., None]


def _neighbour_mean(state: FrameState) -> Tensor:
    """Mean of the frames before and after: [N, E + 3]; the ends look at themselves."""
    values = torch.cat([state.expression, state.jaw], dim=1)
    before = torch.cat([values[:1], values[:-1]])
    after = torch.cat([values[1:], values[-1:]])
    return (before + after) / 2


def joined(parts: list[FrameState]) -> FrameState:
    """The frames of all parts, one after the other."""
    return FrameState(
        torch.cat([part.expression for part in parts]),
        torch.cat([part.jaw for part in parts]),
        torch.cat([part.rotation for part in parts]),
        torch.cat([part.translation for part in parts]),
    )
