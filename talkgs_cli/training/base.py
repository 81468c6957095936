"""Train a base translator on many voices: one loop, alone or under Hugging Face Accelerate.

Losses, after the paper: lip curves (vertex), their differences in time (smoothness), and the
distance between the latents of a voice and of its timbre-shifted copy (latent consistency).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from talkgs_cli.config import BaseConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.base_translator import BaseDescription, BaseTranslator
from talkgs_cli.networks.mouth_networks import MouthNetwork, build_network
from talkgs_cli.runtime import Progress
from talkgs_cli.training.corpus import Corpus, Recording
from talkgs_cli.training.translator_data import SoundSpace

Array = NDArray[np.float32]

CURVE_SCALE = 2.0  # rules keep to about half of their range; this brings curves to unit size
EVERY = 3  # of the samples, to find the principal components
MIN_SAMPLES = 100


class BaseLoss(nn.Module):
    """The network with its losses, so that data parallelism sees one forward."""

    def __init__(self, network: MouthNetwork, config: BaseConfig) -> None:
        super().__init__()
        self.network = network
        self.smoothness = config.smoothness_weight / config.vertex_weight
        self.latent = config.latent_weight

    def forward(self, components: Tensor, shifted: Tensor, targets: Tensor) -> Tensor:
        """Loss of [B, K, n] components, their shifted copies and [B, 3, n] targets."""
        latent = self.network.latent(components)
        error = self.network.from_latent(latent) - targets
        loss = error.square().mean() + self.smoothness * torch.diff(error, dim=2).square().mean()
        if self.latent:
            loss = loss + self.latent * (latent - self.network.latent(shifted)).square().mean()
        return loss


def train_base(
    corpus: Corpus,
    config: BaseConfig,
    progress: Progress,
    *,
    accelerator: Any = None,
    hold_out: tuple[str, ...] = (),
) -> BaseTranslator:
    """Learn lip curves from any voice.

    Args:
        corpus: Recordings; their encoder becomes the translator's.
        config: Settings.
        progress: Told of the work.
        accelerator: An `accelerate.Accelerator`; None trains in this process alone.
        hold_out: Voices not to learn from, to measure on.

    Raises:
        BadInput: too little material.
    """
    chosen = [
        item
        for item in corpus.recordings
        if item.voice not in hold_out and len(item.features) >= MIN_SAMPLES
    ]
    if not any(item.active.any() for item in chosen):
        raise BadInput("There is no speech to train on.", hint="Give speakers with sound.")
    space = fit_space(chosen, config.components)
    first = chosen[0].features.shape[1]
    about = BaseDescription(
        corpus.encoder, first, space.projection.shape[1], config.architecture, config.width
    )
    _require_equal_shares(config, accelerator)
    rank = 0 if accelerator is None else accelerator.process_index
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(
            config.architecture, about.components, 3, config.width, config.dropout
        )
        torch.manual_seed(config.seed + rank)  # of dropout; all else is the same everywhere
        _optimise(network, _Material(chosen, space), config, progress, accelerator)
    base = _assemble(about, space, network, chosen)
    return base.eval()


def _optimise(
    network: MouthNetwork,
    material: _Material,
    config: BaseConfig,
    progress: Progress,
    accelerator: Any,
) -> None:
    # Every process draws the same windows and the same noise and takes its rows of them: the mean
    # of their gradients is then that of one process with the whole batch.
    rows, noise = slice(None), None
    if accelerator is not None:
        rows = slice(accelerator.process_index, None, accelerator.num_processes)
        noise = torch.Generator().manual_seed(config.seed)
    rng = np.random.default_rng((config.seed, 0))
    model: nn.Module = BaseLoss(network, config)
    optimiser: Any = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=1e-2)
    if accelerator is not None:
        model, optimiser = accelerator.prepare(model, optimiser)
    model.train()
    with progress.stage("Training the translator", config.iterations) as advance:
        for step in range(config.iterations):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * schedule(step, config.iterations)
            batch = material.draw(config, rng, noise)
            loss = model(*(part[rows].to(next(model.parameters()).device) for part in batch))
            optimiser.zero_grad()
            if accelerator is None:
                loss.backward()
            else:
                accelerator.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            advance(1)
    network.eval().cpu()


def _require_equal_shares(config: BaseConfig, accelerator: Any) -> None:
    count = 1 if accelerator is None else int(accelerator.num_processes)
    if config.batch % count:
        fitting = [str(k) for k in range(1, config.batch + 1) if config.batch % k == 0]
        raise UsageError(
            f"{config.batch} windows a step can't be shared evenly by {count} processes.",
            hint=f"Launch one of {', '.join(fitting)} processes.",
        )


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to nothing."""
    return float(min(1.0, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * step / max(1, steps))))


def fit_space(recordings: list[Recording], components: int) -> SoundSpace:
    """Principal components of speech, every recording standardised about its own speech."""
    centred, means = [], []
    for item in recordings:
        speech = item.active > 0.5
        mean = item.features[speech].mean(0) if speech.any() else None
        if mean is not None:
            means.append(mean)
            centred.append((item.features - mean)[::EVERY])
    space = SoundSpace.fit(np.concatenate(centred), components)
    space.mean = np.mean(means, axis=0).astype(np.float32)
    return space


class _Material:
    """Windows of components, drawn in proportion to the recordings' lengths."""

    def __init__(self, recordings: list[Recording], space: SoundSpace) -> None:
        self.plain = [_centred(item, item.features, space) for item in recordings]
        self.shifted = [_centred(item, item.shifted, space) for item in recordings]
        self.targets = [
            np.concatenate([CURVE_SCALE * item.curves, item.active[:, None]], 1)
            for item in recordings
        ]
        lengths = np.array([len(target) for target in self.targets], float)
        self.chance = lengths / lengths.sum()

    def draw(
        self, config: BaseConfig, rng: np.random.Generator, noise: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        length = min(config.window_samples, *(len(target) for target in self.targets))
        rows: list[tuple[Array, Array, Array]] = []
        for index in rng.choice(len(self.targets), config.batch, p=self.chance):
            start = int(rng.integers(0, len(self.targets[index]) - length + 1))
            part = slice(start, start + length)
            pair = [self.plain[index][part], self.shifted[index][part]]
            if config.shifted_share and rng.random() < config.shifted_share:
                pair.reverse()
            rows.append((pair[0], pair[1], self.targets[index][part]))
        plain, shifted, targets = (
            torch.from_numpy(np.stack(column)).float().transpose(1, 2)
            for column in zip(*rows, strict=True)
        )
        return _noisy(plain, config, noise), _noisy(shifted, config, noise), targets


def _noisy(components: Tensor, config: BaseConfig, generator: torch.Generator | None) -> Tensor:
    """Noise on each sample, and on each component of a whole window (another microphone)."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    channel = 1 + config.channel_noise * drawn(*components.shape[:2], 1)
    offset = config.channel_noise * drawn(*components.shape[:2], 1)
    return components * channel + offset + config.feature_noise * drawn(*components.shape)


def _centred(item: Recording, features: Array, space: SoundSpace) -> Array:
    """Components about the recording's own speech; what isn't speech about all speech."""
    speech = item.active > 0.5
    mean = features[speech].mean(0) if speech.any() else space.mean
    return np.asarray(((features - mean) * space.scale) @ space.projection, np.float32)


def _assemble(
    about: BaseDescription,
    space: SoundSpace,
    network: MouthNetwork,
    recordings: list[Recording],
) -> BaseTranslator:
    """Put network and statistics into a translator."""
    base = BaseTranslator(about)
    base.network.load_state_dict(network.state_dict())
    spoken = np.concatenate(
        [
            base.curves(torch.from_numpy(_centred(item, item.features, space)))[
                torch.from_numpy(item.active > 0.5)
            ].numpy()
            for item in recordings[:: max(1, len(recordings) // 40)]
        ]
    )
    values = {
        "feature_mean": space.mean,
        "feature_scale": space.scale,
        "projection": space.projection,
        "curve_range": np.quantile(spoken[:, :2], [0.05, 0.95], axis=0),
    }
    for name, value in values.items():
        getattr(base, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return base


def measure_base(base: BaseTranslator, recordings: list[Recording]) -> dict[str, float]:
    """How a base does on voices it never heard: correlations with the rules, and voice activity.

    Args:
        base: Trained.
        recordings: Of voices left out.

    Returns:
        opening_r, width_r while someone speaks, and active_accuracy.
    """
    heard, truth, active = [], [], []
    for item in recordings:
        features = torch.from_numpy(item.features)
        heard.append(base.curves(base.components(features, base.voice_mean(features))).numpy())
        truth.append(item.curves)
        active.append(item.active > 0.5)
    curves, rules, speech = (np.concatenate(parts) for parts in (heard, truth, active))
    result = {
        f"{name}_r": float(np.corrcoef(curves[speech, k], rules[speech, k])[0, 1])
        for k, name in enumerate(("opening", "width"))
    }
    result["active_accuracy"] = float(((curves[:, 2] > 0.5) == speech).mean())
    return {name: round(value, 4) for name, value in result.items()}
