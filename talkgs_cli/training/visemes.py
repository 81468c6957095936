"""Phones with times to the lips' opening and width: rules of co-articulation, no learning.

After Cohen and Massaro (1993), "Modeling coarticulation in synthetic visual speech": each phone
has a target and a dominance that fades before and after it; a lip is where the dominances weigh
it. The curves are in units of a speaker: 0 closed, 1 wide open; -1 rounded, 1 spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CURVES = ("opening", "width")
PAUSE = "pau"
# Dominance is flat over the phone less this margin, then falls at the phone's rate.
MARGIN_S = 0.02
# How far into a pause the closing mouth reaches.
PAUSE_REACH_S = 0.06


@dataclass(frozen=True)
class Phone:
    """One phone of an utterance.

    Attributes:
        name: A key of `VISEMES`, or `PAUSE`.
        start_s: Where it begins.
        end_s: Where it ends.
    """

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Viseme:
    """What the lips want in a phone.

    Attributes:
        opening: 0 closed (below: pressed), 1 wide.
        width: -1 rounded, 1 spread.
        opening_dominance: How much the opening matters beside the neighbours'.
        width_dominance: The same of the width.
        rate_hz: How quickly the dominance fades.
    """

    opening: float
    width: float
    opening_dominance: float
    width_dominance: float
    rate_hz: float


def _vowel(opening: float, width: float) -> Viseme:
    return Viseme(opening, width, 1.0, 1.0, 9.0)


def _consonant(opening: float, width: float, dominance: float) -> Viseme:
    width_dominance = 1.2 if abs(width) > 0.3 else 0.4
    return Viseme(opening, width, dominance, width_dominance, 16.0 if dominance >= 4 else 12.0)


VISEMES: dict[str, Viseme] = {
    **{
        name: _vowel(opening, width)
        for name, opening, width in (
            ("AA", 0.95, 0.1),
            ("AE", 0.85, 0.4),
            ("AH", 0.55, 0.1),
            ("AO", 0.75, -0.4),
            ("AW", 0.85, -0.2),
            ("AX", 0.35, 0.05),
            ("AY", 0.80, 0.3),
            ("EH", 0.60, 0.35),
            ("ER", 0.40, -0.25),
            ("EY", 0.50, 0.5),
            ("IH", 0.40, 0.4),
            ("IY", 0.30, 0.6),
            ("OE", 0.45, -0.6),
            ("OW", 0.55, -0.6),
            ("OY", 0.60, -0.4),
            ("UE", 0.25, -0.75),
            ("UH", 0.35, -0.5),
            ("UW", 0.25, -0.8),
        )
    },
    **{name: _consonant(-0.15, 0.0, 6.0) for name in ("P", "B", "M")},
    **{name: _consonant(0.08, 0.1, 4.0) for name in ("F", "V")},
    **{
        name: _consonant(opening, width, dominance)
        for name, opening, width, dominance in (
            ("W", 0.15, -0.9, 2.0),
            ("R", 0.28, -0.35, 1.0),
            ("L", 0.38, 0.1, 0.7),
            ("TH", 0.28, 0.1, 1.0),
            ("DH", 0.28, 0.1, 0.8),
            ("S", 0.16, 0.25, 1.6),
            ("Z", 0.16, 0.25, 1.6),
            ("SH", 0.20, -0.45, 2.0),
            ("ZH", 0.20, -0.45, 2.0),
            ("CH", 0.18, -0.4, 2.0),
            ("JH", 0.18, -0.4, 2.0),
            ("T", 0.22, 0.15, 0.8),
            ("D", 0.22, 0.15, 0.8),
            ("N", 0.24, 0.1, 0.7),
            ("K", 0.30, 0.1, 0.5),
            ("G", 0.30, 0.1, 0.5),
            ("NG", 0.30, 0.1, 0.5),
            ("Y", 0.28, 0.4, 0.8),
            ("HH", 0.35, 0.0, 0.2),
        )
    },
    PAUSE: Viseme(0.02, 0.0, 1.5, 1.0, 7.0),
}


def lip_curves(phones: Sequence[Phone], times_s: NDArray[np.floating]) -> NDArray[np.float32]:
    """The lips that go with the sound at each time.

    A phone's lips stand at the phone's middle, without a lead: by how much someone's lips are
    early is theirs (and their clip's), and is found there.

    Args:
        phones: In order of time.
        times_s: [n] seconds, ascending.

    Returns:
        [n, 2] opening and width.
    """
    times_s = np.asarray(times_s, np.float64)
    total = np.zeros((len(times_s), 2))
    weight = np.full((len(times_s), 2), 1e-3)
    for phone in phones:
        viseme = VISEMES[phone.name]
        middle = (phone.start_s + phone.end_s) / 2
        half = max((phone.end_s - phone.start_s) / 2 - MARGIN_S, 0.0)
        near = slice(*np.searchsorted(times_s, [middle - half - 0.8, middle + half + 0.8]))
        distance_s = np.abs(times_s[near] - middle)
        fade = np.exp(-viseme.rate_hz * np.maximum(distance_s - half, 0.0))
        if phone.name == PAUSE:
            fade[distance_s >= half + PAUSE_REACH_S] = 0.0
        strength = np.stack(
            [viseme.opening_dominance * fade**1.5, viseme.width_dominance * fade], axis=1
        )
        total[near] += strength * [viseme.opening, viseme.width]
        weight[near] += strength
    return (total / weight).astype(np.float32)


def speaking(phones: Sequence[Phone], times_s: NDArray[np.floating]) -> NDArray[np.float32]:
    """[n] 1 where someone speaks or is about to, 0 inside pauses longer than 0.25 s."""
    active = np.ones(len(times_s), np.float32)
    for phone in phones:
        if phone.name == PAUSE and phone.end_s - phone.start_s > 0.25:
            first, last = np.searchsorted(times_s, [phone.start_s + 0.06, phone.end_s - 0.10])
            active[first:last] = 0.0
    return active
