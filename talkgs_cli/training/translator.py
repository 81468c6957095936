"""Train the voice-to-mouth model of one speaker on the sound and the mouth of their own clip.

A linear filter, which keeps its head with other voices, and small networks, which close the lips:
their mean is better than either. What they are worth is measured on blocks of the clip that a
rehearsal did not see; the final model then learns from everything it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.networks.motion_translator import (
    MotionTranslator,
    MouthNetwork,
    TranslatorDescription,
)
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, frame_times_s, sample_at
from talkgs_cli.runtime import Progress
from talkgs_cli.training.translator_data import (
    LipCode,
    SoundSpace,
    closed_mouth,
    opening_direction,
)
from talkgs_cli.training.translator_linear import (
    best_lag_s,
    best_strength,
    linear_filter,
    silence_filter,
)
from talkgs_cli.training.translator_measure import behaviour
from talkgs_cli.training.translator_windows import Lesson, WindowSampler

Array = NDArray[np.float32]

MIN_FRAMES = 25
# Blocks of the clip that the rehearsal leaves out, as shares of it, and what is dropped around.
REHEARSAL_BLOCKS = ((0.375, 0.5), (0.875, 1.0))
GAP_S = 0.5
MIN_REHEARSAL_S = 4.0
LEARNING_RATE = 2e-3
# A little beyond what was seen is still this speaker.
RANGE_QUANTILES = (0.002, 0.998)


def train_translator(
    features: Array,
    mouth: Array | Tensor,
    lip_basis: Array | Tensor,
    opening_pair: tuple[int, int],
    valid: NDArray[np.bool_] | Tensor,
    frame_rate: Fraction,
    config: TranslatorConfig,
    progress: Progress,
    *,
    silence: Sequence[Array] = (),
) -> MotionTranslator:
    """Learn how this speaker's mouth goes with their voice.

    Args:
        features: [n, D] of the whole clip's sound at 50 Hz.
        mouth: [T, M] mouth vectors, frame t on screen from t / rate.
        lip_basis: [M, P, 3] metres that each mouth number moves each lip point, y up.
        opening_pair: Which two of the P points are the inner upper and inner lower lip.
        valid: [T] bool, frames to learn from; the caller clears what it holds out.
        frame_rate: Frames a second.
        config: Settings; `config.encoder` names the features.
        progress: Told of the work.
        silence: Features of pauses (`translator_data.silence_features`), answered with the
            speaker's closed mouth.

    Returns:
        The translator; `about.figures` holds what the rehearsal measured.

    Raises:
        BadInput: too few usable frames, or a mouth that never moves.
    """
    features = np.asarray(features, np.float32)
    mouth = np.asarray(mouth, np.float32)
    basis = np.asarray(lip_basis, np.float32)
    usable = np.asarray(valid, bool) & (
        frame_times_s(len(mouth), frame_rate) < len(features) / FEATURE_RATE_HZ
    )
    opening = opening_direction(basis, opening_pair)
    _require_material(mouth, usable, opening)
    lip_code = LipCode.fit(
        mouth[usable], basis, config.parameter_weight / max(config.vertex_weight, 1e-9)
    )
    times_s = frame_times_s(len(mouth), frame_rate)
    space = SoundSpace.fit(sample_at(features, times_s[usable]), config.components)
    components = space(features)
    lag_s = best_lag_s(components, times_s, mouth @ opening, usable)
    lesson = Lesson(
        components=components,
        positions=(times_s + lag_s) * FEATURE_RATE_HZ,
        codes=lip_code.encode(mouth),
        usable=usable,
        silence=[space(pause) for pause in silence if len(pause)],
    )
    about = TranslatorDescription(
        encoder=config.encoder,
        feature_size=features.shape[1],
        components=components.shape[1],
        codes=lesson.codes.shape[1],
        mouth_size=mouth.shape[1],
        taps=2 * round(config.context_s * FEATURE_RATE_HZ) + 1,
        width=config.width,
        networks=config.networks,
        linear_share=config.linear_share,
        lag_s=lag_s,
        smoothing_s=config.smoothing_s,
    )
    frame = _blank(about, space, lip_code, mouth[usable], opening, lesson)
    return _rehearse_and_train(frame, lesson, mouth, frame_rate, features, config, progress)


def _require_material(mouth: Array, usable: NDArray[np.bool_], opening: Array) -> None:
    if usable.sum() < MIN_FRAMES:
        raise BadInput(
            f"Only {int(usable.sum())} frames have both a face and sound; the voice-to-mouth model "
            f"needs at least {MIN_FRAMES}.",
            hint="Use a longer clip of the person speaking.",
        )
    if float((mouth[usable] @ opening).std()) < 1e-6:
        raise BadInput(
            "The mouth never moves in this clip, so nothing can be learnt from its sound.",
            hint="Use a clip in which the person speaks.",
        )


def _blank(
    about: TranslatorDescription,
    space: SoundSpace,
    lip_code: LipCode,
    mouth: Array,
    opening: Array,
    lesson: Lesson,
) -> MotionTranslator:
    """A translator with everything but its learnt parts."""
    frame = MotionTranslator(about)
    codes = lesson.codes[lesson.usable]
    rest = closed_mouth(mouth, opening)
    values = {
        "feature_mean": space.mean,
        "feature_scale": space.scale,
        "projection": space.projection,
        "code_range": np.quantile(codes, RANGE_QUANTILES, axis=0),
        "decoder": lip_code.decoder,
        "mouth_mean": lip_code.mean,
        "rest": rest,
        "rest_code": lip_code.encode(rest),
        "opening": opening,
        "opening_range": np.quantile(mouth @ opening, RANGE_QUANTILES),
    }
    for name, value in values.items():
        getattr(frame, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return frame


def _rehearse_and_train(
    frame: MotionTranslator,
    lesson: Lesson,
    mouth: Array,
    frame_rate: Fraction,
    features: Array,
    config: TranslatorConfig,
    progress: Progress,
) -> MotionTranslator:
    """Measure gain and figures on unseen blocks (with one network), then learn from everything."""
    blocks = _rehearsal_blocks(lesson.usable, frame_rate)
    networks = config.networks + (min(1, config.networks) if blocks else 0)
    rounds = networks * config.iterations or None
    figures: dict[str, float] = {}
    gain = 1.0
    strength = 3.0
    with progress.stage("Learning the mouth from the voice", rounds) as advance:
        if blocks:
            unseen = np.zeros(len(mouth), bool)
            near = np.zeros(len(mouth), bool)
            gap = round(GAP_S * frame_rate)
            for block in blocks:
                unseen[block] = True
                near[max(0, block.start - gap) : block.stop + gap] = True
            unseen &= lesson.usable
            rehearsal = replace(lesson, usable=lesson.usable & ~near)
            strength = best_strength(rehearsal, unseen, frame.about.taps)
            small = MotionTranslator(replace(frame.about, networks=min(1, config.networks)))
            small.load_state_dict(frame.state_dict(), strict=False)
            trial = _learn(small, rehearsal, strength, config, advance)
            seen = mouth[rehearsal.usable]
            gain = _fitted_gain(trial, features, mouth, unseen, frame_rate, config)
            trial.about = replace(trial.about, gain=gain)
            guess = trial.predict(features, len(mouth), frame_rate, clip_timing=True).numpy()
            figures = behaviour(guess, mouth, seen, unseen, frame.opening.numpy())
        final = _learn(frame, lesson, strength, config, advance)
    figures |= {"lag_s": frame.about.lag_s, "gain": gain, "ridge_strength": strength}
    final.about = replace(final.about, gain=gain, figures=figures)
    return final


def _rehearsal_blocks(usable: NDArray[np.bool_], frame_rate: Fraction) -> list[slice]:
    """Blocks to leave out: none when the clip is too short to spare any."""
    where = np.flatnonzero(usable)
    if len(where) < MIN_REHEARSAL_S * frame_rate:
        return []
    first, count = where[0], where[-1] + 1 - where[0]
    return [
        slice(int(first + low * count), int(first + high * count)) for low, high in REHEARSAL_BLOCKS
    ]


def _fitted_gain(
    trial: MotionTranslator,
    features: Array,
    mouth: Array,
    unseen: NDArray[np.bool_],
    frame_rate: Fraction,
    config: TranslatorConfig,
) -> float:
    """What brings the prediction near the liveliness of the unseen mouth."""
    opening = trial.opening.numpy()
    guess = trial.predict(features, len(mouth), frame_rate, clip_timing=True).numpy()
    ratio = (mouth[unseen] @ opening).std() / max(float((guess[unseen] @ opening).std()), 1e-9)
    return float(np.clip(config.liveliness * ratio, 1.0, config.max_gain))


def _learn(
    frame: MotionTranslator,
    lesson: Lesson,
    strength: float,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> MotionTranslator:
    """Fill a copy of the blank translator with learnt parts."""
    translator = MotionTranslator(frame.about)
    translator.load_state_dict(frame.state_dict())
    weight, bias = linear_filter(lesson, frame.about.taps, strength)
    translator.linear_weight.copy_(torch.from_numpy(weight))
    translator.linear_bias.copy_(torch.from_numpy(bias))
    weight, bias = silence_filter(lesson, frame.about.taps)
    translator.silence_weight.copy_(torch.from_numpy(weight))
    translator.silence_bias.copy_(torch.from_numpy(bias))
    for index in range(frame.about.networks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + index)
            network = MouthNetwork(
                frame.about.components, frame.about.codes, frame.about.width, config.dropout
            )
            _train_network(network, lesson, config, config.seed + index, advance)
        translator.networks[index].load_state_dict(network.state_dict())
    return translator.eval()


def _train_network(
    network: MouthNetwork,
    lesson: Lesson,
    config: TranslatorConfig,
    seed: int,
    advance: Callable[[int], None],
) -> None:
    """Adam on windows of the clip; the loss lives in lip-code space."""
    windows = WindowSampler(lesson, np.random.default_rng(seed))
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            min(1.0, (step + 1) / 30)
            * (0.5 + 0.5 * np.cos(np.pi * step / max(1, config.iterations)))
        ),
    )
    smoothness = config.smoothness_weight / max(config.vertex_weight, 1e-9)
    network.train()
    for _ in range(config.iterations):
        batch = windows.draw()
        curve = network(batch.components)  # [B, Z, n]
        codes = batch.read(curve)  # [B, L, Z]
        weight = batch.weight[..., None]  # [B, L, 1]
        error = (weight * (codes - batch.codes) ** 2).sum() / weight.sum().clamp_min(1)
        steps = torch.diff(codes - batch.codes, dim=1)
        both = weight[:, 1:] * weight[:, :-1]
        loss = error + smoothness * (both * steps**2).sum() / both.sum().clamp_min(1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rate.step()
        advance(1)
