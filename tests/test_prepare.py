"""`prepare`: what it makes, continues, and never destroys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from portrait_videos import ASSETS, CONFIG, FRAMES, SIDE, film, portrait, swaying

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.audio import read_audio
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import prepare as stage
from talkgs_cli.stages.prepare import _encode_sound, prepare
from talkgs_cli.stages.prepare_beside import Beside
from talkgs_cli.types import LABELS


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
    points = speaker.crop.to_crop(tracking.landmarks[30, :, :2])
    nose, mouth = points[1].astype(int), points[[13, 14]].mean(0).astype(int)
    assert labels[nose[1], nose[0]] == LABELS["skin"]
    assert labels[mouth[1], mouth[0]] == LABELS["mouth"]


def test_the_tracked_head_sways_as_the_picture_does(prepared: tuple[Path, dict]) -> None:
    tracking = SpeakerFolder.open_(prepared[0]).load_tracking()
    seen = tracking.landmarks[:, 168, 0]
    truth = 3 * np.sin(np.arange(FRAMES) / 6)
    assert np.corrcoef(seen, truth)[0, 1] > 0.97
    pose = tracking.motion.world_to_camera
    across = (pose[:, 0, 3] / pose[:, 2, 3] * tracking.intrinsics[0, 0]).numpy()
    assert np.corrcoef(across, truth)[0, 1] > 0.9


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
        patch.setattr(stage, "_align", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(video, out, CONFIG, SilentProgress())
    assert not out.exists()
    monkeypatch.setattr("talkgs_cli.tracking.head_fitting.fit_head", interrupt)  # it is kept
    with pytest.raises(BadInput):
        SpeakerFolder.open_(out.with_name("speaker.partial"))
    done = {
        file.relative_to(out.with_name("speaker.partial")): file.stat().st_mtime_ns
        for file in out.with_name("speaker.partial").rglob("*.png")
    }
    answer = prepare(video, out, CONFIG, SilentProgress())
    assert {f.name for f in out.iterdir()} == {f.name for f in prepared[0].iterdir()}
    assert {f.relative_to(out): f.stat().st_mtime_ns for f in out.rglob("*.png")} == done
    assert answer["landmark_error_iod"] == prepared[1]["landmark_error_iod"]


def test_the_chosen_encoder_is_the_one_recorded(prepared_speaker: Path, speaker_copy) -> None:
    speaker = SpeakerFolder.open_(speaker_copy(prepared_speaker))
    assert speaker.load_audio_features().encoder == "whisper-tiny.en"
    assert speaker.stage("prepare")["result"]["encoder"] == "whisper-tiny.en"
    speaker.audio_features.unlink()
    with Beside() as beside:
        _encode_sound(speaker, SimpleNamespace(), "log-mel", beside)
    stored = speaker.load_audio_features()
    assert (stored.encoder, stored.values.shape[1]) == ("log-mel", 80)
