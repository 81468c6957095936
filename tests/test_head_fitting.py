from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from talkgs_cli.errors import BadInput
from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.landmark_points import BLENDSHAPE_NAMES
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.tracking.head_fitting import (
    _smooth_pose,
    _takes,
    default_intrinsics,
    fit_head,
    projected_landmarks,
)
from talkgs_cli.tracking.pose_solver import FrameState
from talkgs_cli.tracking.track_error import reprojection_error
from talkgs_cli.types import project

FRAMES = 48
SIZE = (400, 400)
NOISE_PX = 0.25
UPPER_LIP, LOWER_LIP = 13, 14


class Truth:
    """A head that nods, turns, talks and blinks once, seen by a noisy landmarker."""

    def __init__(self, head: OpenHead) -> None:
        generator = torch.Generator().manual_seed(7)
        time = torch.arange(FRAMES) / 25
        self.shape = torch.randn(head.shape_count, generator=generator) * 0.4
        self.jaw = torch.zeros(FRAMES, 3)
        self.jaw[:, 0] = 0.12 * (1 - torch.cos(2 * np.pi * 2.1 * time))  # 0 to 0.24 rad
        self.expression = torch.zeros(FRAMES, head.expression_count)
        self.expression[30:33, head.expression_names.index("eyeBlinkLeft")] = 0.8
        self.expression[30:33, head.expression_names.index("eyeBlinkRight")] = 0.8
        seconds = time.numpy()
        turns = np.sin(seconds[:, None] * np.array([3, 2, 1])) * np.array([0.1, 0.25, 0.05])
        towards_camera = Rotation.from_euler("x", 180, degrees=True)
        self.rotation = towards_camera * Rotation.from_rotvec(turns)
        self.intrinsics = default_intrinsics(SIZE, 3.0)
        self.world_to_camera = torch.eye(4).repeat(FRAMES, 1, 1)
        self.world_to_camera[:, :3, :3] = torch.from_numpy(self.rotation.as_matrix()).float()
        self.world_to_camera[:, 0, 3] = 0.02 * torch.sin(time)
        self.world_to_camera[:, 2, 3] = 0.8
        points = (
            head.vertices(self.shape, self.expression, self.jaw)[:, head.landmark_vertices]
            * head.landmark_weights[..., None]
        ).sum(dim=2)
        pixels = project(points, self.world_to_camera, self.intrinsics)
        camera = points @ self.world_to_camera[:, :3, :3].transpose(1, 2)
        noise = torch.randn(pixels.shape, generator=generator) * NOISE_PX
        depth = camera[..., 2:] * self.intrinsics[0, 0] / 0.8
        self.landmarks = torch.cat([pixels + noise, depth], dim=-1).numpy()  # [T, 478, 3]
        self.blendshapes = np.zeros((FRAMES, 52), np.float32)

    def fit(self, head, valid=None, landmarks=None, cuts=None):
        return fit_head(
            head,
            self.landmarks if landmarks is None else landmarks,
            self.blendshapes,
            BLENDSHAPE_NAMES,
            np.ones(FRAMES, dtype=bool) if valid is None else valid,
            SIZE,
            25.0,
            SilentProgress(),
            cuts=cuts,
        )


@pytest.fixture(scope="module")
def head(require_assets) -> OpenHead:
    require_assets("makehuman")
    return OpenHead.load()


@pytest.fixture(scope="module")
def truth(head) -> Truth:
    return Truth(head)


@pytest.fixture(scope="module")
def tracking(head, truth):
    return truth.fit(head)


def rotations(tracking):
    return Rotation.from_matrix(tracking.motion.world_to_camera[:, :3, :3].double().numpy())


def test_the_known_pose_is_recovered(truth, tracking):
    apart = rotations(tracking) * truth.rotation.inv()
    common = apart.mean()  # pitch and identity trade off a little, alike in all frames
    assert common.magnitude() < np.radians(4)
    assert np.degrees((common.inv() * apart).magnitude()).mean() < 0.7


def test_the_known_jaw_is_recovered(truth, tracking):
    ours, real = tracking.motion.jaw[:, 0].numpy(), truth.jaw[:, 0].numpy()
    assert np.corrcoef(ours, real)[0, 1] > 0.97
    assert np.abs((ours - ours.mean()) - (real - real.mean())).mean() < np.radians(1.5)


def test_the_fitted_head_meets_the_landmarks_and_steadies_them(head, truth, tracking):
    error = reprojection_error(head, tracking)
    assert error["mean"] < 0.6  # % of the eye distance; the noise alone is about 0.3
    assert error["lips"] < 0.6
    assert error["jitter_px"] < error["raw_jitter_px"]
    bare = replace(
        tracking, motion=replace(tracking.motion, corrective=0 * tracking.motion.corrective)
    )
    assert error["mean"] < reprojection_error(head, bare)["mean"] < 1.5


def test_a_blink_of_three_frames_is_kept(head, tracking):
    points = projected_landmarks(head, tracking)
    opening = (points[:, 145] - points[:, 159])[:, 1]
    assert opening[31] < 0.25 * opening[:25].mean()


def test_lips_that_close_stay_closed(head, truth, tracking):
    def gap(points):
        return points[:, LOWER_LIP, 1] - points[:, UPPER_LIP, 1]

    ours = gap(projected_landmarks(head, tracking)).numpy()
    seen = gap(truth.landmarks)
    closed = truth.jaw[:, 0].numpy() < 0.01
    assert closed.any()
    assert np.abs(ours[closed] - seen[closed]).max() < 1.5  # pixels; wide open is about 25
    assert np.corrcoef(ours, seen)[0, 1] > 0.99


def test_expressions_stay_within_their_range(head, tracking):
    low, high = head.expression_range.T
    assert (tracking.motion.expression >= low - 1e-6).all()
    assert (tracking.motion.expression <= high + 1e-6).all()


def test_the_mean_residual_is_the_last_corrective_and_always_on(head, tracking):
    assert tracking.corrective_basis.shape[1:] == head.template.shape
    assert tracking.motion.corrective.shape[1] == len(tracking.corrective_basis)
    assert tracking.mouth_correctives == 12
    assert (tracking.motion.corrective[:, -1] == 1).all()


def test_correctives_leave_bone_and_eyeballs_alone_and_mouth_modes_spare_the_brows(head, tracking):
    from talkgs_cli.types import REGIONS

    basis = tracking.corrective_basis
    for region in ("upper_teeth", "lower_teeth", "tongue", "eyes"):
        faces = head.faces[head.face_regions == REGIONS.index(region)]
        assert (basis[:, torch.unique(faces)] == 0).all()
    moved = basis[:, head.landmark_vertices[:, 0]].norm(dim=-1)  # [C, L]
    mouth = moved[: tracking.mouth_correctives]
    assert mouth[:, [105, 334]].max() < 0.1 * mouth[:, [UPPER_LIP, LOWER_LIP]].max()


def test_the_motion_of_frames_without_a_face_is_interpolated(head, truth, tracking):
    valid = np.ones(FRAMES, dtype=bool)
    valid[[0, 10, 11, 40]] = False
    landmarks = truth.landmarks.copy()
    landmarks[~valid] = np.nan
    with_holes = truth.fit(head, valid, landmarks)
    for part in (
        with_holes.motion.expression,
        with_holes.motion.jaw,
        with_holes.motion.corrective,
        with_holes.motion.world_to_camera,
    ):
        assert torch.isfinite(part).all()
    assert with_holes.valid.tolist() == valid.tolist()
    apart = (rotations(with_holes) * rotations(tracking).inv()).magnitude()
    assert np.degrees(apart).max() < 2


def test_turning_the_picture_turns_the_pose(head, truth, tracking):
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = truth.landmarks.copy()
    middle = np.array(SIZE)[::-1] / 2
    turned[..., :2] = (turned[..., :2] - middle) @ turn.T + middle
    again = truth.fit(head, landmarks=turned.astype(np.float32))
    expected = Rotation.from_rotvec([0, 0, angle]) * rotations(tracking)
    assert np.degrees((rotations(again) * expected.inv()).magnitude()).max() < 0.5
    torch.testing.assert_close(again.motion.jaw, tracking.motion.jaw, atol=0.02, rtol=0)


def test_a_video_without_a_face_is_refused(head, truth):
    with pytest.raises(BadInput, match="only 1 of 48 frames"):
        truth.fit(head, np.arange(FRAMES) == 3)


def seen_state(turns: np.ndarray, across: np.ndarray) -> FrameState:
    """Poses that turn about the vertical (radians) and shift sideways (metres): [N] each."""
    count = len(turns)
    rotation = Rotation.from_rotvec(turns[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    translation = np.stack([across, 0 * across, 0 * across + 0.8], axis=1)
    return FrameState(
        torch.zeros(count, 2),
        torch.zeros(count, 3),
        torch.from_numpy(rotation).float(),
        torch.from_numpy(translation).float(),
    )


def test_one_take_is_smoothed_as_a_whole_to_the_bit() -> None:
    generator = np.random.default_rng(3)
    turns, across = generator.normal(size=(2, 40)) * [[0.05], [0.01]]
    state = seen_state(turns, across)
    wanted = gaussian_filter1d(state.translation.double().numpy(), 0.6, axis=0, mode="nearest")
    quaternions = Rotation.from_matrix(state.rotation.numpy()).as_quat()
    quaternions = gaussian_filter1d(quaternions, 0.6, axis=0, mode="nearest")
    smooth = _smooth_pose(state, 0.6, _takes(np.arange(40), np.array([], int)))
    assert np.array_equal(smooth.translation.numpy(), wanted.astype(np.float32))
    matrices = Rotation.from_quat(quaternions).as_matrix().astype(np.float32)
    assert np.array_equal(smooth.rotation.numpy(), matrices)


@pytest.mark.parametrize("sigma", [0.6, 1.44])  # 25 and 60 frames a second
@pytest.mark.parametrize("how", ["cut", "gap"])
def test_the_pose_beside_a_cut_or_a_gap_knows_nothing_of_the_other_side(
    sigma: float, how: str
) -> None:
    generator = np.random.default_rng(5)
    turns, across = generator.normal(size=(2, 40)) * [[0.02], [0.002]]
    state = seen_state(turns + 0.5 * (np.arange(40) > 19), across + 0.2 * (np.arange(40) > 19))
    used, cuts = np.arange(40), np.array([20])
    if how == "gap":
        used, cuts = np.where(used < 20, used, used + 30), np.array([], int)
    smooth = _smooth_pose(state, sigma, _takes(used, cuts))
    for half in (slice(0, 20), slice(20, 40)):
        alone = _smooth_pose(state.at(half), sigma, [slice(0, 20)])
        assert torch.equal(smooth.translation[half], alone.translation)
        assert torch.equal(smooth.rotation[half], alone.rotation)


def test_a_cut_costs_no_accuracy_of_the_frames_beside_it(head, truth, tracking) -> None:
    """The same motion, from another place in the second half of the picture."""
    landmarks = truth.landmarks.copy()
    landmarks[24:, :, 0] += 60
    cut = truth.fit(head, landmarks=landmarks, cuts=np.array([24]))
    x = cut.motion.world_to_camera[:, 0, 3]
    moved_m = 60 * 0.8 / float(truth.intrinsics[0, 0])
    error = (x - truth.world_to_camera[:, 0, 3] - moved_m * (torch.arange(FRAMES) >= 24)).abs()
    beside, usual = error[22:26].max(), error.median()
    assert beside < 0.03 * moved_m
    assert beside < usual + 0.02 * moved_m
