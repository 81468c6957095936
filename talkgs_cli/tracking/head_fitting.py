"""Fit a head model to the landmarks of a whole video: one identity, one camera, every frame's pose.

First the identity, on keyframes; then all frames, in chunks; then the speaker's correctives from
what is left over. It sees landmarks only, no pixels, and reads no files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import Rows, in_parts
from talkgs_cli.landmark_points import (
    EYES,
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    IRISES,
    LIPS_INNER,
    LIPS_OUTER,
    OUTER_EYE_LEFT,
    OUTER_EYE_RIGHT,
    OVAL,
)
from talkgs_cli.runtime import Progress, one_thread
from talkgs_cli.tracking.correctives import Spreading, learn_correctives
from talkgs_cli.tracking.landmark_rig import LandmarkRig
from talkgs_cli.tracking.pose_solver import (
    CHUNK,
    FrameState,
    Observations,
    Seen,
    SequenceSolver,
    SolverWeights,
)
from talkgs_cli.types import HeadModel, HeadMotion, Tracking, project

# Focal length over the longer side of the frame; 1.5 to 8 fit alike, see docs/heads.md.
FOCAL_PER_SIDE = 3.0
KEYFRAMES = (100, 240)  # at least, where there are so many, and at most
KEYFRAME_EVERY = 4
IDENTITY_ROUNDS = 7
FRAME_ROUNDS = 5  # three more change the error by a thousandth
LEARNING_FRAMES = 1500  # of which the correctives are learnt
POSE_SMOOTHING_S = 0.024  # 0.6 frames at 25 a second; more costs sharpness of the avatar
JAW_OPEN_RAD = 0.43  # first guess of the jaw at ARKit's jawOpen = 1
LIPS_WEIGHT, EYES_WEIGHT, OVAL_WEIGHT, IRIS_WEIGHT = 3.0, 1.5, 0.4, 0.7


@dataclass(frozen=True)
class _ClipObservations:
    """What was seen of the used frames, read from disk part by part: `pose_solver.Seen`."""

    landmarks: Rows
    used: NDArray[np.intp]
    marks: NDArray[np.int64]
    weights: Tensor
    eye_distance: float
    intrinsics: Tensor

    def at(self, index: Tensor | slice) -> Observations:
        """Pick frames, counted among the used ones."""
        rows = self.used[index if isinstance(index, slice) else index.numpy()]
        points = torch.from_numpy(self.landmarks[rows][:, self.marks, :2])
        return Observations(points, self.weights, self.eye_distance, self.intrinsics)


@one_thread()  # their number would show in the last digits
def fit_head(
    head: HeadModel,
    landmarks: Rows,
    blendshapes: NDArray[np.floating],
    blendshape_names: Sequence[str],
    valid: NDArray[np.bool_],
    image_size: tuple[int, int],
    frame_rate: float,
    progress: Progress,
    *,
    cuts: NDArray[np.integer] | None = None,
    focal_per_side: float = FOCAL_PER_SIDE,
    weights: SolverWeights | None = None,
) -> Tracking:
    """Fit the head to a tracked video.

    Args:
        head: The head model.
        landmarks: [T, 478, 3] pixels, z towards the scene. They and the scores become part of the
            tracking as they are; where not valid they are not looked at.
        blendshapes: [T, 52] scores of the landmarker.
        blendshape_names: Their names.
        valid: [T] frames that show one face.
        image_size: (height, width) of the frames the landmarks are in.
        frame_rate: Frames per second.
        progress: Told about two stages.
        cuts: Frames that begin a new take; None: it is one take.
        focal_per_side: Focal length over the longer side of the frame.
        weights: The energy; None for the tuned one.

    Returns:
        The tracking. The motion of frames that are not valid is interpolated. The last corrective
        is the mean residual, its coefficient is 1 in every frame.

    Raises:
        BadInput: fewer than two valid frames.
    """
    used = np.flatnonzero(valid)
    if len(used) < 2:
        raise BadInput(
            f"A face is visible in only {len(used)} of {len(valid)} frames.",
            hint="Use a clip in which one face is seen most of the time.",
        )
    weights = weights or SolverWeights()
    intrinsics = default_intrinsics(image_size, focal_per_side)
    rig = LandmarkRig(head)
    seen = _ClipObservations(
        landmarks,
        used,
        rig.index.numpy(),
        landmark_weights(rig.index),
        _eye_distance(landmarks, used),
        intrinsics,
    )
    state = _unknown(len(used), head.expression_count)
    for part in in_parts(len(used), CHUNK):
        marks, scores = landmarks[used[part]], blendshapes[used[part]]
        state.put(part, _first_guess(head, rig, marks, scores, blendshape_names, intrinsics))

    key_count = int(np.clip(len(used) // KEYFRAME_EVERY, *KEYFRAMES))
    keys = torch.from_numpy(np.unique(np.linspace(0, len(used) - 1, key_count).astype(int)))
    shape = torch.zeros(head.shape_count)
    with progress.stage("Fitting the head: identity", IDENTITY_ROUNDS) as advance:
        solver = SequenceSolver(rig, seen.at(keys), weights)
        shape, solved = solver.solve_identity(shape, state.at(keys), IDENTITY_ROUNDS, advance)
    settled_rig = rig.settle(shape)
    _start_from(state, keys, solved)
    with progress.stage("Fitting the head: pose", len(used) * FRAME_ROUNDS) as advance:
        solver = SequenceSolver(settled_rig, seen, weights)
        state = solver.solve_frames(torch.zeros(0), state, FRAME_ROUNDS, advance)

    state = _smooth_pose(state, POSE_SMOOTHING_S * frame_rate, _takes(used, cuts))
    correctives, basis, mouth_count = _correct(head.settle(shape), settled_rig, state, seen)
    everywhere = _spread_over_time(state, correctives, used, len(valid))
    return Tracking(
        landmarks=landmarks,
        blendshapes=torch.from_numpy(np.asarray(blendshapes, np.float32)),
        valid=torch.from_numpy(np.asarray(valid, dtype=bool)),
        intrinsics=intrinsics,
        shape=shape,
        motion=everywhere,
        corrective_basis=basis,
        mouth_correctives=mouth_count,
        head=head.name,
    )


def default_intrinsics(image_size: tuple[int, int], focal_per_side: float) -> Tensor:
    """A pinhole camera that looks at the middle of the frame: [3, 3] pixels."""
    height, width = image_size
    focal = focal_per_side * max(height, width)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def landmark_weights(index: Tensor) -> Tensor:
    """How much each landmark counts: lips and eyes more, the sliding face outline less: [L]."""
    weights = torch.ones(478)
    weights[list(OVAL)] = OVAL_WEIGHT
    weights[list(EYES)] = EYES_WEIGHT
    weights[list(IRISES)] = IRIS_WEIGHT
    weights[list(LIPS_OUTER + LIPS_INNER)] = LIPS_WEIGHT
    return weights[index]


def _eye_distance(landmarks: Rows, used: NDArray[np.integer]) -> float:
    across = landmarks[:, OUTER_EYE_LEFT, :2] - landmarks[:, OUTER_EYE_RIGHT, :2]
    return float(np.linalg.norm(across[used], axis=1).mean())


def _unknown(count: int, expressions: int) -> FrameState:
    """Room for N frames."""
    return FrameState(
        torch.zeros(count, expressions),
        torch.zeros(count, 3),
        torch.zeros(count, 3, 3),
        torch.zeros(count, 3),
    )


def _first_guess(
    head: HeadModel,
    rig: LandmarkRig,
    landmarks: NDArray[np.floating],
    blendshapes: NDArray[np.floating],
    names: Sequence[str],
    intrinsics: Tensor,
) -> FrameState:
    """Expression from the scores; pose from aligning the neutral head with the 3-D landmarks."""
    count = len(landmarks)
    scores = {name: torch.from_numpy(blendshapes[:, k]).float() for k, name in enumerate(names)}
    expression = torch.zeros(count, head.expression_count)
    for k, name in enumerate(head.blendshape_names):
        if name in scores:
            expression[:, k] = 0.5 * scores[name]
    jaw = torch.zeros(count, 3)
    if "jawOpen" in scores and "jawOpen" not in head.blendshape_names:
        jaw[:, 0] = JAW_OPEN_RAD * scores["jawOpen"]

    model = rig.points(torch.zeros(head.shape_count), expression[:1] * 0, jaw[:1] * 0)[0]
    model_centre = model.mean(0)
    target = torch.from_numpy(landmarks[:, rig.index.numpy()]).float()  # [N, L, 3]
    centre = target.mean(dim=1, keepdim=True)
    model_arms, target_arms = model - model_centre, target - centre
    left, values, right = torch.linalg.svd(target_arms.transpose(1, 2) @ model_arms)
    sign = torch.ones(count, 3)
    sign[:, 2] = torch.linalg.det(left @ right).sign()
    rotation = left @ torch.diag_embed(sign) @ right
    pixels_per_metre = (values * sign).sum(1) / model_arms.square().sum()  # [N]
    depth = intrinsics[0, 0] / pixels_per_metre
    across = (centre[:, 0, :2] - intrinsics[:2, 2]) / pixels_per_metre[:, None]
    translation = torch.cat([across, depth[:, None]], dim=1) - rotation @ model_centre
    return FrameState(expression, jaw, rotation, translation)


def _start_from(state: FrameState, keys: Tensor, solved: FrameState) -> None:
    """Start every frame from the expression and jaw of the keyframes around it, in place.

    Distance and size were settled together with the identity, so the depth moves along.
    """
    at = keys.numpy()

    def between(values: Tensor) -> Tensor:
        return _interpolated(values, at, len(state.jaw))

    state.expression = between(solved.expression)
    state.jaw = between(solved.jaw)
    ratio = solved.translation[:, 2] / state.translation[keys, 2]
    state.translation = state.translation * between(ratio[:, None])
    state.rotation[keys], state.translation[keys] = solved.rotation, solved.translation


def _takes(used: NDArray[np.integer], cuts: NDArray[np.integer] | None) -> list[slice]:
    """The used frames, counted among themselves, from one cut or gap to the next."""
    begins = np.diff(used) > 1
    if cuts is not None:
        begins |= np.isin(used[1:], cuts)
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), len(used)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _smooth_pose(state: FrameState, sigma_frames: float, takes: Sequence[slice]) -> FrameState:
    """Filter rotation and translation over time, lightly, and each take by itself.

    Across a cut, or what happened unseen, one frame tells nothing of the next.
    """
    turns = Rotation.from_matrix(state.rotation.numpy()).as_quat()  # [N, 4]
    flips = np.sign((turns[1:] * turns[:-1]).sum(1))
    turns[1:] *= np.cumprod(np.where(flips == 0, 1, flips))[:, None]
    translation = state.translation.double().numpy()
    for take in takes:
        for values in (turns, translation):
            values[take] = gaussian_filter1d(values[take], sigma_frames, axis=0, mode="nearest")
    rotation = Rotation.from_quat(turns).as_matrix()
    return FrameState(
        state.expression,
        state.jaw,
        torch.from_numpy(rotation).float(),
        torch.from_numpy(translation).float(),
    )


def _correct(
    settled: HeadModel, rig: LandmarkRig, state: FrameState, seen: Seen
) -> tuple[Tensor, Tensor, int]:
    """Learn correctives from what the fit leaves over: coefficients [N, C], basis, mouth count."""
    position = {int(mark): place for place, mark in enumerate(rig.index)}
    usable = torch.tensor([int(mark) not in IRISES for mark in rig.index])
    spreading = Spreading(
        settled,
        (position[OUTER_EYE_RIGHT], position[OUTER_EYE_LEFT]),
        (position[INNER_LIP_UPPER], position[INNER_LIP_LOWER]),
        [position[mark] for mark in EYES if mark in position],
        usable,
    )
    count = len(state.jaw)
    sample = torch.from_numpy(np.unique(np.linspace(0, count - 1, LEARNING_FRAMES).astype(int)))
    residual = torch.zeros(len(sample), int(usable.sum()), 3)
    for part in in_parts(len(sample), CHUNK):
        some = sample[part]
        residual[part] = _residual(rig, state.at(some), seen.at(some))[:, usable]
    learnt = learn_correctives(residual, spreading)
    found = torch.zeros(count, len(learnt.basis))
    for part in in_parts(count, CHUNK):
        found[part] = learnt.coefficients(_residual(rig, state.at(part), seen.at(part))[:, usable])
    return found, learnt.basis, learnt.mouth_count


def _residual(rig: LandmarkRig, state: FrameState, seen: Observations) -> Tensor:
    """What the head misses at its landmarks, within the image plane: [N, L, 3] m, head frame."""
    points = rig.points(torch.zeros(0), state.expression, state.jaw)
    missing = seen.points - project(points, state.world_to_camera(), seen.intrinsics)  # pixels
    depth = (points @ state.rotation.transpose(1, 2))[..., 2:] + state.translation[:, None, 2:]
    camera = torch.cat([missing * depth / seen.intrinsics[0, 0], torch.zeros_like(depth)], dim=-1)
    return camera @ state.rotation  # R^T applied to rows


def _spread_over_time(
    state: FrameState, correctives: Tensor, used: NDArray[np.integer], count: int
) -> HeadMotion:
    """Fill the frames without a face by interpolation."""
    turns = Rotation.from_matrix(state.rotation.double().numpy())
    wanted = np.clip(np.arange(count), used[0], used[-1])
    world_to_camera = torch.eye(4).repeat(count, 1, 1)
    world_to_camera[:, :3, :3] = torch.from_numpy(Slerp(used, turns)(wanted).as_matrix()).float()

    world_to_camera[:, :3, 3] = _interpolated(state.translation, used, count)
    expression, jaw, corrective = (
        _interpolated(values, used, count) for values in (state.expression, state.jaw, correctives)
    )
    return HeadMotion(expression, jaw, corrective, world_to_camera)


def _interpolated(values: Tensor, at: NDArray[np.integer], count: int) -> Tensor:
    """[N, D] values of the frames `at`, linearly to all frames: [count, D] float32."""
    found = torch.empty(count, values.shape[1])
    frames = np.arange(count)
    for column in range(values.shape[1]):  # whole, float64 would be the peak of a long clip
        line = np.interp(frames, at, values[:, column].numpy())
        found[:, column] = torch.from_numpy(line)
    return found


def projected_landmarks(head: HeadModel, tracking: Tracking, chunk: int = 256) -> Tensor:
    """Where the fitted head's landmarks fall: [T, L, 2] pixels, in `head.landmark_index` order."""
    return torch.cat([points for _, points in landmarks_in_parts(head, tracking, chunk)])


def landmarks_in_parts(
    head: HeadModel, tracking: Tracking, chunk: int = 256, overlap: int = 0
) -> Iterator[tuple[slice, Tensor]]:
    """The same, `chunk` frames at a time and `overlap` more: their slice and [B, L, 2] pixels."""
    corners, place = torch.unique(head.landmark_vertices, return_inverse=True)
    part_head = head.settle(tracking.shape).only(corners)
    basis = tracking.corrective_basis[:, corners]
    none = torch.zeros(0)
    for start in range(0, len(tracking), chunk):
        part = slice(start, start + chunk + overlap)
        motion = tracking.motion.at(part)
        posed = part_head.vertices(none, motion.expression, motion.jaw)
        posed = posed + torch.einsum("bc,cvd->bvd", motion.corrective, basis)
        points = (posed[:, place] * head.landmark_weights[..., None]).sum(dim=2)
        yield part, project(points, motion.world_to_camera, tracking.intrinsics)
