"""`MotionTranslator`: speech features to the mouth vector of one speaker, at any frame rate.

It is the deployable model: how it is trained is in training/translator. Everything inside runs on
the 50 Hz grid of the features; frames only read the resulting curve at their own times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import Rows, in_parts
from talkgs_cli.networks.base_translator import (
    FEATURES_AT_ONCE,
    BaseDescription,
    BaseTranslator,
)
from talkgs_cli.networks.mouth_networks import build_network, run_in_pieces
from talkgs_cli.networks.smoothing import reach_of, smooth
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, frame_times_s, sample_at
from talkgs_cli.runtime import atomic_path

FORMAT = 2
# Mouths lead the sound by about this much (people open before they voice).
NATURAL_LEAD_S = 0.05
# A lag further than this from it is taken for a fault of the clip, not of the speaker.
LAG_TOLERANCE_S = 0.12
# Samples that the model is given at a time.
PIECE = 3000
PIECE_OF_ATTENTION = 400
# A pause counts as silence where the detector is sure of it for this long to both sides, so that
# the mouth is free again before the next word; it then closes and opens over about this long.
PAUSE_REACH_S = 0.2
PAUSE_BLEND_S = 0.06


@dataclass(frozen=True)
class TranslatorDescription:
    """All that is not a tensor: written as JSON into the file's header.

    Attributes:
        encoder: Name of the audio encoder.
        feature_size: D of its features.
        components: K, principal components of the features that the model sees: those of the
            base, if there is one, then those of the speaker's own clip.
        codes: Z, size of the lip code that the model predicts.
        mouth_size: M of the mouth vector.
        taps: Features side by side that the linear part sees.
        width: Channels of each network.
        networks: How many networks are averaged.
        architecture: Of the networks: a name of `mouth_networks.ARCHITECTURES`.
        base: Description of the base translator inside; None for a model of this voice alone.
        network_shares: Weights of the networks in their mean; equal when empty.
        tuned_share: 0 is the base with this speaker's lips, 1 is all tuned on this speaker.
        linear_share: Weight of the linear part in the mean.
        lag_s: In the training clip, the mouth at t goes with the sound at t + lag.
        gain: Liveliness that averaging lost, restored about the mean.
        smoothing_s: Sigma of the Gaussian over time.
        figures: What training measured on blocks it had not seen.
    """

    encoder: str
    feature_size: int
    components: int
    codes: int
    mouth_size: int
    taps: int
    width: int
    networks: int
    linear_share: float
    architecture: str = "conv"
    base: dict[str, Any] | None = None
    network_shares: list[float] = field(default_factory=list)
    tuned_share: float = 1.0
    lag_s: float = 0.0
    gain: float = 1.0
    smoothing_s: float = 0.02
    figures: dict[str, float] = field(default_factory=dict)


class MotionTranslator(nn.Module):
    """Speech features to mouth vectors: the mean of a linear filter and a few small networks.

    The model predicts a lip code: principal components of this speaker's mouth, weighted by how
    far they move the lips. Its result stays inside the range the speaker showed. A detector of its
    own knows silence, where the mouth is closed whatever the rest says.
    """

    feature_mean: Tensor  # [D]
    feature_scale: Tensor  # [D]
    projection: Tensor  # [D, K]
    linear_weight: Tensor  # [Z, K, taps]
    linear_bias: Tensor  # [Z]
    silence_weight: Tensor  # [1, K, taps]
    silence_bias: Tensor  # [1]
    code_range: Tensor  # [2, Z] lowest and highest code
    decoder: Tensor  # [Z, M]
    mouth_mean: Tensor  # [M]
    rest: Tensor  # [M] the closed mouth
    rest_code: Tensor  # [Z]
    opening: Tensor  # [M] metres of inner-lip opening per unit of the mouth vector
    opening_range: Tensor  # [2] metres, least and most

    def __init__(self, about: TranslatorDescription) -> None:
        super().__init__()
        self.about = about
        known = BaseDescription(**about.base) if about.base else None
        own = about.components - (known.components if known else 0)
        shapes: dict[str, tuple[int, ...]] = {
            "feature_mean": (about.feature_size,),
            "feature_scale": (about.feature_size,),
            "projection": (about.feature_size, about.components),
            "linear_weight": (about.codes, own, about.taps),
            "linear_bias": (about.codes,),
            "silence_weight": (1, own, about.taps),
            "silence_bias": (1,),
            "code_range": (2, about.codes),
            "decoder": (about.codes, about.mouth_size),
            "mouth_mean": (about.mouth_size,),
            "rest": (about.mouth_size,),
            "rest_code": (about.codes,),
            "opening": (about.mouth_size,),
            "opening_range": (2,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.base = BaseTranslator(known) if known else None
        self.networks = nn.ModuleList(
            build_network(
                about.architecture,
                known.components if known and index == 0 else own,
                about.codes,
                about.width,
            )
            for index in range(about.networks)
        )
        self.eval()

    @property
    def clip_offset_s(self) -> float:
        """How late the sound of the training clip seems to be; 0 within what mouths really do."""
        offset = self.about.lag_s - NATURAL_LEAD_S
        return offset if abs(offset) > LAG_TOLERANCE_S else 0.0

    # -- prediction ------------------------------------------------------------------------------

    def project(self, features: Tensor | Rows, voice_mean: Tensor | None = None) -> Tensor:
        """[n, D] features to the [n, K] components that the model sees.

        Args:
            features: Of a recording.
            voice_mean: [D] mean of its speech; without it, found here where a base can tell.
        """
        if voice_mean is None:
            voice_mean = self.feature_mean
            if self.base is not None:
                voice_mean = self.base.voice_mean(features, self.feature_mean)
        found = torch.empty(len(features), self.projection.shape[1])
        for part in in_parts(len(features), FEATURES_AT_ONCE):
            centred = torch.as_tensor(features[part]) - voice_mean
            found[part] = (centred * self.feature_scale) @ self.projection
        return found

    def codes(self, components: Tensor, gain: float = 1.0) -> Tensor:
        """[n, K] components to [n, Z] lip codes, both at 50 Hz: lively, limited, closed at rest."""
        margin, piece = self.margin, self._piece
        raw = run_in_pieces(self._mean_of_parts, components, margin, piece)
        lively = smooth(raw, self.about.smoothing_s) * self.about.gain
        if gain != 1.0:
            lively = self.rest_code + gain * (lively - self.rest_code)
        lively = lively.clamp(self.code_range[0], self.code_range[1])
        closed = self.silence(components)[:, None]
        return closed * self.rest_code + (1 - closed) * lively

    @property
    def based(self) -> int:
        """How many of the components are the base's; the others are the speaker's own."""
        return 0 if self.base is None else self.base.about.components

    def silence(self, components: Tensor) -> Tensor:
        """[n, K] components to [n] in 0..1: 1 inside lasting silence."""

        def detect(piece: Tensor) -> Tensor:
            padding = self.about.taps // 2
            own = piece[:, self.based :]
            return F.conv1d(own, self.silence_weight, self.silence_bias, padding=padding)

        sure = components.new_zeros(len(components))
        if components.shape[1] > self.based:
            sure = run_in_pieces(detect, components, self.margin, self._piece)[:, 0]
        if self.base is not None:
            active = self.base.curves(components[:, : self.based])[:, 2]
            sure = torch.maximum(sure, 1 - active)
        sure = (4 * sure[None, None] - 1.5).clamp(0, 1)  # [1, 1, n]
        reach = round(PAUSE_REACH_S * FEATURE_RATE_HZ)
        held = F.pad(sure, (reach, reach), mode="replicate")
        lasting = -F.max_pool1d(-held, 2 * reach + 1, stride=1)
        return smooth(lasting[0].T, PAUSE_BLEND_S)[:, 0]

    def seen_by(self, index: int) -> slice:
        """Which components a network sees: the one from the base, or the own ones."""
        return slice(0, self.based) if self.based and index == 0 else slice(self.based, None)

    @property
    def margin(self) -> int:
        """Samples to each side that the parts of the model see."""
        networks = [*self.networks, *([] if self.base is None else [self.base.network])]
        return max([self.about.taps // 2, *(network.reach for network in networks)])

    @property
    def _piece(self) -> int:
        """Samples that the parts are given at a time."""
        return PIECE if self.about.architecture == "conv" else PIECE_OF_ATTENTION

    @property
    def look_ahead_samples(self) -> int:
        """How far behind the sound a stream of lip codes runs, in samples."""
        blend = reach_of(self.about.smoothing_s)
        pause = round(PAUSE_REACH_S * FEATURE_RATE_HZ) + reach_of(PAUSE_BLEND_S)
        return self.margin + max(blend, pause) + 1

    @property
    def look_ahead_s(self) -> float:
        """How much sound after a frame must be known before its mouth is."""
        return self.look_ahead_samples / FEATURE_RATE_HZ + max(self.played_lag_s(), 0.0)

    def played_lag_s(self, clip_timing: bool = False) -> float:
        """Where in the sound the mouth of time 0 is read, seconds."""
        return self.about.lag_s - (0.0 if clip_timing else self.clip_offset_s)

    def _mean_of_parts(self, components: Tensor) -> Tensor:
        share = self.about.linear_share if len(self.networks) else 1.0
        mean = torch.zeros(())
        if share:
            padding = self.about.taps // 2
            linear = F.conv1d(
                components[:, self.based :], self.linear_weight, self.linear_bias, padding=padding
            )
            mean = share * linear
        count = len(self.networks)
        shares = self.about.network_shares or [1 / max(count, 1)] * count
        for index, (network, part) in enumerate(zip(self.networks, shares, strict=True)):
            if part:
                mean = mean + (1 - share) * part * network(components[:, self.seen_by(index)])
        return mean

    def decode(self, codes: Tensor) -> Tensor:
        """[n, Z] codes to [n, M] mouth vectors, the lips no further apart than the speaker's."""
        return self._limit_opening(codes @ self.decoder) + self.mouth_mean

    def _limit_opening(self, departure: Tensor) -> Tensor:
        """Scale departures from the mean mouth so that the lips part no more and no less."""
        middle = self.mouth_mean @ self.opening
        change = departure @ self.opening  # [n]
        low, high = self.opening_range - middle
        limited = change.clamp(low, high)
        scale = torch.where(change.abs() > 1e-9, limited / change, torch.ones_like(change))
        return departure * scale.clamp(0, 1)[:, None]

    @torch.no_grad()
    def predict(
        self,
        features: Rows | Tensor,
        frame_count: int,
        frame_rate: Fraction,
        *,
        gain: float = 1.0,
        clip_timing: bool = False,
    ) -> Tensor:
        """Mouth vectors of every frame of a video.

        Args:
            features: [n, D] of the encoder named in `about`, at 50 Hz.
            frame_count: T.
            frame_rate: Frames a second.
            gain: Factor on the mouth's departure from rest; the speaker's own range still limits.
            clip_timing: Keep the training clip's own sound offset, to compare with its frames;
                without it a clip whose sound was out of step does not pass that on.

        Returns:
            [T, M] float32.

        Raises:
            BadInput: features of another size, or none.
        """
        self._require_readable(features)
        codes = self.codes(self.project(features), gain)
        times_s = frame_times_s(frame_count, frame_rate) + self.played_lag_s(clip_timing)
        return self.decode(torch.from_numpy(sample_at(codes.numpy(), times_s)))

    @torch.no_grad()
    def stream(
        self,
        chunks: Iterable[NDArray[np.float32] | Tensor],
        frame_rate: Fraction,
        *,
        gain: float = 1.0,
        voice_mean: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Mouth vectors as the sound comes in, `look_ahead_s` behind it, in constant memory.

        Args:
            chunks: [k, D] features each, in order, any lengths.
            frame_rate: Frames a second.
            gain: See `predict`.
            voice_mean: [D] mean of this voice's speech; without it, it is learnt while listening.

        Yields:
            [t, M] the next frames; after the last chunk, all that are left. With the `voice_mean`
            of the whole recording they are those of `predict`.
        """
        from talkgs_cli.networks.mouth_stream import MouthStream

        state = MouthStream(self, frame_rate, gain, voice_mean)
        for chunk in chunks:
            if len(chunk):
                self._require_readable(chunk)
                yield state.hear(torch.as_tensor(chunk, dtype=torch.float32))
        yield state.finish()

    def _require_readable(self, features: Rows | Tensor) -> None:
        """Raise `BadInput` for features of another size than the model's, or none."""
        if len(features.shape) != 2 or features.shape[1] != self.about.feature_size:
            raise BadInput(
                f"The translator reads {self.about.feature_size} numbers per 20 ms of sound "
                f"({self.about.encoder}); it was given features of shape {list(features.shape)}.",
                hint="Compute the features with the encoder the speaker was fitted with.",
            )
        if not len(features):
            raise BadInput("There are no audio features.", hint="Give a sound that isn't empty.")

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write a safetensors file with the description in its header."""
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        header = {"format": str(FORMAT), "description": json.dumps(asdict(self.about))}
        with atomic_path(path) as partial:
            save_file(state, partial, header)

    @classmethod
    def load(cls, path: Path, encoder: str | None = None) -> MotionTranslator:
        """Read a translator back.

        Args:
            path: File written by `save`.
            encoder: Name of the encoder whose features will be given; checked.

        Raises:
            BadInput: missing, damaged, of another format, or for another encoder.
        """
        from safetensors import SafetensorError, safe_open

        hint = "Run talkgs fit again with --force."
        if not path.is_file():
            raise BadInput(f"There is no translator at {path}.", hint=hint)
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = _read_description(header)
            translator = cls(about)
            translator.load_state_dict(state, strict=True)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise BadInput(f"{path} can't be read as a translator: {error}", hint=hint) from error
        if encoder is not None and encoder != about.encoder:
            raise BadInput(
                f"{path} was trained on {about.encoder} features, not on {encoder}.", hint=hint
            )
        return translator


def _read_description(header: dict[str, str]) -> TranslatorDescription:
    if header.get("format") != str(FORMAT):
        raise ValueError(f"format {header.get('format')}, this talkgs reads {FORMAT}")
    values: dict[str, Any] = json.loads(header["description"])
    if unknown := set(values) - {item.name for item in fields(TranslatorDescription)}:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    return TranslatorDescription(**values)
