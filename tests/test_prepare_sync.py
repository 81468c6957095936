"""How far sound and mouth are apart, from loudness alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

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
