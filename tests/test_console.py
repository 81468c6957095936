"""Progress and tables: what people read."""

from __future__ import annotations

from typing import Any

import pytest

from talkgs_cli import console
from talkgs_cli.console import progress as progress_module
from talkgs_cli.console.progress import LineProgress, TerminalProgress, duration
from talkgs_cli.console.tables import figure


class Clock:
    """A clock the test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_a_log_gets_few_lines_with_count_rate_and_time_left(clock: Clock, capsys: Any) -> None:
    with LineProgress().stage("Tracking", 1000) as advance:
        clock.now += 10.0  # loading
        advance(1)
        for _ in range(999):
            clock.now += 0.05
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Tracking: 1/1000"
    assert lines[1] == "Tracking: 401/1000, 20.0/s, 30 s left"
    assert lines[-1] == "Tracking: 1000, done in 1 min 00 s"
    assert len(lines) == 4


def test_a_quick_stage_is_one_line(clock: Clock, capsys: Any) -> None:
    with LineProgress().stage("Encoding", None) as advance:
        advance(1)
    assert capsys.readouterr().err == "Encoding: done in 0.0 s\n"


def test_a_stage_that_fails_is_not_called_done(clock: Clock, capsys: Any) -> None:
    with pytest.raises(ValueError, match="x"), LineProgress().stage("Encoding", 3):
        raise ValueError("x")
    assert "done" not in capsys.readouterr().err


def test_bars_leave_one_line_a_stage_and_show_brackets_as_they_are(capsys: Any) -> None:
    bars = TerminalProgress()
    with bars.stage("Outer", 2) as advance:
        with bars.stage("Inner", None):
            bars.note("odd [name] in /a/path[1].mp4")
        advance(2)
    told = capsys.readouterr()
    assert told.out == ""
    assert "odd [name] in /a/path[1].mp4" in told.err
    assert told.err.index("Inner: done") < told.err.index("Outer: 2, done")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (33.2232, "33.22"),
        (0.0431, "0.0431"),
        (12, "12"),
        ({"mean": 33.2, "low": None, "high": None}, "33.20"),
        ({"mean": 0.5, "low": 0.25, "high": 0.75}, "0.5000 [0.2500, 0.7500]"),
    ],
)
def test_figures(value: Any, said: str) -> None:
    assert figure(value) == said


def test_the_score_table_has_every_row_region_and_metric(capsys: Any) -> None:
    console.print_score(
        {
            "protocol": "p-1",
            "frames": 18,
            "rows": {
                "audio": {"full": {"psnr": {"mean": 31.5, "low": 31.0, "high": 32.0}}},
                "real": {"mouth": {"psnr": None, "lmd_px": 0.61}},
            },
            "ground_truth_share": {"audio": {"full": 0.87}},
            "behaviour": {"opening_r": 0.71},
        }
    )
    out = capsys.readouterr().out
    for expected in ("p-1", "18 frames", "audio", "real", "mouth", "31.50", "0.8700", "0.71"):
        assert expected in out
    assert "lmd_px" in out


def test_a_score_of_nothing_is_still_drawn(capsys: Any) -> None:
    console.print_score({"protocol": "p", "frames": 0, "rows": {}, "ground_truth_share": {}})
    assert "0 frames" in capsys.readouterr().out
