"""`prepare`: how it judges a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from talkgs_cli.errors import BadInput
from talkgs_cli.stages.prepare_verdict import Evidence, judge, refuse_too_little_face
from talkgs_cli.stages.spans import Span


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


def covered(frames: int) -> dict:
    """Something before the mouth for so long."""
    counts = {"valid_frames": 1500 - frames, "covered_frames": frames}
    return {**counts, "covered": (Span(2.0, 2.0 + frames / 25),)}


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
        (covered(1000), "usable", "covers the mouth in 67% of the frames, for 40.0 s at 0:02"),
        ({**covered(100), "valid_frames": 1300}, "usable", "covers the mouth in 7%"),
        ({**covered(100), "valid_frames": 1300}, "usable", "No face is seen in 6.7% of the video"),
        ({**covered(50), "valid_frames": 1200}, "usable", "out of the picture in 17%"),
        ({**covered(50), "valid_frames": 1200}, "usable", "for 2.0 s at 0:02"),
        (covered(1300), "usable", "Only 8 s of face"),
        (covered(50), "good", "Something covers the mouth for 2.0 s at 0:02"),
    ],
)
def test_each_flaw_is_named(flaw: dict, verdict: str, says: str) -> None:
    judgement = judge(replace(good(), **flaw))
    assert judgement.verdict == verdict
    assert any(says in sentence for sentence in judgement.advice)


def test_a_covered_mouth_is_not_told_as_a_face_that_is_gone() -> None:
    assert not any("No face" in said for said in judge(replace(good(), **covered(100))).advice)


def test_what_is_left_when_the_mouth_is_covered_must_do() -> None:
    refuse_too_little_face(Path("v.mp4"), 50, 1500, 25.0, 1450)
    with pytest.raises(BadInput, match=r"49 of 1500 .* 2\.0 s.* 1451 more, .* don't count"):
        refuse_too_little_face(Path("v.mp4"), 49, 1500, 25.0, 1451)
