"""Claims about what fit shows: unseen frames three ways, curves; its page loads nothing."""

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkgs_cli.avatar import Avatar
from talkgs_cli.media.video import read_frames
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_pictures import comparisons, write_preview
from talkgs_cli.stages.fit_report import _figures


@pytest.fixture(scope="module")
def page(fitted_speaker: Path) -> str:
    return (fitted_speaker / "fit" / "report.html").read_text(encoding="utf-8")


def test_the_report_shows_held_out_frames_and_loads_nothing(page: str, fitted_speaker: Path):
    _, test = SpeakerFolder.open_(fitted_speaker).splits()
    shown = [int(number) for number in re.findall(r"frame (\d+)</figcaption>", page)]
    assert 6 <= len(shown) <= 12
    assert set(shown) <= set(test)
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "default-src 'none'" in page


def test_the_report_s_video_is_real_render_composite_side_by_side(
    page: str, fitted_speaker: Path, tmp_path: Path
):
    (data,) = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    path = tmp_path / "video.mp4"
    path.write_bytes(base64.b64decode(data))
    speaker = SpeakerFolder.open_(fitted_speaker)
    _, test = speaker.splits()
    first = next(iter(read_frames(path)))
    side = first.shape[0]
    assert first.shape == (side, 3 * side, 3)
    real = cv2.resize(speaker.frame(test.start), (side, side), interpolation=cv2.INTER_AREA)
    assert np.abs(first[:, :side].astype(float) - real).mean() < 4


def test_the_composite_differs_from_the_real_frame_only_by_what_speak_would_do(
    fitted_speaker: Path,
):
    speaker = SpeakerFolder.open_(fitted_speaker)
    avatar = Avatar.load(speaker)
    (shown,) = comparisons(speaker, avatar, [speaker.splits()[1].start])
    corner = np.s_[:6, :6]  # far from the face: a training frame's own pixels, not grey
    assert np.abs(shown.composite[corner].astype(int) - shown.real[corner]).mean() < 20
    assert np.abs(shown.render[corner].astype(int) - 128).max() <= 1


def test_the_preview_has_real_frames_above_renders(fitted_speaker: Path, tmp_path: Path):
    speaker = SpeakerFolder.open_(fitted_speaker)
    write_preview(tmp_path / "preview.png", speaker, Avatar.load(speaker))
    image = cv2.imread(str(tmp_path / "preview.png"), cv2.IMREAD_COLOR_RGB)
    size = speaker.crop.size
    assert image.shape == (2 * size, 3 * size, 3)
    assert np.array_equal(image[:size, :size], speaker.frame(0))


def test_curves_are_drawn_from_the_log(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    entries = [{"step": 100 * k, "loss": 1 / k, "s_per_step": 0.1} for k in range(1, 5)]
    entries += [{"step": 100 * k, "validation": 0.1, "validation_psnr": 30 + k} for k in (2, 4)]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with log.open("a") as more:  # what the step after the Gaussians writes
        more.write(json.dumps({"inpainting_step": 100, "loss": 0.1}) + "\n")
    loss, psnr = _figures(log)
    assert "loss" in loss
    assert "validation psnr" in psnr
    log.write_text(json.dumps({"step": 100, "loss": None, "s_per_step": 0.1}) + "\n")
    assert _figures(log) == []
