"""How far sound and mouth are apart, from loudness alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from talkgs_cli.metrics.lips import loudness_db
from talkgs_cli.stages.prepare_sound import moved
from talkgs_cli.stages.prepare_sync import EnergyCurve, estimate_offset_s


def talking(lag_s: float, seconds: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """A mouth that opens at random moments, and sound that is loud `lag_s` later."""
    rng = np.random.default_rng(1)
    t_sound = np.arange(int(seconds * 16_000)) / 16_000
    t_frame = (np.arange(int(seconds * 25)) + 0.5) / 25
    moments = np.cumsum(rng.uniform(0.15, 0.5, 60))

    def opening(t: np.ndarray) -> np.ndarray:
        return np.exp(-(((t[:, None] - moments) / 0.06) ** 2)).sum(1)

    landmarks = np.zeros((len(t_frame), 478, 2))
    landmarks[:, 14, 1] = 10 * opening(t_frame)
    samples = rng.standard_normal(len(t_sound)) * 0.1 * opening(t_sound - lag_s)
    return landmarks, samples.astype(np.float32)


def energy_of(samples: np.ndarray) -> EnergyCurve:
    energy = EnergyCurve(16_000)
    list(energy.listen(np.array_split(samples, 7)))
    return energy


@pytest.mark.parametrize("lag_s", [-0.3, 0.0, 0.12, 0.3])
def test_a_known_lag_is_found(lag_s: float) -> None:
    landmarks, samples = talking(lag_s)
    valid = np.ones(len(landmarks), bool)
    found = estimate_offset_s(landmarks, valid, energy_of(samples), Fraction(25))
    assert found == pytest.approx(lag_s, abs=0.03)


def test_sound_that_has_nothing_to_do_with_the_mouth_has_no_lag() -> None:
    landmarks, _ = talking(0.0)
    noise = (0.1 * np.random.default_rng(2).standard_normal(12 * 16_000)).astype(np.float32)
    valid = np.ones(len(landmarks), bool)
    assert estimate_offset_s(landmarks, valid, energy_of(noise), Fraction(25)) is None


def test_loudness_gathered_from_blocks_is_that_of_the_samples() -> None:
    _, samples = talking(0.0)
    for rate in (Fraction(25), Fraction(30000, 1001)):
        count = int(len(samples) / 16_000 * rate)
        found = energy_of(samples).loudness_db(count, rate)
        exact = loudness_db(samples, 16_000, count, rate)
        loud = exact > -60
        assert np.abs(found - exact)[loud].max() < 0.5
        assert np.abs(found - exact)[loud].mean() < 0.1


def test_a_moved_sound_is_the_same_however_it_is_cut() -> None:
    sound = np.arange(1, 101, dtype=np.float32)
    for earlier in (-30, 0, 30, 200):
        for length in (50, 100, 160):
            whole, pieces = (
                np.concatenate([*moved(np.array_split(sound, n), earlier / 16_000, length)])
                for n in (1, 9)
            )
            assert np.array_equal(whole, pieces)
            assert len(whole) == length
            expected = np.zeros(400, np.float32)
            expected[100:200] = sound
            start = 100 + earlier
            assert np.array_equal(whole, np.pad(expected, (0, 300))[start : start + length])
