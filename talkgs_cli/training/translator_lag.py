"""By how much a clip's sound is later than its mouth: people open their lips before they voice."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import in_parts
from talkgs_cli.networks.motion_translator import NATURAL_LEAD_S
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, sample_at
from talkgs_cli.training.translator_linear import Moments, design

Array = NDArray[np.float32]

LAGS_S = np.arange(-0.16, 0.2801, 0.02)
# Mouths differ by some hundredths of a second in how early they are, files by more: what is taken
# for granted before anything is heard.
LAG_SPREAD_S = 0.1
# Frames are no independent observations; syllables are, and there are about this many a second.
SYLLABLES_HZ = 4.0
# Without a base, how the opening sounds must be learnt at every lag that is tried.
LAG_COMPONENTS = 48
LAG_FOLDS = 4
LAG_TAPS = 5
FRAMES_AT_ONCE = 1024
# The lag is then believed where mouth and sound agree at least this well.
LAG_MIN_R = 0.4


def lag_by_heard_opening_s(
    heard: Array, times_s: NDArray[np.float64], opening: Array, usable: NDArray[np.bool_]
) -> float:
    """Where in the sound the mouth opens as a base translator hears it open: the likeliest lag.

    Only the lag is unknown, so that three seconds tell it. With a correlation r over n syllables a
    lag is likelier by -n/2 log(1 - r^2); before hearing anything, lags are normal about the
    natural lead of mouths.

    Args:
        heard: [n] opening at 50 Hz that the base hears in the sound.
        times_s: [T] of the frames.
        opening: [T] of the speaker's mouth, metres.
        usable: [T] bool.

    Returns:
        Seconds by which the sound lies later than the mouth.
    """
    read_s = times_s[usable]
    syllables = SYLLABLES_HZ * len(read_s) * float(np.diff(times_s).mean())
    real = opening[usable] - opening[usable].mean()
    agreement = []
    for lag_s in LAGS_S:
        guess = sample_at(heard[:, None], read_s + lag_s)[:, 0]
        guess = guess - guess.mean()
        size = float(np.sqrt(np.square(guess).sum() * np.square(real).sum()))
        agreement.append(float(guess @ real) / max(size, 1e-12))
    smoothed = np.convolve(np.pad(agreement, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    evidence = -0.5 * syllables * np.log(1 - np.clip(smoothed, 0, 0.99) ** 2)
    prior = -0.5 * np.square((LAGS_S - NATURAL_LEAD_S) / LAG_SPREAD_S)
    return float(round(LAGS_S[int(np.argmax(evidence + prior))], 3))


def best_lag_s(
    components: Array, times_s: NDArray[np.float64], amount: Array, usable: NDArray[np.bool_]
) -> float:
    """Where in the sound the mouth's opening is predicted best, across blocked folds.

    For a clip without a base; it needs half a minute to be right.

    Args:
        components: [n, K] at 50 Hz, most important first.
        times_s: [T] of the frames.
        amount: [T] opening.
        usable: [T] bool.

    Returns:
        Seconds by which the sound lies later than the mouth; the natural lead of mouths where
        the clip is too short or too unclear to tell.
    """
    where = np.flatnonzero(usable)
    if len(where) < 100:
        return NATURAL_LEAD_S
    few = components[:, :LAG_COMPONENTS]
    target = (amount[where][:, None] - amount[where].mean()).astype(np.float32)
    folds = np.array_split(np.arange(len(where)), 2 * LAG_FOLDS)[::2]
    agreement = []
    for lag_s in LAGS_S:
        positions = (times_s[where] + lag_s) * FEATURE_RATE_HZ
        whole = Moments(few.shape[1] * LAG_TAPS, 1)
        for part in in_parts(len(where), FRAMES_AT_ONCE):
            whole.add(design(few, positions[part], LAG_TAPS), target[part])
        guess, truth = [], []
        for fold in folds:
            near = slice(max(0, fold[0] - 12), fold[-1] + 13)
            known = copy.deepcopy(whole)
            known.add(design(few, positions[near], LAG_TAPS), target[near], -1.0)
            weight, bias = known.ridge(1.0)
            guess.append((design(few, positions[fold], LAG_TAPS) @ weight + bias)[:, 0])
            truth.append(target[fold, 0])
        agreement.append(np.corrcoef(np.concatenate(guess), np.concatenate(truth))[0, 1])
    if not np.max(agreement) > LAG_MIN_R:
        return NATURAL_LEAD_S
    smoothed = np.convolve(np.pad(agreement, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return float(round(LAGS_S[int(np.argmax(smoothed))], 3))
