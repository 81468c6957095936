"""A rehearsal on part of the clip: what to mix, and what the result is worth on the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.frame_rows import Rows
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.networks.mouth_networks import run_in_pieces
from talkgs_cli.networks.smoothing import smooth
from talkgs_cli.networks.timing import sample_at
from talkgs_cli.training.translator_linear import best_strength
from talkgs_cli.training.translator_measure import behaviour
from talkgs_cli.training.translator_parts import (
    Material,
    Mix,
    Parts,
    assemble,
    learn_parts,
    with_networks,
)
from talkgs_cli.training.translator_windows import Lesson

Array = NDArray[np.float32]

# Blocks of the clip that the rehearsal leaves out, as shares of it, and what is dropped around.
# A long clip can spare four, spread over it: two say too much of two sentences.
BLOCKS = ((0.375, 0.5), (0.875, 1.0))
MORE_BLOCKS = ((0.1, 0.16), (0.37, 0.43), (0.63, 0.69), (0.92, 0.98))
LONG_S = 40.0
GAP_S = 0.5
MIN_S = 4.0
# With a base: a second or two left out of less than this choose badly, and what was learnt from so
# little alone only harms. Two clips, 5 s of each, r on the rest: this mix .54 and .50; half of it
# fresh and linear .44 and .47.
MIN_S_WITH_BASE = 10.0
UNREHEARSED = Mix(tuned=1.0, fresh=0.0, linear=0.1)
UNREHEARSED_STRENGTH = 3.0
UNREHEARSED_GAIN = 1.2
# What is best over many blocks of several clips. A few unseen seconds of one clip are a poor judge:
# what differs must lower the error by this share, and on a short clip, whose rehearsal had to learn
# from far less than the fit, nothing may differ.
USUAL = Mix(tuned=1.0, fresh=0.5, linear=0.1)
PRICE_OF_UNUSUAL = 0.05
TUNED_SHARES = (0.0, 0.4, 0.7, 1.0)
FRESH_SHARES = (0.0, 0.5, 1.0)
LINEAR_SHARES = (0.0, 0.1, 0.35)


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
    features: Rows,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> Found:
    """Learn without two or four blocks of the clip, and choose on them.

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
    blocks = _blocks(lesson.usable, frame_rate, MIN_S_WITH_BASE if material.base else MIN_S)
    fixed = UNREHEARSED if material.base is not None else Mix(1.0, 0.0, config.linear_share)
    if not blocks:
        gain = UNREHEARSED_GAIN if material.base is not None else 1.0
        return Found(fixed, UNREHEARSED_STRENGTH, gain, {})
    unseen = np.zeros(len(mouth), bool)
    near = np.zeros(len(mouth), bool)
    gap = round(GAP_S * frame_rate)
    for block in blocks:
        unseen[block] = True
        near[max(0, block.start - gap) : block.stop + gap] = True
    unseen &= lesson.usable
    known = replace(lesson, usable=lesson.usable & ~near)
    own = known.seeing(slice(frame.based, None))
    strength = best_strength(own, unseen, frame.about.taps)
    small = with_networks(frame, frame.about.networks if material.base else 1)
    parts = learn_parts(small, replace(material, lesson=known), strength, config, advance)

    mix = fixed
    if material.base is not None and frame.about.networks:
        mix = USUAL if frame.about.networks > 1 else replace(USUAL, fresh=0.0)
        if lesson.usable.sum() >= LONG_S * frame_rate:
            mix = _best_mix(small, parts, lesson, unseen, config, mix)
    opening = frame.opening.numpy()

    def guess(gain: float) -> Array:
        trial = assemble(small, parts, mix)
        trial.about = replace(trial.about, gain=gain)
        return trial.predict(features, len(mouth), frame_rate, clip_timing=True).numpy()

    spread = max(float((guess(1.0)[unseen] @ opening).std()), 1e-9)
    ratio = float((mouth[unseen] @ opening).std()) / spread
    gain = float(np.clip(config.liveliness * ratio, 1.0, config.max_gain))
    figures = behaviour(guess(gain), mouth, mouth[known.usable], unseen, opening)
    return Found(mix, strength, gain, figures)


@torch.no_grad()
def _best_mix(
    frame: MotionTranslator,
    parts: Parts,
    lesson: Lesson,
    unseen: NDArray[np.bool_],
    config: TranslatorConfig,
    usual: Mix,
) -> Mix:
    """The usual mix, unless another has clearly less error of lip codes on unseen frames."""
    components = torch.from_numpy(lesson.components)
    positions = lesson.positions[unseen]

    def heard(model: Callable[[Tensor], Tensor], part: slice, reach: int) -> Array:
        raw = run_in_pieces(model, components[:, part], reach, 400)
        curve = smooth(raw, config.smoothing_s)
        return sample_at(curve.numpy(), positions, rate_hz=1)

    def of_network(index: int, tuned: float) -> Array:
        network = frame.networks[index].eval()
        network.load_state_dict(parts.network(index, tuned))
        return heard(network, frame.seen_by(index), frame.margin)

    kernel, bias = (torch.from_numpy(array) for array in parts.linear)
    taps = frame.about.taps // 2
    own = slice(frame.based, None)
    linear = heard(lambda piece: F.conv1d(piece, kernel, bias, padding=taps), own, taps)
    tuned = {share: of_network(0, share) for share in TUNED_SHARES}
    count = len(frame.networks)
    fresh = [of_network(index, 1.0) for index in range(1, count)]
    others = np.mean(fresh, axis=0) if fresh else 0.0

    truth = lesson.codes[unseen]

    def price(mix: Mix) -> float:
        networks = (1 - mix.fresh) * tuned[mix.tuned] + mix.fresh * others
        codes = mix.linear * linear + (1 - mix.linear) * networks
        # A gain follows, so timid parts aren't preferred: only what no gain can mend counts.
        gain = max(float((codes * truth).sum() / max(np.square(codes).sum(), 1e-9)), 0.0)
        error = float(np.square(gain * codes - truth).mean())
        return error * (1 + PRICE_OF_UNUSUAL * (mix != usual))

    mixes = [
        Mix(share, new, line)
        for share in TUNED_SHARES
        for new in (FRESH_SHARES if fresh else (0.0,))
        for line in LINEAR_SHARES
    ]
    return min(mixes, key=price)


def _blocks(usable: NDArray[np.bool_], frame_rate: Fraction, least_s: float) -> list[slice]:
    """Blocks to leave out: none when the clip is too short to spare any."""
    where = np.flatnonzero(usable)
    if len(where) < least_s * frame_rate:
        return []
    first, count = where[0], where[-1] + 1 - where[0]
    shares = MORE_BLOCKS if count > LONG_S * frame_rate else BLOCKS
    return [slice(int(first + low * count), int(first + high * count)) for low, high in shares]
