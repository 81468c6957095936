"""`prepare`: what it refuses, and what it leaves behind then."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo_fixtures import DemoVideo
from portrait_videos import ASSETS, CONFIG, FRAMES, SIDE, film, portrait, swaying
from skimage import data

from talkgs_cli.config import PrepareConfig
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare import prepare
from talkgs_cli.types import Tracking


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, require_assets: Callable[..., None]) -> Path:
    require_assets(*ASSETS)
    folder = tmp_path_factory.mktemp("with spaces and ü")
    return film(folder / "my video.mp4", swaying(portrait(), FRAMES))


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


def test_a_mouth_that_is_covered_nearly_always_is_refused(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def covered(head: object, tracking: Tracking, *_: object) -> Tracking:
        return replace(tracking, valid=tracking.valid & (torch.arange(len(tracking)) < 20))

    aligner = "talkgs_cli.tracking.photometric.photometric_refinement"
    monkeypatch.setattr(aligner, covered)
    refused(video, tmp_path / "s", r"20 of 55 frames.*0\.8 s.*35 more, .* mouth, don't count")
    assert not list(tmp_path.iterdir())


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
