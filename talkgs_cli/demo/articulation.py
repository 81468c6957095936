"""What a mouth might do for a sound, read off the sound alone: opening, width, closure, hiss.

A caricature of articulation, not phonetics: it is smooth, leads the sound a little as mouths do,
and depends on nothing but the sound, so that audio-to-motion can be learnt from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d
from scipy.signal import stft

HOP_HZ = 100
LEAD_S = 0.04  # lips move before their sound is heard
FLOOR_DB = -45.0  # below the clip's loud level by this much is silence

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Articulation:
    """One mouth over T frames.

    Attributes:
        opening: [T] 0 closed to 1 wide open.
        width: [T] -1 rounded to 1 spread.
        closure: [T] 0 to 1, lips pressed on each other within speech.
        hiss: [T] 0 to 1, teeth near each other and visible (s, sh, f).
        speaking: [T] 0 to 1, smooth voice activity.
    """

    opening: Array
    width: Array
    closure: Array
    hiss: Array
    speaking: Array


def articulate(
    sound: NDArray[np.float32], sample_rate_hz: int, frame_rate: Fraction
) -> Articulation:
    """Read an articulation off a sound.

    Args:
        sound: [samples] mono.
        sample_rate_hz: Of the sound.
        frame_rate: Of the result; T = duration x frame rate.
    """
    hop = sample_rate_hz // HOP_HZ
    hertz, _, spectrum = stft(
        sound, sample_rate_hz, nperseg=2 * hop + hop // 2, noverlap=hop + hop // 2, nfft=512
    )
    power = np.abs(spectrum) ** 2 + 1e-12  # [512/2+1, S]

    level_db = _decibel(power[(hertz > 80)].sum(0))
    level_db = level_db - np.percentile(level_db, 95)
    loud = _ramp(level_db, FLOOR_DB + 12, -6.0)
    speech = gaussian_filter1d(maximum_filter1d((level_db > -30).astype(float), 17), 4)

    first_formant = _centroid(power, hertz, 200, 1300)
    second_formant = _centroid(power, hertz, 1000, 2800)
    voiced = _ramp(
        _decibel(_band(power, hertz, 100, 1000) / _band(power, hertz, 2500, 7500)), -3, 9
    )
    vowel = loud * voiced
    openness = _ramp(first_formant, *np.percentile(first_formant[vowel > 0.5], [3, 97]))
    spread = 2 * _ramp(second_formant, *np.percentile(second_formant[vowel > 0.5], [5, 95])) - 1

    # A murmur (m) or a gap (p, b): weak above 400 Hz although speech goes on around it.
    upper_db = _decibel(_band(power, hertz, 400, 3500))
    around_db = gaussian_filter1d(maximum_filter1d(upper_db, 21), 5)
    hiss = _ramp(_decibel(_band(power, hertz, 3000, 7500) / _band(power, hertz, 100, 1500)), 0, 10)
    hiss = hiss * _ramp(level_db, -40, -22)
    closure = _ramp(around_db - upper_db, 19, 29) * speech * (1 - hiss)
    closure = minimum_filter1d(closure, 3)

    opening = vowel * (0.2 + 0.8 * openness) + 0.12 * hiss
    opening = gaussian_filter1d(opening, 3.5) * speech
    closure = gaussian_filter1d(closure, 2.0)
    times = (np.arange(_frames(sound, sample_rate_hz, frame_rate)) + 0.5) / float(
        frame_rate
    ) + LEAD_S
    at = times * HOP_HZ

    def sample(track: Array) -> Array:
        return np.interp(at, np.arange(len(track)), track)

    return Articulation(
        opening=sample(np.clip(opening * 1.15, 0, 1) * (1 - 0.9 * closure)),
        width=sample(gaussian_filter1d(spread * vowel, 4.0)),
        closure=sample(closure),
        hiss=sample(gaussian_filter1d(hiss, 2.5)),
        speaking=sample(speech),
    )


def _frames(sound: Array, sample_rate_hz: int, frame_rate: Fraction) -> int:
    return round(Fraction(len(sound), sample_rate_hz) * frame_rate)


def _decibel(power: Array) -> Array:
    return 10 * np.log10(np.maximum(power, 1e-12))


def _band(power: Array, hertz: Array, low: float, high: float) -> Array:
    return np.asarray(power[(hertz >= low) & (hertz < high)].sum(0) + 1e-12)


def _centroid(power: Array, hertz: Array, low: float, high: float) -> Array:
    inside = (hertz >= low) & (hertz < high)
    weight = np.sqrt(power[inside])
    return np.asarray((weight * hertz[inside, None]).sum(0) / weight.sum(0))


def _ramp(values: Array, low: float, high: float) -> Array:
    """0 at `low`, 1 at `high`, smooth between."""
    x = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
