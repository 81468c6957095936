"""What `prepare` says about a video: report.html, advice with time codes, the moved sound."""

from __future__ import annotations

import doctest
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from portrait_videos import SIDE, film, portrait, swaying
from scipy.spatial.transform import Rotation
from test_prepare_decisions import good
from test_prepare_sync import talking
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.config import PrepareConfig
from talkgs_cli.heads import load_head
from talkgs_cli.landmark_points import JAW_LINE, LIPS_OUTER, RIGHT_EYE
from talkgs_cli.media.audio import read_audio, write_wav
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import (
    prepare_report,
    prepare_sound,
    prepare_timeline,
    report_curves,
    report_html,
    spans,
)
from talkgs_cli.stages.prepare import prepare
from talkgs_cli.stages.prepare_folder import Request
from talkgs_cli.stages.prepare_report import outlines, posed_vertices, sheet_tiles, wireframe
from talkgs_cli.stages.prepare_sound import extract_sound
from talkgs_cli.stages.prepare_timeline import Timeline, head_angles_deg
from talkgs_cli.stages.prepare_tracking import Observations, face_sharpness
from talkgs_cli.stages.prepare_verdict import judge
from talkgs_cli.stages.report_curves import MOST_POINTS, Curve, Marks, curves
from talkgs_cli.stages.spans import Span
from talkgs_cli.types import LABELS

ASSETS = ("face_landmarker", "selfie_segmenter", "makehuman", "whisper_tiny_en")


class Page(HTMLParser):
    """The tags of a page, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.loaded += [str(values[key]) for key in ("src", "href", "srcset") if key in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])


def flat_timeline(frames: int, **changed: object) -> Timeline:
    zeros = np.zeros(frames)
    fields: dict = {
        "frame_rate": Fraction(25),
        "angles_deg": np.zeros((frames, 3)),
        "opening": zeros,
        "sharpness": zeros + 5,
        "jitter_px": zeros,
        "raw_jitter_px": zeros,
        "loudness_db": None,
        "valid": np.ones(frames, bool),
        "others": np.zeros(frames, bool),
        "covered": np.zeros(frames, bool),
        "cuts": np.array([], int),
    }
    return Timeline(**{**fields, **changed})


@pytest.mark.parametrize("module", [spans, prepare_timeline, prepare_sound])
def test_doctests_show_true_values(module: object) -> None:
    found = doctest.testmod(module, extraglobs={"np": np, "torch": torch})  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0


# -- the page --------------------------------------------------------------------------------------


def test_the_report_loads_nothing_from_anywhere(prepared_speaker: Path) -> None:
    text = (prepared_speaker / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.loaded
    assert all(source.startswith("data:image/") for source in page.loaded)
    assert "default-src 'none'" in page.policy
    for way in ("http://", "https://", "url(", "@import"):
        assert way not in text
    assert len(text) < 4_000_000


def test_the_report_shows_pictures_curves_and_the_advice(prepared_speaker: Path) -> None:
    text = (prepared_speaker / "report.html").read_text(encoding="utf-8")
    record = SpeakerFolder.open_(prepared_speaker).stage("prepare")
    assert record is not None
    assert text.count("<figcaption>0:0") == 24
    for title in ("Head, degrees", "Mouth opening", "Loudness", "Sharpness", "Jitter", "Face seen"):
        assert title in text
    assert f'verdict {record["result"]["verdict"]}"' in text
    for sentence in record["result"]["advice"]:
        assert sentence in text
    assert Path(record["result"]["report"]).name == "report.html"


def test_a_file_name_cannot_become_part_of_the_page() -> None:
    name = "<script>alert(1)</script>&.mp4"
    latin = os.fsdecode(b"caf\xe9.mp4")  # from an old disk: bytes that are no UTF-8
    assert "caf?.mp4" in report_html.page(latin, report_html.facts([(latin, latin)]))
    text = report_html.page(name, report_html.facts([(name, name)]), report_html.bullets([name]))
    text += curves(name, name, [Curve(name, np.arange(5.0))], 25.0, Marks())
    text += report_html.contact_sheet([report_html.Tile("data:,", (9, 9), f'"{name}')], {})
    assert "script" not in Page(text).tags


def test_the_heads_lines_sit_on_the_tracked_face(prepared_speaker: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    head, tracking = load_head("open"), speaker.load_tracking()
    settled = head.settle(tracking.shape)
    for index in (20, 90, 170):
        points = posed_vertices(settled, tracking, index, speaker)
        seen = speaker.crop.to_crop(tracking.landmarks[index, :, :2])
        eyes_px = np.linalg.norm(seen[33] - seen[263])
        lines = outlines(head, points)
        for kind, marks in (("lips", LIPS_OUTER), ("eyes", RIGHT_EYE), ("jaw", JAW_LINE)):
            line = next(line for line in lines if line.kind == kind)
            error = np.linalg.norm(line.points - seen[list(marks)], axis=1).mean()
            assert error < 0.03 * eyes_px
        drawn = np.argwhere(wireframe(settled, points, speaker.crop.size))
        assert len(drawn) > 5000
        at = (drawn * speaker.crop.size / prepare_report.MESH_PX).astype(int)
        shown = speaker.label(index)[at[:, 0], at[:, 1]]
        assert (shown != LABELS["background"]).mean() > 0.97


def test_a_sheet_looks_at_24_frames_however_long_the_video(prepared_speaker: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    head, tracking = load_head("open"), speaker.load_tracking()
    frame, looked_at = speaker.frame, []
    speaker.frame = lambda index: looked_at.append(index) or frame(index)  # type: ignore
    valid = np.ones(len(tracking), bool)
    valid[:50] = False
    tiles = sheet_tiles(speaker, head, tracking, flat_timeline(len(tracking), valid=valid))
    first = next(tiles)
    assert looked_at == [4]  # one at a time: the next picture is not read before it is wanted
    assert first.caption == "0:00, no face"
    assert first.lines == ()
    assert len(list(tiles)) == 23
    assert len(looked_at) == 24


def test_an_hour_is_drawn_with_its_peaks_and_few_points() -> None:
    values = np.random.default_rng(0).normal(size=90_000)
    values[[777, 50_001]] = 30, -40
    values[60_000:70_000] = np.nan
    at, kept = report_curves.thinned(values)
    assert len(at) <= MOST_POINTS
    assert (np.diff(at) > 0).all()
    assert {777, 50_001} <= set(at.tolist())
    assert np.array_equal(kept, values[at], equal_nan=True)
    drawn = curves("t", "c", [Curve("v", values)], 25.0, Marks(cuts_s=(5.0,)))
    assert len(drawn) < 40_000
    assert drawn.split('class="c0" d="')[1].split('"')[0].count("M") == 2  # a gap lifts the pen


def test_curves_of_nothing_and_of_one_value_can_be_drawn() -> None:
    for values in (np.full(60, np.nan), np.full(60, 3.0), np.zeros(1)):
        assert "<svg" in curves("t", "c", [Curve("v", values)], 25.0, Marks())


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "degrees", "expected"),
    [
        ([0, 1, 0], 30, [30, 0, 0]),  # about the upward axis: nose to the subject's left
        ([1, 0, 0], -20, [0, 20, 0]),  # nose up
        ([0, 0, 1], 10, [0, 0, 10]),  # the subject's left side up
    ],
)
def test_known_turns_have_known_angles(axis: list, degrees: float, expected: list) -> None:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array(axis)).as_matrix()
    pose = torch.eye(4)[None].clone()
    pose[0, :3, :3] = torch.from_numpy(np.diag([1, -1, -1]) @ turn).float()
    assert np.allclose(head_angles_deg(pose)[0], expected, atol=1e-4)


def test_turns_blurs_and_gaps_are_found_where_they_are() -> None:
    angles, sharpness, valid = np.zeros((500, 3)), np.full(500, 8.0), np.ones(500, bool)
    angles[300:375, 0] = -45
    angles[400:402, 0] = 90  # too short to matter
    sharpness[100:120] = 3
    valid[200:210] = False
    sharpness[200:210] = angles[200:210] = np.nan
    timeline = flat_timeline(500, angles_deg=angles, sharpness=sharpness, valid=valid)
    assert [span.to_json() for span in timeline.turned] == [[12.0, 15.0]]
    assert [span.to_json() for span in timeline.blurred] == [[4.0, 4.8]]
    assert [span.to_json() for span in timeline.gaps] == [[8.0, 8.4]]


def test_a_blurred_face_is_less_sharp() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    labels = np.full((64, 64), LABELS["skin"], np.uint8)
    smooth = np.full_like(frame, 120)
    assert face_sharpness(frame, labels) > 50
    assert face_sharpness(smooth, labels) == 0
    assert face_sharpness(frame, np.zeros_like(labels)) == 0  # no face, no opinion


def observed(change: list[float]) -> Observations:
    count = len(change)
    landmarks = np.zeros((count, 478, 3), np.float32)
    landmarks[:, 152, 1] = 100
    return Observations(
        landmarks,
        np.zeros((count, 52), np.float32),
        np.ones(count, bool),
        np.ones(count, np.uint8),
        np.array(change, np.float32),
    )


def test_a_covered_mouth_counts_neither_as_closed_nor_as_open(prepared_speaker: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    tracking = speaker.load_tracking()
    half = torch.arange(len(tracking)) < len(tracking) // 2
    tracking = replace(tracking, valid=tracking.valid & half)
    seen = replace(observed([0.0] * len(tracking)), landmarks=tracking.landmarks)
    sharpness = np.ones(len(tracking), np.float32)
    rate = speaker.frame_rate
    timeline = prepare_timeline.measure_timeline(
        load_head(tracking.head), tracking, seen, sharpness, None, rate
    )
    assert timeline.closed_s + timeline.open_s == pytest.approx(len(tracking) // 2 / float(rate))
    assert np.isfinite(timeline.angles_deg).all()


def test_a_cut_is_told_from_movement() -> None:
    still = [0.003] * 40
    assert observed(still).cuts().tolist() == []
    assert observed([*still[:20], 0.2, *still[:19]]).cuts().tolist() == [20]
    assert observed([*still[:15], *[0.15] * 10, *still[:15]]).cuts().tolist() == []  # a pan
    jumping = observed(still)
    jumping.landmarks[25:, :, 0] += 60
    assert jumping.cuts().tolist() == [25]


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        (
            {"turned": (Span(12.0, 15.0),)},
            "The head turns past 40 degrees for 3.0 s at 0:12: it may be soft there.",
        ),
        ({"gaps": (Span(61.0, 62.0),), "valid_frames": 1475}, "for 1.0 s at 1:01"),
        ({"blurred": (Span(7.2, 8.0),)}, "The face is blurred for 0.8 s at 0:07"),
        ({"closed_s": 2.5}, "Only 2.5 s of closed mouth"),
        ({"open_s": 1.0}, "Only 1.0 s of open mouth"),
        ({"av_offset_s": 0.2}, "The sound is 200 ms late: --fix-offset shifts it."),
        ({"av_offset_s": -0.25}, "The sound is 250 ms early"),
        ({"av_offset_s": 0.2, "fix_offset": True}, "was moved 200 ms earlier"),
        ({"av_offset_s": -0.2, "fix_offset": True}, "was moved 200 ms later"),
        ({"av_offset_s": None, "fix_offset": True}, "left the sound alone"),
        ({"face_height_px": 110}, "(110 px high): the result will be soft"),
    ],
)
def test_advice_says_what_and_where(flaw: dict, says: str) -> None:
    assert any(says in sentence for sentence in judge(replace(good(), **flaw)).advice)


def test_a_head_that_is_turned_for_long_is_not_good() -> None:
    judgement = judge(replace(good(), turned=(Span(0.0, 20.0),)))
    assert judgement.verdict == "usable"
    assert len(judgement.advice) == 1


def test_gap_and_cut_are_reported_with_time_codes(
    tmp_path: Path, require_assets: Callable[..., None]
) -> None:
    require_assets(*ASSETS)
    talk, empty = swaying(portrait(), 70), np.full((SIDE, SIDE, 3), 90, np.uint8)
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in talk[:30]]
    path = film(tmp_path / "a <b> & ü.mp4", [*talk, *[empty] * 10, *talk[:15], *mirrored])
    answer = prepare(path, tmp_path / "s", PrepareConfig(), SilentProgress())
    assert answer["at"]["no_face"] == [[2.8, 3.2]]
    assert answer["at"]["cuts_s"][-1] == pytest.approx(3.8, abs=0.05)
    said = " ".join(answer["advice"])
    assert "for 0.4 s at 0:02" in said
    assert "as at a cut" in said
    text = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; ü.mp4" in text
    assert "no face: 0:02, 0.4 s" in text
    assert Path(answer["report"]) == tmp_path / "s" / "report.html"


# -- the moved sound -------------------------------------------------------------------------------


def lag_samples(later: np.ndarray, earlier: np.ndarray) -> int:
    """By how many samples `later` comes after `earlier`, by correlation."""
    length = len(later) + len(earlier)
    spectrum = np.fft.rfft(later, length) * np.conj(np.fft.rfft(earlier, length))
    best = int(np.fft.irfft(spectrum, length).argmax())
    return best - length if best > length // 2 else best


@pytest.mark.parametrize("lag_s", [0.3, -0.2])
def test_fix_offset_moves_the_sound_and_leaves_the_picture(lag_s: float, tmp_path: Path) -> None:
    points, samples = talking(lag_s)
    wav, video = tmp_path / "sound.wav", tmp_path / "video.mp4"
    write_wav(wav, samples)
    with VideoWriter(video, (32, 32), Fraction(25), audio=wav) as writer:
        for t in range(len(points)):
            writer.write(np.full((32, 32, 3), t % 200, np.uint8))
    speaker = SpeakerFolder.create(tmp_path / "s", {})
    speaker.media.mkdir(parents=True)
    speaker.video.write_bytes(video.read_bytes())
    seen = observed([0.0] * len(points))
    seen.landmarks[..., :2] = points

    kept = extract_sound(video, speaker, seen, Fraction(25), fix_offset=False)
    assert kept is not None
    assert kept.earlier_s == 0
    assert speaker.video.read_bytes() == video.read_bytes()
    original = read_audio(speaker.audio)
    for _ in range(2):  # an interrupted run does it again, from the original sound
        moved = extract_sound(video, speaker, seen, Fraction(25), fix_offset=True)
        assert moved is not None
        assert moved.offset_s == kept.offset_s == moved.earlier_s
        assert moved.offset_s == pytest.approx(lag_s, abs=0.03)
        for stored in (read_audio(speaker.audio), read_audio(speaker.video)):
            found_s = lag_samples(original, stored) / 16_000
            assert found_s == pytest.approx(moved.earlier_s, abs=0.002)
            assert len(stored) == pytest.approx(len(original), abs=1100)
    before, after = list(read_frames(video)), list(read_frames(speaker.video))
    assert len(before) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_command_ends_with_the_report_and_knows_fix_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PrepareConfig] = []

    def fake(video: Path, out: Path, config: PrepareConfig, *_: object, **__: object) -> dict:
        seen.append(config)
        return {"speaker": "me", "report": "me/report.html", "verdict": "good", "advice": []}

    module = SimpleNamespace(prepare=fake)
    monkeypatch.setitem(sys.modules, "talkgs_cli.stages.prepare", module)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["prepare", "v.mp4", "--out", "me", "--fix-offset"])
    assert result.exit_code == 0
    assert seen[0].fix_offset
    assert result.stdout == "me\n"
    assert result.stderr.splitlines()[-2:] == ["Report: me/report.html", "Next: talkgs fit me"]


def test_fix_offset_makes_another_speaker() -> None:
    plain, fixed = (Request("0", PrepareConfig(fix_offset=flag)) for flag in (False, True))
    assert plain.key != fixed.key
