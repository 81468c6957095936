"""Make a base translator one speaker's: a map from lip curves to their lip code, then tuning.

The map comes from what the speaker's lips can do, and from how they went with the sound where there
is sound. It becomes the network's last layer, so that tuning starts from a network that already
speaks with this mouth, and weights can be interpolated between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.mouth_networks import MouthNetwork, build_network
from talkgs_cli.networks.timing import sample_at
from talkgs_cli.training.base import schedule
from talkgs_cli.training.translator_windows import Lesson, WindowSampler

Array = NDArray[np.float32]
Weights = dict[str, Tensor]

# The map from geometry counts for as much as this many frames of sound and mouth.
PRIOR_FRAMES = 150.0


@dataclass(frozen=True)
class LipGeometry:
    """How open and how wide a speaker's mouth was in each frame.

    Attributes:
        opening: [T] metres between the inner lips.
        width: [T] metres between the corners.
    """

    opening: Array
    width: Array


def map_from_geometry(
    lips: LipGeometry, codes: Array, usable: NDArray[np.bool_], base: BaseTranslator
) -> NDArray[np.float64]:
    """[3, Z]: lip code for an opening, a width and 1, from the mouth's own motion alone.

    The base's range of opening and width in speech becomes the speaker's.
    """
    low, high = base.curve_range.numpy().astype(np.float64)
    inputs = np.ones((int(usable.sum()), 3))
    for column, values in enumerate((lips.opening, lips.width)):
        bottom, top = np.quantile(values[usable], [0.05, 0.95])
        share = (values[usable] - bottom) / max(float(top - bottom), 1e-9)
        inputs[:, column] = low[column] + share * (high[column] - low[column])
    gram = inputs.T @ inputs + 1e-3 * len(inputs) * np.diag([1.0, 1.0, 0.0])
    return np.asarray(np.linalg.solve(gram, inputs.T @ codes[usable]))


def map_from_sound(curves: Array, codes: Array, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, Z]: lip code for what the base hears, regressed towards the map from geometry.

    Args:
        curves: [T, 2] the base's opening and width at the usable frames.
        codes: [T, Z].
        prior: [3, Z].
    """
    inputs = np.concatenate([curves, np.ones((len(curves), 1))], axis=1).astype(np.float64)
    strength = PRIOR_FRAMES * np.diag([*np.maximum(inputs[:, :2].var(0), 1e-3), 0.1])
    gram = inputs.T @ inputs + strength
    return np.asarray(np.linalg.solve(gram, inputs.T @ codes + strength @ prior))


def with_speakers_lips(
    base: BaseTranslator, curve_map: NDArray[np.float64], dropout: float
) -> MouthNetwork:
    """The base's network with lip codes [Z] for outputs."""
    about = base.about
    size = curve_map.shape[1]
    network = build_network(about.architecture, about.components, size, about.width, dropout)
    state = dict(base.network.state_dict())
    weight = torch.from_numpy(curve_map[:2].T).float()  # [Z, 2]
    state["leave.weight"] = (weight @ state["leave.weight"][:2, :, 0])[..., None]
    offset = torch.from_numpy(curve_map[2]).float()
    state["leave.bias"] = weight @ state["leave.bias"][:2] + offset
    network.load_state_dict(state)
    return network


def interpolated(start: Weights, tuned: Weights, share: float) -> Weights:
    """Weights between two networks; share 0 is `start`."""
    return {name: (1 - share) * start[name] + share * tuned[name] for name in start}


def tune(
    network: MouthNetwork,
    lesson: Lesson,
    config: TranslatorConfig,
    advance: Callable[[int], None],
) -> None:
    """Train on the speaker's clip: few steps on a short one, so that other voices stay known.

    Args:
        network: Starts from the base; changed in place.
        lesson: The clip.
        config: Settings.
        advance: Told of each step.
    """
    rng = np.random.default_rng(config.seed)
    windows = WindowSampler(lesson, rng)
    optimiser = torch.optim.AdamW(network.parameters(), config.tuning_lr, weight_decay=1e-2)
    smoothness = config.smoothness_weight / max(config.vertex_weight, 1e-9)
    seconds = float(lesson.usable.sum()) / len(lesson.usable) * len(lesson.components) / 50
    steps = round(min(config.iterations, 40 + 8 * seconds))
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = config.tuning_lr * schedule(step, steps)
        batch = windows.draw()
        codes = batch.read(network(batch.components))  # [B, L, Z]
        loss = code_loss(codes, batch.codes, batch.weight, smoothness)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        advance(1)
    network.eval()


def code_loss(codes: Tensor, truth: Tensor, weight: Tensor, smoothness: float) -> Tensor:
    """Squared error of [B, L, Z] lip codes and of their steps in time, weighted [B, L]."""
    weight = weight[..., None]
    error = codes - truth
    steps = torch.diff(error, dim=1)
    both = weight[:, 1:] * weight[:, :-1]
    loss = (weight * error**2).sum() / weight.sum().clamp_min(1)
    return loss + smoothness * (both * steps**2).sum() / both.sum().clamp_min(1)


def heard_curves(base: BaseTranslator, components: Array, positions: NDArray[np.float64]) -> Array:
    """[T, 2] the base's opening and width at positions (in samples) of [n, K] components."""
    curves = base.curves(torch.from_numpy(components)).numpy()
    return sample_at(curves[:, :2], positions, rate_hz=1)
