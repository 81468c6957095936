"""The learnt parts of a speaker's translator, and how they are mixed into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.networks.mouth_networks import MouthNetwork, build_network
from talkgs_cli.training.adaptation import (
    LipGeometry,
    Weights,
    code_loss,
    heard_curves,
    interpolated,
    map_from_geometry,
    map_from_sound,
    tune,
    with_speakers_lips,
)
from talkgs_cli.training.base import schedule
from talkgs_cli.training.translator_linear import linear_filter, silence_filter
from talkgs_cli.training.translator_windows import Lesson, WindowSampler

Array = NDArray[np.float32]

LEARNING_RATE = 2e-3


def with_networks(frame: MotionTranslator, most: int) -> MotionTranslator:
    """A blank translator of at most so many networks, otherwise the same."""
    small = MotionTranslator(replace(frame.about, networks=min(most, frame.about.networks)))
    small.load_state_dict(frame.state_dict(), strict=False)
    return small


@dataclass
class Material:
    """What the parts are learnt from.

    Attributes:
        lesson: Sound and lip codes of the clip.
        geometry: Opening and width of its mouth.
        base: What to start from, or None.
    """

    lesson: Lesson
    geometry: LipGeometry
    base: BaseTranslator | None


@dataclass(frozen=True)
class Mix:
    """How much of each part.

    Attributes:
        tuned: 0 the base with this speaker's lips, 1 tuned on the speaker.
        fresh: Share, among the networks, of those that never saw the base.
        linear: Share of the linear filter in the mean with the networks.
    """

    tuned: float
    fresh: float
    linear: float

    def of_networks(self, count: int, based: bool) -> list[float]:
        """Weights of the networks in their mean, the one from the base first."""
        if not based or count < 2:
            return [1 / max(count, 1)] * count
        return [1 - self.fresh] + [self.fresh / (count - 1)] * (count - 1)


@dataclass
class Parts:
    """Everything learnt.

    Attributes:
        starts: Weights of the first network before tuning; empty without a base.
        tuned: Per network its weights after training.
        linear: Kernel [Z, K, taps] and bias [Z].
        silence: Kernel [1, K, taps] and bias [1].
    """

    starts: list[Weights]
    tuned: list[Weights]
    linear: tuple[Array, Array]
    silence: tuple[Array, Array]

    def network(self, index: int, tuned: float) -> Weights:
        """Weights of a network; the one from the base is interpolated."""
        if index < len(self.starts):
            return interpolated(self.starts[index], self.tuned[index], tuned)
        return self.tuned[index]


def learn_parts(
    frame: MotionTranslator,
    material: Material,
    strength: float,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> Parts:
    """Learn all parts from the usable frames.

    Args:
        frame: A blank translator; says the sizes.
        material: The clip.
        strength: Regularisation of the linear filter.
        config: Settings.
        advance: Told of each step.
    """
    taps = frame.about.taps
    lesson = material.lesson.seeing(slice(frame.based, None))
    parts = Parts([], [], linear_filter(lesson, taps, strength), silence_filter(lesson, taps))
    for index in range(frame.about.networks):
        seeded = replace(config, seed=config.seed + index)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded.seed)
            if material.base is not None and index == 0:
                shared = material.lesson.seeing(slice(0, frame.based))
                network = _started(
                    replace(material, lesson=shared), material.base, config.tuning_dropout
                )
                parts.starts.append(_weights(network))
                tune(network, shared, seeded, advance)
            else:
                about = frame.about
                network = build_network(
                    about.architecture,
                    about.components - frame.based,
                    about.codes,
                    about.width,
                    config.dropout,
                )
                _train_network(network, lesson, seeded, advance)
        parts.tuned.append(_weights(network))
    return parts


def silent_parts(
    frame: MotionTranslator,
    geometry: LipGeometry,
    codes: Array,
    usable: NDArray[np.bool_],
    base: BaseTranslator,
) -> Parts:
    """The parts of a speaker who was never heard."""
    about = frame.about
    network = with_speakers_lips(base, map_from_geometry(geometry, codes, usable, base), 0.0)
    weights = _weights(network)
    own = about.components - frame.based
    linear = np.zeros((about.codes, own, about.taps), np.float32)
    return Parts(
        [weights],
        [weights],
        (linear, np.zeros(about.codes, np.float32)),
        (linear[:1], np.zeros(1, np.float32)),
    )


def assemble(frame: MotionTranslator, parts: Parts, mix: Mix) -> MotionTranslator:
    """A translator of the blank one and the parts."""
    about = replace(
        frame.about,
        linear_share=mix.linear,
        tuned_share=mix.tuned,
        network_shares=mix.of_networks(frame.about.networks, bool(parts.starts)),
    )
    translator = MotionTranslator(about)
    translator.load_state_dict(frame.state_dict())
    for name, value in (
        ("linear_weight", parts.linear[0]),
        ("linear_bias", parts.linear[1]),
        ("silence_weight", parts.silence[0]),
        ("silence_bias", parts.silence[1]),
    ):
        getattr(translator, name).copy_(torch.from_numpy(value))
    for index, network in enumerate(translator.networks):
        network.load_state_dict(parts.network(index, mix.tuned))
    return translator.eval()


def _started(material: Material, base: BaseTranslator, dropout: float) -> MouthNetwork:
    """The base's network with this speaker's lips."""
    lesson = material.lesson
    prior = map_from_geometry(material.geometry, lesson.codes, lesson.usable, base)
    heard = heard_curves(base, lesson.components, lesson.positions[lesson.usable])
    curve_map = map_from_sound(heard, lesson.codes[lesson.usable], prior)
    return with_speakers_lips(base, curve_map, dropout)


def _weights(network: nn.Module) -> Weights:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _train_network(
    network: nn.Module,
    lesson: Lesson,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> None:
    """Adam on windows of the clip, from nothing; the loss lives in lip-code space."""
    windows = WindowSampler(lesson, np.random.default_rng(config.seed))
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    smoothness = config.smoothness_weight / max(config.vertex_weight, 1e-9)
    network.train()
    for step in range(config.iterations):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, config.iterations)
        batch = windows.draw()
        codes = batch.read(network(batch.components))  # [B, L, Z]
        loss = code_loss(codes, batch.codes, batch.weight, smoothness)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        advance(1)
