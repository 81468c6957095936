"""Train the voice-to-mouth model of one speaker on the sound and the mouth of their own clip.

It starts from a base translator that knows many voices, tunes it, and keeps what helps: how far to
go from the base and how much of a plain linear filter to mix in is decided on blocks of the clip
that a rehearsal did not see. The final model then learns from everything it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import Rows
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.motion_translator import (
    NATURAL_LEAD_S,
    MotionTranslator,
    TranslatorDescription,
)
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, frame_times_s, sample_at
from talkgs_cli.runtime import Progress
from talkgs_cli.training.adaptation import LipGeometry
from talkgs_cli.training.translator_data import (
    LipCode,
    SoundSpace,
    closed_mouth,
    opening_direction,
    width_direction,
)
from talkgs_cli.training.translator_lag import best_lag_s, lag_by_heard_opening_s
from talkgs_cli.training.translator_parts import (
    Material,
    Mix,
    assemble,
    learn_parts,
    silent_parts,
    with_networks,
)
from talkgs_cli.training.translator_rehearsal import rehearse
from talkgs_cli.training.translator_windows import Lesson

Array = NDArray[np.float32]

MIN_FRAMES = 25
# A mouth stays where the speaker's was; the very ends are often a tracker's error.
RANGE_QUANTILES = (0.002, 0.998)
OPENING_QUANTILES = (0.002, 0.995)
TYPICAL_FRAMES, TYPICAL_PIECES = 7_500, 15


def train_translator(
    features: Rows | None,
    mouth: Array | Tensor,
    lip_basis: Array | Tensor,
    opening_pair: tuple[int, int],
    valid: NDArray[np.bool_] | Tensor,
    frame_rate: Fraction,
    config: TranslatorConfig,
    progress: Progress,
    *,
    silence: Sequence[Array] = (),
    base: BaseTranslator | None = None,
    corner_pair: tuple[int, int] = (0, 1),
) -> MotionTranslator:
    """Learn how this speaker's mouth goes with their voice.

    Args:
        features: [n, D] of the whole clip's sound at 50 Hz; None for a silent clip, whose speaker
            gets the base's way of speaking with their own lips.
        mouth: [T, M] mouth vectors, frame t on screen from t / rate.
        lip_basis: [M, P, 3] metres that each mouth number moves each lip point, y up.
        opening_pair: Which two of the P points are the inner upper and inner lower lip.
        valid: [T] bool, frames to learn from; the caller clears what it holds out.
        frame_rate: Frames a second.
        config: Settings; `config.encoder` names the features.
        progress: Told of the work.
        silence: Features of pauses (`translator_data.silence_features`), answered with the
            speaker's closed mouth.
        base: What to start from; None learns from this clip alone.
        corner_pair: Which two of the P points are the corners, right then left.

    Returns:
        The translator; `about.figures` holds what the rehearsal measured.

    Raises:
        BadInput: too few usable frames, or a mouth that never moves.
    """
    mouth = np.asarray(mouth, np.float32)
    basis = np.asarray(lip_basis, np.float32)
    usable = np.asarray(valid, bool).copy()
    if features is not None:
        usable &= frame_times_s(len(mouth), frame_rate) < len(features) / FEATURE_RATE_HZ
    opening = opening_direction(basis, opening_pair)
    _require_material(mouth, usable, opening)
    if base is not None and base.about.encoder != config.encoder:
        raise BadInput(
            f"The translator was trained on {base.about.encoder} features, not on "
            f"{config.encoder}.",
            hint="Use the encoder that the translator's config.json names.",
        )
    share = config.parameter_weight / max(config.vertex_weight, 1e-9)
    lip_code = LipCode.fit(mouth[usable], basis, share)
    geometry = LipGeometry(mouth @ opening, mouth @ width_direction(basis, corner_pair))
    if features is None:
        if base is None:
            raise BadInput(
                "The clip has no sound, and there is no translator to start from.",
                hint="Give one with --translator.",
            )
        return _without_sound(base, mouth, usable, opening, lip_code, geometry, config)
    times_s = frame_times_s(len(mouth), frame_rate)
    space = _sound_space(base, features, typical(times_s[usable]), config)
    components = space(features)
    if base is None:
        lag_s = best_lag_s(components, times_s, geometry.opening, usable)
    else:
        heard = base.curves(torch.from_numpy(components[:, : base.about.components])).numpy()
        lag_s = lag_by_heard_opening_s(heard[:, 0], times_s, geometry.opening, usable)
    lesson = Lesson(
        components=components,
        positions=(times_s + lag_s) * FEATURE_RATE_HZ,
        codes=lip_code.encode(mouth),
        usable=usable,
        silence=[space(pause) for pause in silence if len(pause)],
    )
    frame = _blank(base, config, space, lip_code, mouth, usable, opening, lag_s)
    material = Material(lesson, geometry, base)
    steps = config.networks * config.iterations * 2 or None
    with progress.stage("Learning the mouth from the voice", steps) as advance:
        found = rehearse(frame, material, mouth, frame_rate, features, config, advance)
        if base is not None and not found.mix.fresh:  # then the others would be learnt for nothing
            frame = with_networks(frame, 1)
        parts = learn_parts(frame, material, found.strength, config, advance)
    final = assemble(frame, parts, found.mix)
    figures = found.figures | {
        "lag_s": lag_s,
        "gain": found.gain,
        "ridge_strength": found.strength,
        "tuned_share": found.mix.tuned,
        "fresh_share": found.mix.fresh,
        "linear_share": found.mix.linear,
    }
    final.about = replace(final.about, gain=found.gain, figures=figures)
    return final


def _without_sound(
    base: BaseTranslator,
    mouth: Array,
    usable: NDArray[np.bool_],
    opening: Array,
    lip_code: LipCode,
    geometry: LipGeometry,
    config: TranslatorConfig,
) -> MotionTranslator:
    """The base's way of speaking with this speaker's lips."""
    space = SoundSpace(
        base.feature_mean.numpy(), base.feature_scale.numpy(), base.projection.numpy()
    )
    alone = replace(config, networks=1)
    frame = _blank(base, alone, space, lip_code, mouth, usable, opening, NATURAL_LEAD_S)
    parts = silent_parts(frame, geometry, lip_code.encode(mouth), usable, base)
    return assemble(frame, parts, Mix(tuned=0.0, fresh=0.0, linear=0.0))


def typical(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most five minutes of a long clip's times, in a few pieces: a voice's mean needs no more.

    >>> len(typical(np.arange(20000.0))), len(typical(np.arange(100.0)))
    (7500, 100)
    """
    if len(times_s) <= TYPICAL_FRAMES:
        return times_s
    length = TYPICAL_FRAMES // TYPICAL_PIECES
    starts = np.linspace(0, len(times_s) - length, TYPICAL_PIECES).astype(int)
    return np.concatenate([times_s[start : start + length] for start in starts.tolist()])


def _sound_space(
    base: BaseTranslator | None,
    features: Rows,
    times_s: NDArray[np.float64],
    config: TranslatorConfig,
) -> SoundSpace:
    """The base's components about this voice's mean, then the clip's own."""
    own = sample_at(features, times_s)
    if base is None:
        return SoundSpace.fit(own, config.components)
    mean = base.voice_mean(torch.from_numpy(own)).numpy()
    scale = base.feature_scale.numpy()
    clip = SoundSpace.fit(own, config.components)
    own_projection = (clip.scale / scale)[:, None] * clip.projection
    return SoundSpace(mean, scale, np.concatenate([base.projection.numpy(), own_projection], 1))


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
    base: BaseTranslator | None,
    config: TranslatorConfig,
    space: SoundSpace,
    lip_code: LipCode,
    mouth: Array,
    usable: NDArray[np.bool_],
    opening: Array,
    lag_s: float,
) -> MotionTranslator:
    """A translator with everything but its learnt parts."""
    from dataclasses import asdict

    codes = lip_code.encode(mouth[usable])
    known = None if base is None else replace(base.about, figures={})
    about = TranslatorDescription(
        encoder=config.encoder,
        feature_size=len(space.mean),
        components=space.projection.shape[1],
        codes=codes.shape[1],
        mouth_size=mouth.shape[1],
        taps=2 * round(config.context_s * FEATURE_RATE_HZ) + 1,
        width=config.width if known is None else known.width,
        networks=config.networks if known is None or known.architecture == "conv" else 1,
        linear_share=config.linear_share,
        architecture="conv" if known is None else known.architecture,
        base=None if known is None else asdict(known),
        lag_s=lag_s,
        smoothing_s=config.smoothing_s,
    )
    frame = MotionTranslator(about)
    rest = closed_mouth(mouth[usable], opening)
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
        "opening_range": np.quantile(mouth[usable] @ opening, OPENING_QUANTILES),
    }
    for name, value in values.items():
        getattr(frame, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
    if base is not None and frame.base is not None:
        frame.base.load_state_dict(base.state_dict())
    return frame
