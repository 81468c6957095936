"""Claims about what `prepare` keeps of a video: frame rate and size, and what it tells of them."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest

from talkgs_cli.config import PrepareConfig
from talkgs_cli.stages.prepare_stored import stored_rate, stored_size, what_is_reduced
from talkgs_cli.types import VideoInfo

CONFIG = PrepareConfig()


def described(rate: Fraction, constant: bool = True, size: tuple[int, int] = (720, 1280)):
    return VideoInfo(size, rate, 10.0, True, constant)


@pytest.mark.parametrize(
    ("rate", "constant", "stored"),
    [
        (Fraction(25), True, Fraction(25)),
        (Fraction(30000, 1001), True, Fraction(30000, 1001)),
        (Fraction(60000, 1001), True, Fraction(30000, 1001)),
        (Fraction(120), True, Fraction(30)),
        (Fraction(50), True, Fraction(25)),
        (Fraction("30.3"), True, Fraction("30.3")),  # as screens and browsers record
        (Fraction("30.02"), True, Fraction("30.02")),
        (Fraction("60.02"), True, Fraction("30.01")),
        (Fraction(32), True, Fraction(16)),
        (Fraction("29.83"), False, Fraction(30000, 1001)),
        (Fraction("23.2"), False, Fraction(24000, 1001)),
        (Fraction(25, 2), True, Fraction(25, 2)),
    ],
)
def test_the_rate_is_kept_halved_or_made_usual(
    rate: Fraction, constant: bool, stored: Fraction
) -> None:
    assert stored_rate(described(rate, constant), CONFIG) == stored


def test_large_videos_are_shrunk_to_an_even_size() -> None:
    assert stored_size(described(Fraction(25)), CONFIG) == (720, 1280)
    assert stored_size(described(Fraction(25), size=(3840, 2160)), CONFIG) == (1920, 1080)
    assert stored_size(described(Fraction(25), size=(479, 641)), CONFIG) == (478, 640)


def test_sixty_frames_a_second_are_kept_when_asked_for() -> None:
    keeping = replace(CONFIG, max_frame_rate=60)
    for rate in (Fraction(60), Fraction(60000, 1001), Fraction(50)):
        assert stored_rate(described(rate), keeping) == rate


def test_what_is_reduced_is_told_with_the_options_that_keep_it() -> None:
    uhd = described(Fraction(60000, 1001), size=(2160, 3840))
    said = what_is_reduced(uhd, stored_rate(uhd, CONFIG), stored_size(uhd, CONFIG))
    assert said is not None
    assert "--max-frame-rate 60" in said
    assert "--short-side 2160" in said
    keeping = replace(CONFIG, max_frame_rate=60, max_short_side=2160)
    assert what_is_reduced(uhd, stored_rate(uhd, keeping), stored_size(uhd, keeping)) is None


@pytest.mark.parametrize("rate", ["58.9", "57.3", "59.94", "49.2", "118"])
def test_the_option_that_is_named_really_keeps_a_varying_rate(rate: str) -> None:
    info = described(Fraction(rate), constant=False)
    said = what_is_reduced(info, stored_rate(info, CONFIG), info.size)
    assert said is not None
    option = re.search(r"--max-frame-rate (\d+)", said)
    assert option is not None
    keeping = replace(CONFIG, max_frame_rate=int(option[1]))
    kept = stored_rate(info, keeping)
    assert kept > Fraction(rate) * Fraction(95, 100)
    assert what_is_reduced(info, kept, info.size) is None


def test_a_usual_rate_or_an_even_size_is_no_reduction() -> None:
    for info in (described(Fraction("29.83"), False), described(Fraction(25), size=(479, 641))):
        assert what_is_reduced(info, stored_rate(info, CONFIG), stored_size(info, CONFIG)) is None
