"""What the translator learns from: lip codes, sound components, and what silence sounds like.

It prepares numbers; nothing here is optimised by gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.frame_rows import Rows, in_parts
from talkgs_cli.networks.audio_encoder import SAMPLE_RATE_HZ, AudioEncoder, normalise_loudness

Array = NDArray[np.float32]

SILENCE_S = 3.0
SPEECH_BEFORE_S = 1.5
# Mouths stay ajar in the short pauses inside a sentence; rest is asked for only after this long.
SETTLING_S = 0.8
CLOSED_QUANTILES = (0.03, 0.15)
FEATURES_AT_ONCE = 4096


@dataclass
class LipCode:
    """A speaker's mouth in few numbers, ordered by how far they move the lips.

    Squared distance between two codes is the paper's vertex loss plus its parameter loss, each in
    units of what this speaker does: lip points over their RMS departure from the mean, parameters
    over theirs. (In metres and radians the two could not be weighed for another head.)

    Attributes:
        mean: [M] mean mouth.
        encoder: [M, Z].
        decoder: [Z, M].
    """

    mean: Array
    encoder: Array
    decoder: Array

    @classmethod
    def fit(cls, mouth: Array, lip_basis: Array, parameter_share: float, size: int = 16) -> LipCode:
        """Find the code.

        Args:
            mouth: [T, M] mouth vectors to learn from.
            lip_basis: [M, P, 3] metres per unit.
            parameter_share: Weight of the parameter loss over that of the vertex loss.
            size: Most numbers a code may have.
        """
        mean = mouth.mean(0)
        departure = (mouth - mean).astype(np.float64)
        basis = lip_basis.reshape(len(lip_basis), -1).astype(np.float64)
        lip_rms = np.sqrt(np.square(departure @ basis).sum(1).mean()) + 1e-9
        spread = departure.std(0)
        scale = np.sqrt(parameter_share / len(spread)) / np.maximum(spread, 1e-3 * spread.max())
        space = np.concatenate([basis / lip_rms, np.diag(scale)], axis=1)  # [M, 3P + M]
        _, _, right = np.linalg.svd(departure @ space, full_matrices=False)
        axes = right[: min(size, len(spread))]  # [Z, 3P + M]
        encoder = space @ axes.T
        decoder = axes @ np.linalg.pinv(space)
        return cls(mean, encoder.astype(np.float32), decoder.astype(np.float32))

    def encode(self, mouth: Array) -> Array:
        """[..., M] to [..., Z]."""
        return np.asarray((mouth - self.mean) @ self.encoder, np.float32)


@dataclass
class SoundSpace:
    """Standardised features and the principal components the model sees.

    Attributes:
        mean: [D].
        scale: [D] one over the standard deviation.
        projection: [D, K], scaled so that the components' mean variance is 1.
    """

    mean: Array
    scale: Array
    projection: Array

    @classmethod
    def fit(cls, features: Array, components: int) -> SoundSpace:
        """Learn from [n, D] features of the speaker's own sound."""
        mean = features.mean(0)
        scale = 1 / (features.std(0) + 1e-2)
        standard = (features - mean) * scale
        values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
        kept = min(components, len(values))
        top = vectors[:, ::-1][:, :kept]
        power = np.sqrt(max(float(values[::-1][:kept].mean()), 1e-9))
        return cls(mean, scale, np.ascontiguousarray(top / power, np.float32))

    def __call__(self, features: Rows) -> Array:
        """[n, D] to [n, K]."""
        found = np.empty((len(features), self.projection.shape[1]), np.float32)
        for part in in_parts(len(features), FEATURES_AT_ONCE):
            found[part] = ((features[part] - self.mean) * self.scale) @ self.projection
        return found


def opening_direction(lip_basis: Array, opening_pair: tuple[int, int]) -> Array:
    """[M]: metres that the inner lips part, per unit of each mouth number.

    Args:
        lip_basis: [M, P, 3] metres per unit, y up.
        opening_pair: Indices of the upper and of the lower inner-lip point.
    """
    upper, lower = opening_pair
    return np.asarray(lip_basis[:, upper, 1] - lip_basis[:, lower, 1], np.float32)


def width_direction(lip_basis: Array, corner_pair: tuple[int, int]) -> Array:
    """[M]: metres that the mouth's corners part, per unit of each mouth number.

    Args:
        lip_basis: [M, P, 3] metres per unit, x to the subject's left.
        corner_pair: Indices of the right and of the left corner.
    """
    right, left = corner_pair
    return np.asarray(lip_basis[:, left, 0] - lip_basis[:, right, 0], np.float32)


def closed_mouth(mouth: Array, opening: Array) -> Array:
    """[M]: this speaker's mouth at rest, the median of frames with nearly the least opening.

    The very least are lips pressed together for a p, b or m.
    """
    amount = mouth @ opening
    low, high = np.quantile(amount, CLOSED_QUANTILES)
    return np.asarray(np.median(mouth[(amount >= low) & (amount <= high)], axis=0), np.float32)


def silence_features(encoder: AudioEncoder, samples: Array, seed: int = 0) -> list[Array]:
    """Features of pauses: silence and faint noises, each after some of the speaker's own speech.

    Without them a mouth that never saw silence hangs half open in it.

    Args:
        encoder: The speaker's encoder.
        samples: [n] the speaker's own sound, 16 kHz.
        seed: Of the noises and of the excerpts.

    Returns:
        One [n, D] a kind of silence.
    """
    rng = np.random.default_rng(seed)
    count = int(SILENCE_S * SAMPLE_RATE_HZ)
    white = rng.standard_normal((3, count))
    rumble = np.cumsum(rng.standard_normal(count))
    rumble -= np.convolve(rumble, np.ones(800) / 800, "same")
    levels_dbfs = (None, -70.0, -60.0, -52.0, -52.0)
    kinds = [np.zeros(count), *white, rumble / rumble.std()]
    sound = normalise_loudness(samples)
    speech_count = min(int(SPEECH_BEFORE_S * SAMPLE_RATE_HZ), len(sound))
    parts, starts = [], []
    for level, kind in zip(levels_dbfs, kinds, strict=True):
        at = int(rng.integers(0, len(sound) - speech_count + 1))
        parts.append(sound[at : at + speech_count])
        starts.append(sum(map(len, parts)))
        parts.append(kind * (0 if level is None else 10 ** (level / 20)))
    features = encoder.encode(np.concatenate(parts).astype(np.float32))
    hum = np.sin(2 * np.pi * 50 * np.arange(count) / SAMPLE_RATE_HZ)
    # Recordings of nothing but noise: loudness normalisation raises them towards speech.
    lone = ((0.0, hum), (1e-3, white[0]), (5e-3, white[1]), (1e-2, kinds[4]), (1e-2, hum))
    alone = [encoder.encode((scale * kind).astype(np.float32)) for scale, kind in lone]
    rate = encoder.rate_hz
    pauses = []
    for start in starts:
        first = int((start / SAMPLE_RATE_HZ + SETTLING_S) * rate)
        last = int((start + count) / SAMPLE_RATE_HZ * rate - 0.1 * rate)
        pauses.append(features[first:last])
    return [*pauses, *alone]
