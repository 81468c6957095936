"""Score of any two videos: what is adapted, what is refused, and what the figures must be."""

import subprocess

import cv2
import numpy as np
import pytest
from score_videos import face_frames, mean, write_video

from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.ffmpeg import ffmpeg_program
from talkgs_cli.media.video import read_frames
from talkgs_cli.metrics.landmarks import LIPS_68
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.score_compare import score_pairs
from talkgs_cli.stages.score_lag import Lag
from talkgs_cli.stages.score_lips import Faces
from talkgs_cli.stages.score_pair import score_videos

ALL = ScoreConfig(max_frames=0)


@pytest.fixture(scope="module", autouse=True)
def weights(require_assets):
    require_assets("lpips_alex", "lpips_vgg", "face_landmarker")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("pairs") / "real.mp4", face_frames(6))


def compare(generated, reference, config=ALL):
    return score_videos(generated, reference, config, SilentProgress()).answer


def ffmpeg(*arguments):
    subprocess.run([ffmpeg_program(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


# -- what the figures must be ----------------------------------------------------------------------


def changed_by_a_pixel(frames):
    return [np.roll(frame, 1, axis=1) for frame in frames]


def blurred(frames):
    return [cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in frames]


def one_frame_late(frames):
    return [frames[0], *frames[:-1]]


@pytest.mark.parametrize("change", [changed_by_a_pixel, blurred, one_frame_late])
def test_full_frame_figures_are_what_their_definitions_give(change, real, tmp_path):
    generated = write_video(tmp_path / "made.mp4", change(list(read_frames(real))))
    answer = compare(generated, real)
    pairs = list(zip(read_frames(generated), read_frames(real), strict=True))
    psnr = [10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()) for a, b in pairs]
    full = answer["rows"]["generated"]["full"]
    assert mean(full["psnr"]) == pytest.approx(np.mean(psnr), abs=1e-3)
    assert mean(full["ssim"]) == pytest.approx(np.mean([ssim(a, b) for a, b in pairs]), abs=1e-4)
    assert mean(full["lmd_iod"]) < 0.03  # the mouth itself is the same


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM from its definition: window sums with OpenCV's Gaussian."""
    a, b = a / 255.0, b / 255.0

    def window(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    mean_a, mean_b = window(a), window(b)
    variances = window(a * a) - mean_a**2 + window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    means = mean_a**2 + mean_b**2
    value = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    return float((value / ((means + 1e-4) * (variances + 9e-4))).mean())


def moving_bars(count: int) -> list[np.ndarray]:
    x = np.arange(64)
    rows = [np.clip(127 + 120 * np.sin((x - 5 * t) / 7), 0, 255) for t in range(count)]
    return [np.repeat(row[None, :, None], 64, 0).repeat(3, 2).astype(np.uint8) for row in rows]


@pytest.mark.parametrize("late", [-3, -1, 0, 2])
def test_a_shift_in_time_is_noticed_with_its_sign(late):
    frames = moving_bars(40)
    lag = Lag()
    for t in range(4, 36):
        lag.add(t, frames[t - late], frames[t])
    assert lag.frames == late
    assert (lag.note is None) == (late == 0)


def test_too_few_neighbours_say_nothing_about_a_shift():
    lag = Lag()
    for t, frame in enumerate(moving_bars(9)):
        lag.add(t, frame, frame)
    assert lag.frames is None


# -- what is adapted -------------------------------------------------------------------------------


def test_sound_longer_than_the_picture_does_not_move_the_measured_frames(real, tmp_path):
    write_wav(tmp_path / "long.wav", np.zeros(16000 * 4))
    frames = list(read_frames(real))
    generated = write_video(tmp_path / "made.mp4", frames, audio=tmp_path / "long.wav")
    answer = compare(generated, real, ScoreConfig(max_frames=4, run_frames=4))
    assert answer["frames"] == 4
    assert answer["settings"]["frames"][0][1] <= 6
    assert not any("common beginning" in note for note in answer["notes"])


def test_a_rotated_phone_video_is_compared_as_it_is_shown(tmp_path):
    upright = [frame[:, 20:164] for frame in face_frames(4)]  # 144 wide, 224 high
    real = write_video(tmp_path / "real.mp4", upright)
    lying = [np.ascontiguousarray(np.rot90(frame)) for frame in upright]
    turned = write_video(tmp_path / "lying.mp4", lying)
    ffmpeg("-display_rotation:v:0", "-90", "-i", turned, "-c", "copy", tmp_path / "phone.mp4")
    answer = compare(tmp_path / "phone.mp4", real)
    assert mean(answer["rows"]["generated"]["full"]["psnr"]) > 35
    with pytest.raises(BadInput, match="proportions") as refused:
        compare(turned, real)
    assert "on its side" in refused.value.hint


def test_a_variable_frame_rate_is_resampled_by_time_and_said(tmp_path):
    frames = face_frames(40)
    real = write_video(tmp_path / "real.mp4", frames)
    # Two of three frames are dropped in the second half; players show the kept ones for longer.
    kept = "select='lt(n,20)+not(mod(n,3))'"
    ffmpeg("-i", real, "-vf", kept, "-fps_mode", "vfr", "-crf", 0, tmp_path / "vfr.mp4")
    answer = compare(tmp_path / "vfr.mp4", real, ScoreConfig(max_frames=12, run_frames=6))
    assert any("variable frame rate" in note for note in answer["notes"])
    assert answer["settings"]["frames"][-1][0] >= 30  # the second half is among them
    assert mean(answer["rows"]["generated"]["full"]["psnr"]) > 30  # by number it would be 20


def test_videos_without_sound_are_compared_and_silence_is_left_out(real):
    answer = compare(real, real)
    assert any("no sound" in note for note in answer["notes"])
    assert answer["behaviour"]["silence_open_share"] is None


def test_a_still_picture_and_no_file_are_refused_or_measured_with_their_reason(real, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(BadInput, match=r"empty\.mp4"):
        compare(tmp_path / "empty.mp4", real)
    write_wav(tmp_path / "sound.wav", np.zeros(16000))
    with pytest.raises(BadInput, match="no picture"):
        compare(real, tmp_path / "sound.wav")


# -- several ---------------------------------------------------------------------------------------


def test_one_reference_serves_all_and_another_number_is_refused(real, tmp_path):
    soft = write_video(tmp_path / "soft.mp4", blurred(list(read_frames(real))))
    systems = score_pairs([soft, real], [real], ScoreConfig(max_frames=3), SilentProgress())
    assert [system.name for system in systems] == ["soft.mp4", "real.mp4"]
    with pytest.raises(UsageError, match="3 made videos and 2 references"):
        score_pairs([soft, real, real], [real, real], ALL, SilentProgress())


# -- FAN -------------------------------------------------------------------------------------------


class MovedCorner:
    """Stands in for FAN: the landmarker's lips with the first point moved by four pixels."""

    def detect(self, frame, face):
        points = np.zeros((68, 2), np.float32)
        points[48:] = face[list(LIPS_68), :2]
        points[48, 0] += 4 * (frame[0, 0, 0] % 2)
        return points


def test_lips_are_taken_from_fan_where_it_is_asked_for_and_named():
    from talkgs_cli.assets import fetch_file

    frame = face_frames(1)[0]
    frame[0, 0, 0] = 1
    faces = Faces(fetch_file("face_landmarker"), MovedCorner())
    own = Faces(fetch_file("face_landmarker"))
    moved = faces.lips("real", frame) - own.lips("real", frame)
    assert moved[0].tolist() == [4.0, 0.0]
    assert np.abs(moved[1:]).max() == 0
    assert "FAN" in faces.lmd_detector
    assert "MediaPipe" in own.lmd_detector


def test_fan_without_weights_says_where_they_belong(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MachineLacks, match="FAN weights in") as refused:
        Faces.of(ScoreConfig(lmd_detector="fan"), tmp_path)
    assert "2DFAN4" in refused.value.hint
