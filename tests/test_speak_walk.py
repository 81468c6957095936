"""Claims about which frames lie under the rendered ones: no jump, no sudden turn, none covered."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from talkgs_cli.errors import BadInput
from talkgs_cli.media.video import read_frames
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import speak_originals, speak_walk
from talkgs_cli.stages.speak_originals import original_frames
from talkgs_cli.stages.speak_walk import (
    Walk,
    calmest,
    plan_walk,
    smoothed,
    still_places,
    usable_runs,
)

RATE = Fraction(25)


def walked(walk: Walk, count: int, step: Fraction = Fraction(1)) -> list[int]:
    return list(itertools.islice(walk.positions(step), count))


@pytest.mark.parametrize("ease", [0, 2, 6])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (3, 9), (10, 80)])
def test_the_walk_never_jumps_and_reaches_both_ends(low: int, high: int, ease: int) -> None:
    places = walked(Walk([low], [high], ease), 400)
    assert set(places) == set(range(low, high + 1))
    assert all(abs(b - a) <= 1 for a, b in itertools.pairwise(places))


def test_the_walk_slows_down_before_it_turns() -> None:
    places = np.array(walked(Walk([0], [50], 6), 60))
    around = places[places.argmax() - 3 : places.argmax() + 6]
    assert (around >= 49).sum() >= 5  # it lingers about the turn
    cruising = np.diff(places[6:50])
    assert (cruising == 1).all()  # and plays at full speed in between


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(60), Fraction(12), Fraction(25)])
def test_the_clip_plays_at_its_own_speed_whatever_the_output_rate(rate: Fraction) -> None:
    step = RATE / rate
    places = walked(Walk([0], [5000], 6), int(100 * rate), step)
    assert places[-1] == pytest.approx(100 * RATE - 3, abs=max(2, float(step) + 1))


def test_speed_is_smoothed_as_scipy_does() -> None:
    travel = np.random.default_rng(0).normal(size=(90, 8))
    expected = gaussian_filter1d(travel, 2.5, axis=0, mode="nearest")
    np.testing.assert_allclose(smoothed(travel, 2.5), expected, atol=1e-12)


def test_turns_lie_where_the_head_is_still() -> None:
    t = np.arange(400)
    speed = 1 + np.cos(2 * np.pi * t / 50)  # still at 25, 75, ... 375
    walk = plan_walk(speed, [range(0, 400)], RATE, "source")
    assert set(walk.low) <= {25, 75}
    assert set(walk.high) <= {325, 375}


def test_a_head_that_never_rests_turns_at_its_slowest_place_only() -> None:
    speed = np.full(200, 5.0)
    speed[20] = 1.0
    assert still_places(speed, range(0, 50), 10) == [20]


def test_a_stretch_that_is_covered_blurred_or_cut_is_left_out() -> None:
    valid = np.ones(100, bool)
    valid[40] = False
    seen = {"covered": [[2.4, 2.8]], "blurred": [], "cuts_s": [0.4]}
    runs = usable_runs(range(0, 90), valid, seen, RATE)
    assert sorted((run.start, run.stop) for run in runs) == [(0, 10), (10, 40), (41, 60), (70, 90)]
    assert len(runs[0]) == 30


def test_no_usable_frame_is_refused() -> None:
    with pytest.raises(BadInput, match="No frame"):
        plan_walk(np.zeros(10), [], RATE, "source")


def test_still_is_one_frame_and_loop_the_calmest_seconds() -> None:
    speed = np.ones(500)
    speed[300:420] = 0.1
    speed[350] = 0.01
    still = walked(plan_walk(speed, [range(0, 500)], RATE, "still"), 50)
    assert set(still) == {350}
    loop = walked(plan_walk(speed, [range(0, 500)], RATE, "loop"), 500)
    assert min(loop) >= 300
    assert max(loop) < 420
    assert calmest(speed, range(0, 500), 100).start in range(300, 321)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_walks_the_same_way(seed: int) -> None:
    walk = Walk([0, 7, 12], [100, 90, 80], 6, seed)
    assert walked(walk, 1000) == walked(walk, 1000)
    assert walked(walk, 1000) != walked(Walk([0, 7, 12], [100, 90, 80], 6, seed + 5), 1000)


@pytest.mark.parametrize("held", [1, 3, 100])
def test_frames_come_in_the_order_asked_for(
    prepared_speaker: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    monkeypatch.setattr(speak_originals, "BACKWARDS_FRAMES", held)
    monkeypatch.setattr(speak_originals, "BACKWARDS_BYTES", 1)
    forwards = list(read_frames(speaker.video, frames=12))
    walk = [3, 4, 6, 6, 7, 8, 8, 7, 5, 5, 4, 2, 1, 1, 2, 3]
    found = list(original_frames(speaker, iter(walk)))
    assert [index for index, _ in found] == walk
    for index, frame in found:
        assert np.array_equal(frame, forwards[index]), index


def test_doctests() -> None:
    import doctest

    assert doctest.testmod(speak_walk).failed == 0
