"""Which way up a video is: found at the first look, put right, and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from portrait_videos import ASSETS, CONFIG, FRAMES, film, portrait, swaying

from talkgs_cli.errors import BadInput
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import prepare_look
from talkgs_cli.stages.prepare import prepare
from talkgs_cli.stages.prepare_look import quarter_turns


@pytest.fixture(autouse=True)
def networks(require_assets: Callable[..., None]) -> None:
    require_assets(*ASSETS)


def turned_film(path: Path, clockwise: int) -> Path:
    frames = [np.ascontiguousarray(np.rot90(f, -clockwise)) for f in swaying(portrait(), FRAMES)]
    return film(path, frames)


@pytest.mark.parametrize("clockwise", [0, 1, 2, 3])
def test_every_quarter_turn_is_noticed(clockwise: int, tmp_path: Path) -> None:
    video = turned_film(tmp_path / "turned.mp4", clockwise)
    assert quarter_turns(video, probe(video)) == clockwise


def test_a_head_on_one_side_now_and_then_turns_nothing(tmp_path: Path) -> None:
    frames = swaying(portrait(), FRAMES)
    for t in range(20, 32):
        frames[t] = np.ascontiguousarray(np.rot90(frames[t]))
    video = film(tmp_path / "nods.mp4", frames)
    assert quarter_turns(video, probe(video)) == 0


def test_a_damaged_place_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = turned_film(tmp_path / "v.mp4", 0)

    def read(path: Path, start_s: float, frames: int):
        if start_s > 1.0:
            raise BadInput("damaged after 0 frames")
        return read_frames(path, start_s=start_s, frames=frames)

    monkeypatch.setattr(prepare_look, "read_frames", read)
    assert quarter_turns(video, probe(video)) == 0


def test_a_turned_video_becomes_an_upright_speaker_and_is_told(tmp_path: Path) -> None:
    frames = [frame[:, 16:-16] for frame in swaying(portrait(), FRAMES)]
    lying = [np.ascontiguousarray(np.rot90(frame)) for frame in frames]
    answer = prepare(
        film(tmp_path / "lying.mp4", lying), tmp_path / "speaker", CONFIG, SilentProgress()
    )
    assert answer["picture_turned_deg"] == 270
    assert any("on its side" in sentence for sentence in answer["advice"])
    assert answer["landmark_error_iod"]["mean"] < 0.03
    stored = next(iter(read_frames(SpeakerFolder.open_(tmp_path / "speaker").video)))
    assert np.abs(stored.astype(int) - frames[0]).mean() < 8
