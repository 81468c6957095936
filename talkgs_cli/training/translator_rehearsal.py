"""A rehearsal on part of the clip: what to mix, and what the result is worth on the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.training.translator_linear import best_strength
from talkgs_cli.training.translator_measure import behaviour
from talkgs_cli.training.translator_parts import Material, Mix, assemble, learn_parts

Array = NDArray[np.float32]

# Blocks of the clip that the rehearsal leaves out, as shares of it, and what is dropped around.
BLOCKS = ((0.375, 0.5), (0.875, 1.0))
GAP_S = 0.5
MIN_S = 4.0
# With too little to rehearse: mostly the base, steadied by the filter.
UNREHEARSED = Mix(tuned=0.6, linear=0.35)
UNREHEARSED_STRENGTH = 3.0
TUNED_SHARES = (0.0, 0.3, 0.6, 0.8, 1.0)
LINEAR_SHARES = (0.0, 0.2, 0.35, 0.5)
# Own voice in a few unseen seconds says little of other voices, which the base knows better: each
# tenth away from the base must lower the error by this share.
PRICE_OF_TUNING = 0.002


@dataclass(frozen=True)
class Found:
    """What the rehearsal found out.

    Attributes:
        mix: Which parts to take.
        strength: Regularisation of the linear filter.
        gain: Liveliness to restore.
        figures: Behaviour on the unseen blocks; empty without a rehearsal.
    """

    mix: Mix
    strength: float
    gain: float
    figures: dict[str, float]


def rehearse(
    frame: MotionTranslator,
    material: Material,
    mouth: Array,
    frame_rate: Fraction,
    features: Array,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> Found:
    """Learn without two blocks of the clip, and choose on them.

    Args:
        frame: A blank translator.
        material: The whole clip.
        mouth: [T, M].
        frame_rate: Frames a second.
        features: [n, D].
        config: Settings.
        advance: Told of each step.
    """
    lesson = material.lesson
    blocks = _blocks(lesson.usable, frame_rate)
    fixed = UNREHEARSED if material.base is not None else Mix(1.0, config.linear_share)
    if not blocks:
        return Found(fixed, UNREHEARSED_STRENGTH, 1.0, {})
    unseen = np.zeros(len(mouth), bool)
    near = np.zeros(len(mouth), bool)
    gap = round(GAP_S * frame_rate)
    for block in blocks:
        unseen[block] = True
        near[max(0, block.start - gap) : block.stop + gap] = True
    unseen &= lesson.usable
    known = replace(lesson, usable=lesson.usable & ~near)
    strength = best_strength(known, unseen, frame.about.taps)
    small = MotionTranslator(replace(frame.about, networks=min(1, frame.about.networks)))
    small.load_state_dict(frame.state_dict(), strict=False)
    parts = learn_parts(small, replace(material, lesson=known), strength, config, advance)

    def guess(mix: Mix, gain: float = 1.0) -> tuple[MotionTranslator, Array]:
        trial = assemble(small, parts, mix)
        trial.about = replace(trial.about, gain=gain)
        return trial, trial.predict(features, len(mouth), frame_rate, clip_timing=True).numpy()

    def price(mix: Mix) -> float:
        trial, predicted = guess(mix)
        departure = (predicted - mouth)[unseen]
        codes = departure @ np.linalg.pinv(trial.decoder.numpy())
        return float(np.square(codes).mean()) * (1 + 10 * PRICE_OF_TUNING * mix.tuned)

    mix = fixed
    if material.base is not None and frame.about.networks:
        mixes = [Mix(tuned, linear) for tuned in TUNED_SHARES for linear in LINEAR_SHARES]
        mix = min(mixes, key=price)
    opening = frame.opening.numpy()
    _, plain = guess(mix)
    spread = max(float((plain[unseen] @ opening).std()), 1e-9)
    ratio = float((mouth[unseen] @ opening).std()) / spread
    gain = float(np.clip(config.liveliness * ratio, 1.0, config.max_gain))
    _, lively = guess(mix, gain)
    figures = behaviour(lively, mouth, mouth[known.usable], unseen, opening)
    return Found(mix, strength, gain, figures)


def _blocks(usable: NDArray[np.bool_], frame_rate: Fraction) -> list[slice]:
    """Blocks to leave out: none when the clip is too short to spare any."""
    where = np.flatnonzero(usable)
    if len(where) < MIN_S * frame_rate:
        return []
    first, count = where[0], where[-1] + 1 - where[0]
    return [slice(int(first + low * count), int(first + high * count)) for low, high in BLOCKS]
