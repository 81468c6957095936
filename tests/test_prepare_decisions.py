"""`prepare`: how it judges a video."""

from __future__ import annotations

from dataclasses import replace

import pytest

from talkgs_cli.stages.prepare_verdict import Evidence, judge


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
