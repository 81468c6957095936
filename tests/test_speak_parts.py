"""Claims about speak's parts: windows of sound, blinks, gaze, poses, backgrounds, threads."""

import doctest
import itertools
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from talkgs_cli.config import SpeakConfig, parse_frame_rate
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.heads import load_head
from talkgs_cli.media.audio import SoundStream, write_wav
from talkgs_cli.networks.audio_windows import normalise_loudness
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import ahead as ahead_module
from talkgs_cli.stages import speak_eyes, speak_sound
from talkgs_cli.stages.ahead import ahead
from talkgs_cli.stages.speak_background import alone, backgrounds, covering, over
from talkgs_cli.stages.speak_eyes import (
    Gaze,
    NaturalBlinks,
    blink_depth,
    blink_times_s,
    blinks,
    eye_tracks,
    widened,
)
from talkgs_cli.stages.speak_pose import PoseTrack, mean_pose, orbit
from talkgs_cli.stages.speak_sound import level_of
from talkgs_cli.types import Crop, HeadMotion

RATE = Fraction(25)


@pytest.mark.parametrize("module", [ahead_module, speak_eyes, speak_sound])
def test_doctests(module) -> None:
    assert doctest.testmod(module).failed == 0


# -- sound ---------------------------------------------------------------------------------------


def test_frame_rates_are_exact() -> None:
    assert parse_frame_rate("23.976") == Fraction(24000, 1001)
    assert parse_frame_rate("59.94") == Fraction(60000, 1001)
    assert parse_frame_rate("12.5") == Fraction(25, 2)
    assert parse_frame_rate(29.97) == Fraction(30000, 1001)
    assert SpeakConfig(frame_rate=29.97) == SpeakConfig(frame_rate="29.97")
    for text in ("0", "x", "1/0", "-25", "1000"):
        with pytest.raises(UsageError):
            parse_frame_rate(text)


@pytest.mark.parametrize(
    "options",
    [
        {"pose": "dance"},
        {"blink": "never"},
        {"gaze": "up"},
        {"gaze": "40,0"},
        {"orbit_deg": 90},
        {"mouth_gain": -1},
        {"start_s": -1},
        {"duration_s": 0},
        {"start_s": float("nan")},
        {"duration_s": float("inf")},
    ],
)
def test_wrong_options_are_named(options) -> None:
    with pytest.raises(UsageError):
        SpeakConfig(**options)


def test_quiet_minutes_before_the_speech_do_not_change_its_level(tmp_path) -> None:
    rng = np.random.default_rng(0)
    hiss = 1e-4 * rng.standard_normal(130 * 16_000).astype(np.float32)  # -80 dBFS
    speech = 0.1 * rng.standard_normal(3 * 16_000).astype(np.float32)
    write_wav(tmp_path / "late.wav", np.concatenate([hiss, speech]))
    loudness = level_of(SoundStream(tmp_path / "late.wav"))
    np.testing.assert_allclose(
        loudness.level(speech).std(), normalise_loudness(speech).std(), rtol=0.02
    )


def test_the_level_is_known_before_a_long_recording_was_read(tmp_path, monkeypatch) -> None:
    loud = 0.1 * np.random.default_rng(0).standard_normal(20 * 16_000).astype(np.float32)
    write_wav(tmp_path / "long.wav", loud)
    monkeypatch.setattr(speak_sound, "LEVEL_S", 4)
    assert level_of(SoundStream(tmp_path / "long.wav")).heard_s == pytest.approx(4, abs=2)


# -- eyes ----------------------------------------------------------------------------------------


def test_blinks_come_as_often_as_people_blink_and_the_same_for_a_seed() -> None:
    first = list(itertools.takewhile(lambda t: t < 600, blink_times_s(3)))
    assert 8 <= len(first) / 10 <= 25  # a minute
    assert first == list(itertools.takewhile(lambda t: t < 600, blink_times_s(3)))
    assert first != list(itertools.takewhile(lambda t: t < 600, blink_times_s(4)))


def test_a_blink_shuts_faster_than_it_opens_and_never_jumps() -> None:
    depth = np.array([blink_depth(t) for t in np.arange(-0.1, 0.5, 0.01)])
    assert depth.max() == pytest.approx(1, abs=1e-6)
    assert np.abs(np.diff(depth)).max() < 0.2
    assert (np.diff(depth) > 1e-9).sum() < (np.diff(depth) < -1e-9).sum()


def test_blinks_in_a_clip_are_found_and_long_closures_are_none() -> None:
    opening = np.full(200, 0.3)
    opening[50:55] = 0.1
    opening[100:140] = 0.1
    assert np.flatnonzero(blinks(opening, RATE)).tolist() == [50, 51, 52, 53, 54]


@pytest.mark.parametrize(("length", "frames"), [(1, 3), (4, 9), (60, 3)])
def test_the_time_around_a_blink_belongs_to_it(length: int, frames: int) -> None:
    shut = np.zeros(length, bool)
    shut[length // 2] = True
    np.testing.assert_array_equal(widened(shut, frames), binary_dilation(shut, iterations=frames))


def test_natural_blinks_replace_the_clips_own(prepared_speaker: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    tracking, head = speaker.load_tracking(), load_head("open")
    unit = head.blendshape_names.index("eyeBlinkLeft")
    track = NaturalBlinks(tracking, head, speaker.frame_rate, seed=1)
    begins = next(blink_times_s(1))
    times_s = np.array([begins - 0.05, begins + 0.12, begins + 1.0])
    places = torch.zeros(3, dtype=torch.int64)
    rest = HeadMotion(*(v.clone() for v in vars(tracking.motion.at(places)).values()))
    track.apply(rest, places, times_s)
    eyes = rest.expression[:, unit]
    assert eyes[1] > eyes[0] + 0.1
    assert eyes[2] == pytest.approx(float(eyes[0]), abs=1e-6)


def test_gaze_turns_against_the_head(prepared_speaker: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    tracking, head = speaker.load_tracking(), load_head("open")
    places = torch.zeros(2, dtype=torch.int64)
    rest = HeadMotion(*(v.clone() for v in vars(tracking.motion.at(places)).values()))
    angle = torch.tensor(np.radians(8.0)).float()
    left = torch.eye(4)
    left[0, 0] = left[2, 2] = angle.cos()
    left[0, 2], left[2, 0] = angle.sin(), -angle.sin()
    rest.world_to_camera[1] = rest.world_to_camera[1] @ left  # turned to the subject's left
    gaze = Gaze(tracking, head, speaker.frame_rate, (0.0, 0.0))
    gaze.apply(rest, places, np.zeros(2))
    yaw = gaze._angles(rest.expression)[:, 0]
    assert float(yaw[1] - yaw[0]) == pytest.approx(-8.0, abs=0.6)


@pytest.mark.parametrize("gaze", ["camera", "0,-8"])
def test_a_gaze_is_the_same_with_blinks_as_without(prepared_speaker: Path, gaze: str) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    tracking, head = speaker.load_tracking(), load_head("open")
    places = torch.arange(0, len(tracking.valid) - 1, 2)
    looks = [i for i, name in enumerate(head.blendshape_names) if name.startswith("eyeLook")]
    looked = []
    for blink in ("source", "natural"):
        config = SpeakConfig(gaze=gaze, blink=blink)
        rest = HeadMotion(*(v.clone() for v in vars(tracking.motion.at(places)).values()))
        for track in eye_tracks(tracking, head, speaker.frame_rate, config):
            track.apply(rest, places, np.arange(len(places)) / 25)
        looked.append(rest.expression[:, looks])
    torch.testing.assert_close(looked[1], looked[0])
    blinked = rest.expression[:, head.blendshape_names.index("eyeBlinkLeft")]
    assert blinked.max() > blinked.min() + 0.1  # and it blinks


# -- poses ---------------------------------------------------------------------------------------


def poses_file(path: Path, angles_deg, shift=(0.0, 0.0, 0.6), rate="25") -> Path:
    poses = np.tile(np.eye(4), (len(angles_deg), 1, 1))
    radians = np.radians(angles_deg)
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(radians)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(radians), -np.sin(radians)
    poses[:, :3, :3] = poses[:, :3, :3] @ np.diag([1.0, -1, -1])
    poses[:, :3, 3] = shift
    np.savez(path, world_to_camera=poses, frame_rate=rate)
    return path


def test_poses_from_a_file_keep_their_movement_and_come_to_the_speakers_place(tmp_path) -> None:
    track = PoseTrack.read(poses_file(tmp_path / "p.npz", [-10, 0, 10], (0.2, 0.1, 0.9)))
    home = torch.eye(4)
    home[:3, :3] = torch.diag(torch.tensor([1.0, -1, -1]))
    home[2, 3] = 0.6
    moved = track.moved_to(home)
    at = moved.at(np.array([0.0, 0.02, 0.04, 0.08, 0.12, 0.16]))
    assert torch.allclose(at[2], home, atol=1e-5)
    angle = torch.rad2deg(torch.atan2(at[:, 0, 2], at[:, 0, 0].abs()))
    assert torch.allclose(angle.abs(), torch.tensor([10.0, 5, 0, 10, 0, 10]), atol=1e-3)
    assert torch.allclose(mean_pose(at[[0, 3]]), home, atol=1e-5)


def test_what_export_writes_can_be_played(prepared_speaker: Path, tmp_path) -> None:
    from talkgs_cli.stages.export import motion_npz

    speaker = SpeakerFolder.open_(prepared_speaker)
    (tmp_path / "motion.npz").write_bytes(motion_npz(speaker))
    poses = speaker.load_tracking().motion.world_to_camera
    track = PoseTrack.read(tmp_path / "motion.npz")
    assert track.frame_rate == float(speaker.frame_rate)
    own = track.moved_to(mean_pose(poses)).at(np.arange(5) / float(speaker.frame_rate))
    assert torch.allclose(own, poses[:5], atol=1e-4)  # its own poses stay where they are


@pytest.mark.parametrize("damage", ["missing", "text", "shape", "scaled", "rate"])
def test_a_file_that_holds_no_poses_is_refused(tmp_path, damage: str) -> None:
    path = tmp_path / "p.npz"
    if damage == "text":
        path.write_text("no zip")
    elif damage == "shape":
        np.savez(path, world_to_camera=np.eye(4))
    elif damage == "scaled":
        np.savez(path, world_to_camera=2 * np.eye(4)[None])
    elif damage == "rate":
        np.savez(path, world_to_camera=np.eye(4)[None], frame_rate="0")
    with pytest.raises(BadInput):
        PoseTrack.read(path)


def test_orbit_turns_the_head_about_itself() -> None:
    pose = torch.eye(4)
    pose[:3, :3] = torch.diag(torch.tensor([1.0, -1, -1]))
    pose[:3, 3] = torch.tensor([0.1, 0.0, 0.7])
    turned = orbit(pose.expand(3, -1, -1), 20, np.array([0.0, 2.0, 6.0]))
    assert torch.allclose(turned[0], pose)
    assert torch.allclose(turned[:, :3, 3], pose[:3, 3].expand(3, -1))
    yaw = torch.rad2deg(torch.atan2(turned[:, 0, 2], -turned[:, 2, 2]))
    assert yaw.tolist() == pytest.approx([0, 20, -20], abs=1e-3)
    assert torch.allclose(turned @ turned.inverse(), torch.eye(4).expand(3, -1, -1), atol=1e-5)


# -- backgrounds ---------------------------------------------------------------------------------


def test_a_head_alone_keeps_its_colours_and_its_edge() -> None:
    alpha = np.array([[0.0, 0.5], [1.0, 1.0]], np.float32)
    rgb = alpha[..., None] * np.array([0.8, 0.4, 0.2], np.float32)
    crop = Crop(1, 1, 2, 2)
    cut = alone(rgb, alpha, (4, 4), crop)
    assert cut[1, 1].tolist() == [0, 0, 0, 0]
    assert cut[1, 2].tolist() == [204, 102, 51, 128]
    assert cut[0].sum() == 0
    white = np.full((4, 4, 3), 255, np.uint8)
    made = over(rgb, alpha, white, crop)
    assert made[1, 1].tolist() == [255, 255, 255]
    assert made[2, 1].tolist() == [204, 102, 51]
    assert made[1, 2].tolist() == [230, 179, 153]


def test_a_picture_covers_the_frame_without_being_stretched(tmp_path) -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    cv2.circle(picture, (150, 50), 40, (255, 255, 255), -1)
    made = covering(picture, (200, 200))
    rows, columns = (np.flatnonzero(made[..., 0].max(axis) > 127) for axis in (1, 0))
    assert made.shape == (200, 200, 3)
    assert abs(len(rows) - len(columns)) <= 1
    cv2.imwrite(str(tmp_path / "b.png"), picture)
    pictures = backgrounds(str(tmp_path / "b.png"), (200, 200), RATE)
    assert np.array_equal(next(pictures), next(pictures))
    assert next(backgrounds("red", (2, 2), RATE))[0, 0].tolist() == [255, 0, 0]


# -- threads -------------------------------------------------------------------------------------


def test_ahead_works_in_advance_and_no_further() -> None:
    made = []

    def items():
        for k in range(100):
            made.append(k)
            yield k

    use = ahead(items(), 3, "test")
    assert next(use) == 0
    time.sleep(0.3)
    assert len(made) == 5  # the one used, three waiting, one in the maker's hand
    use.close()
    assert not [t for t in threading.enumerate() if t.name == "talkgs-test"]


def test_ahead_passes_failures_on_and_closes_what_it_used() -> None:
    closed = threading.Event()

    def items():
        try:
            yield 1
            raise BadInput("broken")
        finally:
            closed.set()

    use = ahead(items(), 2, "test")
    assert next(use) == 1
    with pytest.raises(BadInput, match="broken"):
        next(use)
    assert closed.is_set()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    closed.clear()
    use = ahead(endless(), 1, "test")
    next(use)
    use.close()
    assert closed.is_set()
