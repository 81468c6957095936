"""`prepare`: what it makes, refuses, continues, and never destroys."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from demo_fixtures import DemoVideo
from skimage import data

from talkgs_cli.config import PrepareConfig
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.media.audio import read_audio, write_wav
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import prepare as stage
from talkgs_cli.stages.prepare import _encode_sound, prepare
from talkgs_cli.stages.prepare_sync import estimate_offset_s
from talkgs_cli.stages.prepare_verdict import Evidence, judge
from talkgs_cli.types import LABELS

SIDE = 224
FRAMES = 55
CONFIG = PrepareConfig()
ASSETS = ("face_landmarker", "selfie_segmenter", "makehuman", "whisper_tiny_en")


def portrait() -> np.ndarray:
    """The astronaut's head and shoulders, [SIDE, SIDE, 3]."""
    return cv2.resize(data.astronaut()[10:260, 100:350], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def swaying(image: np.ndarray, count: int) -> list[np.ndarray]:
    """The image moved a little from frame to frame, as a head is."""
    frames = []
    for t in range(count):
        shift = np.float32([[1, 0, 3 * np.sin(t / 6)], [0, 1, 2 * np.cos(t / 9)]])
        size = (image.shape[1], image.shape[0])
        frames.append(cv2.warpAffine(image, shift, size, borderMode=cv2.BORDER_REPLICATE))
    return frames


def hum(seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return 0.3 * np.sin(2 * np.pi * 180 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))


def film(
    path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(25), sound: bool = True
) -> Path:
    wav = None
    if sound:
        wav = path.with_suffix(".wav")
        write_wav(wav, hum(float(len(frames) / rate)))
    with VideoWriter(path, frames[0].shape[:2], rate, audio=wav, crf=14) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, require_assets: Callable[..., None]) -> Path:
    require_assets(*ASSETS)
    folder = tmp_path_factory.mktemp("with spaces and ü")
    return film(folder / "my video.mp4", swaying(portrait(), FRAMES))


@pytest.fixture(scope="module")
def prepared(video: Path) -> tuple[Path, dict]:
    """A finished speaker and the answer; tests must not change it."""
    out = video.parent / "the speaker"
    return out, prepare(video, out, CONFIG, SilentProgress())


@pytest.fixture
def own_copy(prepared: tuple[Path, dict], tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared[0], tmp_path / "speaker"))


# -- what it makes ---------------------------------------------------------------------------------


def test_the_answer_keeps_its_contract(prepared: tuple[Path, dict]) -> None:
    _, answer = prepared
    contract = {
        *("speaker", "frames", "frame_rate", "valid_share", "landmark_error_iod", "jitter_px"),
        *("raw_jitter_px", "av_offset_s", "seconds_per_video_second", "peak_rss_mb", "verdict"),
        *("advice", "head"),
    }
    assert contract <= set(answer)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["frames"] == FRAMES
    assert answer["frame_rate"] == "25"
    assert answer["valid_share"] == 1.0
    assert set(answer["landmark_error_iod"]) == {"mean", "p95", "lips", "eyes"}
    assert answer["landmark_error_iod"]["mean"] < 0.03
    assert answer["verdict"] == "usable"  # two seconds are little
    assert answer["head"] == "open"


def test_every_file_of_the_speaker_is_there_and_agrees(prepared: tuple[Path, dict]) -> None:
    speaker = SpeakerFolder.open_(prepared[0])
    tracking = speaker.load_tracking()
    assert len(tracking) == speaker.frame_count == FRAMES
    assert speaker.frame_rate == 25
    assert speaker.size == (SIDE, SIDE)
    assert len(list(speaker.frames.iterdir())) == len(list(speaker.labels.iterdir())) == FRAMES
    assert len(list(read_frames(speaker.video))) == FRAMES
    assert len(read_audio(speaker.audio)) == FRAMES * 640
    features = speaker.load_audio_features()
    assert len(features.values) == FRAMES * 2
    train, test = speaker.splits()
    assert (len(train), len(test)) == (50, 5)
    assert not prepared[0].with_name("the speaker.partial").exists()


def test_crop_frames_are_the_crop_of_the_stored_video(prepared: tuple[Path, dict]) -> None:
    speaker = SpeakerFolder.open_(prepared[0])
    crop = speaker.crop
    for index, frame in enumerate(read_frames(speaker.video)):
        if index % 20 == 0 and crop.size == crop.side:
            cut = frame[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
            assert np.array_equal(cut, speaker.frame(index))


def test_labels_and_landmarks_meet(prepared: tuple[Path, dict]) -> None:
    speaker = SpeakerFolder.open_(prepared[0])
    tracking = speaker.load_tracking()
    labels = speaker.label(30)
    points = speaker.crop.to_crop(tracking.landmarks[30, :, :2].numpy())
    nose, mouth = points[1].astype(int), points[[13, 14]].mean(0).astype(int)
    assert labels[nose[1], nose[0]] == LABELS["skin"]
    assert labels[mouth[1], mouth[0]] == LABELS["mouth"]


def test_the_tracked_head_sways_as_the_picture_does(prepared: tuple[Path, dict]) -> None:
    tracking = SpeakerFolder.open_(prepared[0]).load_tracking()
    seen = tracking.landmarks[:, 168, 0].numpy()
    truth = 3 * np.sin(np.arange(FRAMES) / 6)
    assert np.corrcoef(seen, truth)[0, 1] > 0.97
    pose = tracking.motion.world_to_camera
    across = (pose[:, 0, 3] / pose[:, 2, 3] * tracking.intrinsics[0, 0]).numpy()
    assert np.corrcoef(across, truth)[0, 1] > 0.9


# -- running it again ------------------------------------------------------------------------------


def test_rerun_with_the_same_video_does_nothing(video: Path, own_copy: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in own_copy.rglob("*")}
    answer = prepare(video, own_copy, CONFIG, SilentProgress())
    assert answer["already_done"] is True
    assert answer["speaker"] == str(own_copy)
    assert {file: file.stat().st_mtime_ns for file in own_copy.rglob("*")} == before


def test_other_settings_and_other_videos_ask_for_force(
    video: Path, own_copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="other settings") as caught:
        prepare(video, own_copy, replace(CONFIG, crop_size=128), SilentProgress())
    assert "--force" in str(caught.value.hint)
    other = film(tmp_path / "other.mp4", swaying(portrait(), 60), sound=False)
    with pytest.raises(UsageError, match="another video"):
        prepare(other, own_copy, CONFIG, SilentProgress())


def test_consent_stated_later_is_recorded_and_never_lost(video: Path, own_copy: Path) -> None:
    prepare(video, own_copy, replace(CONFIG, consent="stated"), SilentProgress())
    prepare(video, own_copy, CONFIG, SilentProgress())
    record = SpeakerFolder.open_(own_copy).stage("prepare")
    assert record is not None
    assert record["config"]["consent"] == "stated"


def test_force_moves_a_fitted_speaker_aside_and_keeps_consent(video: Path, own_copy: Path) -> None:
    prepare(video, own_copy, replace(CONFIG, consent="stated"), SilentProgress())
    (own_copy / "fit").mkdir()
    (own_copy / "fit" / "gaussians.safetensors").write_bytes(b"hours of work")
    other = replace(CONFIG, crop_size=128)
    assert prepare(video, own_copy, other, SilentProgress(), force=True)["consent"] == "stated"
    kept = own_copy.with_name("speaker.old-1") / "fit" / "gaussians.safetensors"
    assert kept.read_bytes() == b"hours of work"
    assert not (own_copy / "fit").exists()
    assert SpeakerFolder.open_(own_copy).crop.size == 128


def test_a_folder_that_is_no_speaker_is_never_touched(video: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UsageError, match="not a speaker"):
            prepare(video, tmp_path, CONFIG, SilentProgress(), force=force)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_interrupted_preparation_continues(
    video: Path, prepared: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "speaker"
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_encode_sound", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(video, out, CONFIG, SilentProgress())
    assert not out.exists()
    with pytest.raises(BadInput):
        SpeakerFolder.open_(out.with_name("speaker.partial"))
    done = {
        file.relative_to(out.with_name("speaker.partial")): file.stat().st_mtime_ns
        for file in out.with_name("speaker.partial").rglob("*.png")
    }
    answer = prepare(video, out, CONFIG, SilentProgress())
    assert {f.relative_to(out): f.stat().st_mtime_ns for f in out.rglob("*.png")} == done
    assert answer["landmark_error_iod"] == prepared[1]["landmark_error_iod"]


# -- bad inputs ------------------------------------------------------------------------------------


def refused(path: Path, out: Path, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        prepare(path, out, CONFIG, SilentProgress())
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert not out.exists()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.mp4", tmp_path / "s", "no file")


def test_a_text_file_named_mp4_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 30)
    refused(tmp_path / "text.mp4", tmp_path / "s", "not a video")


def test_one_second_is_refused(tmp_path: Path) -> None:
    refused(film(tmp_path / "v.mp4", [portrait()] * 25), tmp_path / "s", r"1\.0 s long")


def test_a_video_without_a_face_is_refused_before_the_work(
    tmp_path: Path, require_assets: Callable[..., None]
) -> None:
    require_assets(*ASSETS)
    coffee = cv2.resize(data.coffee(), (240, 160), interpolation=cv2.INTER_AREA)
    path = film(tmp_path / "v.mp4", [coffee] * 75)
    refused(path, tmp_path / "s", "No face in any of 12 frames")
    assert not (tmp_path / "s.partial" / "media" / "video.mp4").exists()


def test_a_face_for_a_moment_only_is_refused_with_the_seconds(
    tmp_path: Path, require_assets: Callable[..., None]
) -> None:
    require_assets(*ASSETS)
    empty = np.full((SIDE, SIDE, 3), 90, np.uint8)
    path = film(tmp_path / "v.mp4", [*[portrait()] * 30, *[empty] * 45])
    refused(path, tmp_path / "s", r"30 of 75 frames.*1\.2 s")


def test_two_faces_without_sound_work_with_advice(
    tmp_path: Path, require_assets: Callable[..., None]
) -> None:
    """And the crop holds the followed face alone, at the video's own odd rate."""
    require_assets(*ASSETS)
    pair = np.concatenate([portrait(), portrait()[:, ::-1]], 1)
    path = film(tmp_path / "v.mp4", swaying(pair, 62), Fraction(30000, 1001), sound=False)
    answer = prepare(path, tmp_path / "s", CONFIG, SilentProgress())
    said = " ".join(answer["advice"])
    assert answer["verdict"] == "usable"
    assert "Another face" in said
    assert "no sound" in said
    assert answer["av_offset_s"] is None
    speaker = SpeakerFolder.open_(tmp_path / "s")
    assert speaker.frame_rate == Fraction(30000, 1001)
    assert not speaker.has_audio
    assert not speaker.audio.exists()
    assert speaker.crop.side <= SIDE


def test_a_full_disk_is_told_and_leaves_no_speaker(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(MachineLacks, match="disk is full") as caught:
        prepare(video, tmp_path / "s", CONFIG, SilentProgress())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "s").exists()


def test_a_read_only_folder_is_told_before_the_work(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("talkgs_cli.runtime.tempfile.TemporaryFile", shut)
    with pytest.raises(MachineLacks, match="Can't write"):
        prepare(video, tmp_path / "s", CONFIG, SilentProgress())


# -- decisions -------------------------------------------------------------------------------------


def good() -> Evidence:
    return Evidence(
        frames=1500,
        valid_frames=1500,
        frame_rate=25.0,
        face_height_px=250,
        other_faces_share=0.0,
        has_audio=True,
        av_offset_s=0.05,
        landmark_error_iod=0.003,
    )


def test_a_clean_minute_is_good_and_gets_no_advice() -> None:
    judgement = judge(good())
    assert judgement.verdict == "good"
    assert judgement.advice == []


@pytest.mark.parametrize(
    ("flaw", "verdict", "says"),
    [
        ({"has_audio": False}, "usable", "no sound"),
        ({"face_height_px": 80}, "usable", "small"),
        ({"face_height_px": 40}, "usable", "tiny"),
        ({"valid_frames": 1200}, "usable", "20%"),
        ({"frames": 200, "valid_frames": 200}, "usable", "8 s"),
        ({"other_faces_share": 0.5}, "usable", "Another face"),
        ({"cuts_s": (3.0, 75.2)}, "usable", "at 0:03 and 1:15"),
        ({"landmark_error_iod": 0.05}, "usable", "5.0%"),
        ({"valid_frames": 1450}, "good", "left out"),
        ({"av_offset_s": 0.4}, "good", "400 ms late"),
        ({"frame_rate": 12.5}, "good", "12.5 frames"),
        ({"other_lips_iod": 0.11}, "good", "11%"),
        ({"picture_turned_deg": 270}, "good", "on its side"),
    ],
)
def test_each_flaw_is_named(flaw: dict, verdict: str, says: str) -> None:
    judgement = judge(replace(good(), **flaw))
    assert judgement.verdict == verdict
    assert any(says in sentence for sentence in judgement.advice)


# -- sync ------------------------------------------------------------------------------------------


def talking(lag_s: float, seconds: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """A mouth that opens at random moments, and sound that is loud `lag_s` later."""
    rng = np.random.default_rng(1)
    t_sound = np.arange(int(seconds * 16_000)) / 16_000
    t_frame = (np.arange(int(seconds * 25)) + 0.5) / 25
    moments = np.cumsum(rng.uniform(0.15, 0.5, 60))

    def opening(t: np.ndarray) -> np.ndarray:
        return np.exp(-(((t[:, None] - moments) / 0.06) ** 2)).sum(1)

    landmarks = np.zeros((len(t_frame), 478, 2))
    landmarks[:, 14, 1] = 10 * opening(t_frame)
    samples = rng.standard_normal(len(t_sound)) * 0.1 * opening(t_sound - lag_s)
    return landmarks, samples.astype(np.float32)


@pytest.mark.parametrize("lag_s", [-0.3, 0.0, 0.12, 0.3])
def test_a_known_lag_is_found(lag_s: float) -> None:
    landmarks, samples = talking(lag_s)
    valid = np.ones(len(landmarks), bool)
    found = estimate_offset_s(landmarks, valid, samples, 16_000, Fraction(25))
    assert found == pytest.approx(lag_s, abs=0.03)


def test_sound_that_has_nothing_to_do_with_the_mouth_has_no_lag() -> None:
    landmarks, _ = talking(0.0)
    noise = (0.1 * np.random.default_rng(2).standard_normal(12 * 16_000)).astype(np.float32)
    valid = np.ones(len(landmarks), bool)
    assert estimate_offset_s(landmarks, valid, noise, 16_000, Fraction(25)) is None


def test_a_refused_video_leaves_no_folder(tmp_path: Path):
    video = tmp_path / "grey.mp4"
    with VideoWriter(video, (96, 96), Fraction(25)) as writer:
        for _ in range(75):
            writer.write(np.full((96, 96, 3), 128, np.uint8))
    with pytest.raises(BadInput, match="No face"):
        prepare(video, tmp_path / "speaker", PrepareConfig(), SilentProgress())
    assert [p.name for p in tmp_path.iterdir()] == ["grey.mp4"]


def test_an_encoder_that_can_t_be_had_is_told_before_the_work(
    tmp_path: Path, demo_video: DemoVideo
) -> None:
    with pytest.raises(UsageError, match="no audio encoder 'ears'"):
        prepare(demo_video.path, tmp_path / "s", PrepareConfig(encoder="ears"), SilentProgress())
    assert not list(tmp_path.iterdir())


def test_the_chosen_encoder_is_the_one_recorded(prepared_speaker: Path, speaker_copy) -> None:
    speaker = SpeakerFolder.open_(speaker_copy(prepared_speaker))
    assert speaker.load_audio_features().encoder == "whisper-tiny.en"
    assert speaker.stage("prepare")["result"]["encoder"] == "whisper-tiny.en"
    speaker.audio_features.unlink()
    sound = SimpleNamespace(samples=read_audio(speaker.audio))
    _encode_sound(speaker, sound, "log-mel")
    stored = speaker.load_audio_features()
    assert (stored.encoder, stored.values.shape[1]) == ("log-mel", 80)
