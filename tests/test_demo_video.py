"""The demo video against its own truth, and the truth against known answers."""

import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.runtime import SilentProgress

IOD_MEAN, IOD_LIPS = 0.025, 0.03  # measured 0.011 and 0.012 at 320 px


@pytest.fixture(scope="module")
def seen(demo_video):
    """[T, 478, 3] landmarks and [T, 52] scores of the encoded frames."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    found = [landmarker.track(frame) for frame in read_frames(demo_video.path)]
    assert all(face is not None for face in found)
    return np.stack([f.landmarks for f in found]), np.stack([f.blendshapes for f in found])


def test_video_is_as_long_as_asked_in_picture_and_sound(demo_video):
    from talkgs_cli.media.audio import read_audio
    from talkgs_cli.media.probe import probe
    from talkgs_cli.media.video import read_frames

    info = probe(demo_video.path)
    assert info.size == (demo_video.config.size, demo_video.config.size)
    assert info.frame_rate == Fraction(25)
    frames = sum(1 for _ in read_frames(demo_video.path))
    assert frames == len(demo_video.truth) == demo_video.config.duration_s * 25
    sound = read_audio(demo_video.path, 16000)
    assert abs(len(sound) / 16000 - demo_video.config.duration_s) < 0.1
    assert np.abs(sound).max() > 0.2


def test_frames_show_the_true_landmarks(demo_video, seen):
    from talkgs_cli.landmark_points import IRISES, LIPS_INNER, LIPS_OUTER, inter_ocular_px

    landmarks, _ = seen
    index = demo_video.truth.landmark_index.numpy()
    distance = np.linalg.norm(landmarks[:, index, :2] - demo_video.truth.landmarks.numpy(), axis=2)
    share = distance / inter_ocular_px(landmarks)[:, None]
    assert share[:, ~np.isin(index, IRISES)].mean() < IOD_MEAN
    assert share[:, np.isin(index, LIPS_INNER + LIPS_OUTER)].mean() < IOD_LIPS


def test_seen_mouth_follows_the_true_jaw(demo_video, seen):
    landmarks, _ = seen
    opening = np.linalg.norm(landmarks[:, 13, :2] - landmarks[:, 14, :2], axis=1)
    assert np.corrcoef(opening, demo_video.truth.opening.numpy())[0, 1] > 0.93
    assert np.corrcoef(opening, demo_video.truth.jaw[:, 0].numpy())[0, 1] > 0.9


def test_eyes_blink_when_they_should(demo_video, seen):
    from talkgs_cli.heads import load_head
    from talkgs_cli.landmark_points import BLENDSHAPE_NAMES

    _, scores = seen
    column = load_head("open").blendshape_names.index("eyeBlinkLeft")
    true = demo_video.truth.expression[:, column].numpy()
    score = scores[:, BLENDSHAPE_NAMES.index("eyeBlinkLeft")]
    assert score[true > 0.9].min() > 0.4
    assert score[true == 0].max() < 0.3


def test_speech_really_moves_the_mouth_and_silence_closes_it(demo_video):
    from talkgs_cli.landmark_points import inter_ocular_px

    truth = demo_video.truth
    dense = torch.zeros(len(truth), 478, 2)
    dense[:, truth.landmark_index] = truth.landmarks
    opening = truth.opening.numpy() / inter_ocular_px(dense.numpy())
    assert opening[:12].max() < 0.04
    assert 0.15 < opening.max() < 0.4
    assert opening.std() > 0.03


def test_motion_stays_within_the_head_and_is_smooth(demo_video):
    from talkgs_cli.heads import load_head

    truth = demo_video.truth
    low, high = load_head("open").expression_range.T
    assert ((truth.expression >= low) & (truth.expression <= high)).all()
    rotation = truth.world_to_camera[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3), atol=1e-5)
    assert (truth.world_to_camera[1:, :3] - truth.world_to_camera[:-1, :3]).abs().max() < 0.03
    assert truth.jaw[:, 0].min() >= 0


def test_background_far_from_the_head_stands_still(demo_video):
    from talkgs_cli.media.video import read_frames

    corners = np.stack(
        [frame[-12:, :12].astype(float) for frame in read_frames(demo_video.path)][::20]
    )
    assert np.abs(corners - corners[0]).mean() < 3


def test_same_seed_gives_the_same_truth_bytes(tmp_path, demo_video):
    from talkgs_cli.demo.generator import plan_demo_video

    def truth_bytes(seed):
        config = replace(demo_video.config, duration_s=4.0, seed=seed)
        plan_demo_video(config).truth.save(tmp_path / "truth.safetensors")
        return (tmp_path / "truth.safetensors").read_bytes()

    first = truth_bytes(0)
    assert truth_bytes(0) == first
    assert truth_bytes(1) != first


def test_truth_survives_the_disk(tmp_path, demo_video):
    from talkgs_cli.demo.truth import DemoTruth, truth_path

    read = DemoTruth.load(truth_path(demo_video.path))
    assert read.frame_rate == Fraction(25)
    assert torch.equal(read.landmarks, demo_video.truth.landmarks)
    damaged = tmp_path / "video.truth.safetensors"
    damaged.write_bytes(b"not this")
    with pytest.raises(BadInput, match="truth"):
        DemoTruth.load(damaged)


def test_perfect_tracking_has_no_truth_error_and_a_turned_one_has_its_angle(demo_video):
    from scipy.spatial.transform import Rotation

    from talkgs_cli.demo.truth import truth_error
    from talkgs_cli.heads.open_head import OpenHead
    from talkgs_cli.types import Tracking

    truth, face = demo_video.truth, OpenHead.load()
    landmarks = torch.zeros(len(truth), 478, 3)
    landmarks[:, truth.landmark_index, :2] = truth.landmarks
    tracking = Tracking(
        landmarks=landmarks.numpy(),
        blendshapes=torch.zeros(len(truth), 52),
        valid=torch.ones(len(truth), dtype=torch.bool),
        intrinsics=truth.intrinsics,
        shape=torch.zeros(face.shape_count),
        motion=truth.motion,
        corrective_basis=torch.zeros(0, *face.template.shape),
        mouth_correctives=0,
        head="open",
    )
    error = truth_error(truth, tracking)
    assert error["jaw_correlation"] == pytest.approx(1)
    assert error["opening_correlation"] == pytest.approx(1)
    assert error["pose_degrees"] < 0.01
    assert error["landmark_iod"] < 1e-6
    assert error["jaw_degrees"] < 1e-4
    assert error["expression_iod"] < 1e-5 < error["expression_moved_iod"]
    swing = torch.from_numpy(Rotation.from_euler("y", 3, degrees=True).as_matrix()).float()
    turned = truth.world_to_camera.clone()
    turned[::2, :3, :3] = swing @ turned[::2, :3, :3]
    turned[1::2, :3, :3] = swing.T @ turned[1::2, :3, :3]
    motion = replace(tracking.motion, world_to_camera=turned)
    error = truth_error(truth, replace(tracking, motion=motion))
    assert error["pose_degrees"] == pytest.approx(3, abs=0.1)


def test_demo_folder_with_other_settings_is_refused(tmp_path, demo_video):
    from talkgs_cli.config import to_json
    from talkgs_cli.demo.run import demo
    from talkgs_cli.runtime import write_json

    write_json(tmp_path / "demo.json", {"config": to_json(demo_video.config), "seconds": {}})
    with pytest.raises(UsageError, match="other settings"):
        demo(tmp_path, replace(demo_video.config, seed=5), SilentProgress())
    (tmp_path / "demo.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput):
        demo(tmp_path, demo_video.config, SilentProgress())


def test_finished_demo_is_not_run_again(tmp_path, demo_video):
    from talkgs_cli.config import to_json
    from talkgs_cli.demo.run import demo
    from talkgs_cli.runtime import write_json

    shutil.copy(demo_video.path, tmp_path / "talking.mp4")
    record = {"config": to_json(demo_video.config), "seconds": {}, "result": {"video": "x"}}
    write_json(tmp_path / "demo.json", record)
    answer = demo(tmp_path, demo_video.config, SilentProgress())
    assert answer == {"video": "x", "already_done": True}
