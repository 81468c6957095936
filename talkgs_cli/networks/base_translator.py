"""`BaseTranslator`: speech features of any voice to lip curves that any speaker's mouth can follow.

A release folder holds it: config.json (all that is not a tensor) and model.safetensors. It knows
no face; `training.adaptation` makes it one speaker's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from talkgs_cli.errors import BadInput
from talkgs_cli.frame_rows import Rows, in_parts
from talkgs_cli.networks.mouth_networks import build_network, run_in_pieces
from talkgs_cli.runtime import atomic_path, write_json

# 2: the curves are those of the sound; in 1 they led it by 80 ms.
FORMAT = 2
CURVES = ("opening", "width", "active")
# A recording's own mean counts for as much as this many samples of speech of the voice known.
PRIOR_SAMPLES = 150.0
FEATURES_AT_ONCE = 4096


@dataclass(frozen=True)
class BaseDescription:
    """All of a base translator that is not a tensor.

    Attributes:
        encoder: Name of the audio encoder.
        feature_size: D of its features.
        components: K, principal components of the features that the network sees.
        architecture: A name of `mouth_networks.ARCHITECTURES`.
        width: Channels of the small architecture.
        trained_on: What the weights were learnt from, in words.
        figures: What training measured on voices left out.
    """

    encoder: str
    feature_size: int
    components: int
    architecture: str = "conv"
    width: int = 96
    trained_on: str = ""
    figures: dict[str, float] = field(default_factory=dict)


class BaseTranslator(nn.Module):
    """Features to opening, width and voice activity at 50 Hz."""

    feature_mean: Tensor  # [D] mean of speech
    feature_scale: Tensor  # [D] one over the standard deviation
    projection: Tensor  # [D, K]
    curve_range: Tensor  # [2, 2] low and high of opening and width while someone speaks

    def __init__(self, about: BaseDescription) -> None:
        super().__init__()
        self.about = about
        shapes: dict[str, tuple[int, ...]] = {
            "feature_mean": (about.feature_size,),
            "feature_scale": (about.feature_size,),
            "projection": (about.feature_size, about.components),
            "curve_range": (2, 2),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.network = build_network(about.architecture, about.components, len(CURVES), about.width)
        self.eval()

    @property
    def piece(self) -> int:
        """Samples that the network is given at a time."""
        return 3000 if self.about.architecture == "conv" else 400

    def components(self, features: Tensor, mean: Tensor | None = None) -> Tensor:
        """[n, D] features to [n, K], standardised about a voice's mean (default: the base's)."""
        centre = self.feature_mean if mean is None else mean
        return ((features - centre) * self.feature_scale) @ self.projection

    @torch.no_grad()
    def curves(self, components: Tensor) -> Tensor:
        """[n, K] to [n, 3]: opening, width, voice activity."""
        return run_in_pieces(self.network, components, self.network.reach, self.piece)

    @torch.no_grad()
    def voice_mean(self, features: Tensor | Rows, known: Tensor | None = None) -> Tensor:
        """[D] mean of the speech in a recording, drawn towards a known mean when it is short.

        Args:
            features: [n, D].
            known: [D]; default: the base's own.
        """
        known = self.feature_mean if known is None else known
        parts = list(in_parts(len(features), FEATURES_AT_ONCE))
        found = [self.components(torch.as_tensor(features[part]), known) for part in parts]
        active = self.curves(torch.cat(found))[:, 2] > 0.5
        total = PRIOR_SAMPLES * known
        for part in parts:
            total = total + torch.as_tensor(features[part])[active[part]].sum(0)
        return total / (float(active.sum()) + PRIOR_SAMPLES)

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors (half precision)."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        with atomic_path(folder / "model.safetensors") as partial:
            save_file(state, partial)
        write_json(folder / "config.json", {"format": FORMAT, **asdict(self.about)})

    @classmethod
    def load(cls, folder: Path) -> BaseTranslator:
        """Read a release folder; strict.

        Raises:
            BadInput: files missing, damaged, or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            base = cls(describe(config))
            state = load_file(folder / "model.safetensors")
            base.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise BadInput(
                f"{folder} can't be read as a translator: {error}",
                hint="Get the translator again, or train one: talkgs translator train",
            ) from error
        return base


def describe(config: dict[str, Any]) -> BaseDescription:
    """The description in a config.json; unknown keys are refused."""
    values = {key: value for key, value in config.items() if key not in ("format", "model_sha256")}
    if config.get("format") != FORMAT:
        raise ValueError(f"format {config.get('format')}, this talkgs reads {FORMAT}")
    if unknown := set(values) - {item.name for item in fields(BaseDescription)}:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    return BaseDescription(**values)
