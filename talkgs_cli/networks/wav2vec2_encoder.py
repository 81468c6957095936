"""wav2vec 2.0, the paper's speech encoder, through `transformers`; needs talkgs[wav2vec2].

Its last hidden states, 768 numbers each 20 ms. It sees the sound in the same windows as Whisper, so
that an hour takes no more memory than a minute. It runs on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.networks.audio_windows import LEVEL_DBFS, WINDOW_FEATURES, WindowedEncoder

# Feature k of its seven convolutions sees samples 320 k .. 320 k + 400, so is about 320 k + 200.
SEEN = 400 + 320 * (WINDOW_FEATURES - 1)
# It was trained on recordings of unit variance; here the speech in them is at LEVEL_DBFS.
SCALE = 10 ** (-LEVEL_DBFS / 20)
# Only used in training, and absent from some published files.
NOT_NEEDED = {"masked_spec_embed"}


class Wav2Vec2Encoder(WindowedEncoder):
    """Last hidden states of a wav2vec 2.0 model."""

    def __init__(self, folder: Path, name: str = "wav2vec2-base-960h") -> None:
        """Load the network.

        Args:
            folder: config.json and model.safetensors, as `transformers` writes them.
            name: What a translator stores, to refuse other features.

        Raises:
            BadInput: the folder holds no wav2vec 2.0 model.
        """
        self.name = name
        self._model = _load(folder)
        self.dim = int(self._model.config.hidden_size)

    @torch.inference_mode()
    def window_features(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """[192240] samples to [600, D]."""
        samples = torch.from_numpy(sound[None, :SEEN] * np.float32(SCALE))
        states: NDArray[np.float32] = self._model(samples).last_hidden_state[0].numpy()
        return states


def load(name: str, threads: int) -> Wav2Vec2Encoder:
    """The encoder, its weights fetched if they aren't here; torch's own setting rules threads.

    Raises:
        DownloadFailed: its weights can't be had.
    """
    from talkgs_cli.assets import fetch

    return Wav2Vec2Encoder(fetch("wav2vec2_base_960h"), name)


def _load(folder: Path) -> Any:
    """The network without its recognition head, every tensor accounted for."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        model = Wav2Vec2Model(Wav2Vec2Config(**config))
        body = {
            name.removeprefix("wav2vec2."): value
            for name, value in tensors.items()
            if not name.startswith("lm_head.")
        }
        found = model.load_state_dict(body, strict=False)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{folder} holds no wav2vec 2.0 model: {error}") from error
    wrong = {*found.missing_keys, *found.unexpected_keys} - NOT_NEEDED
    if wrong:
        raise BadInput(
            f"{folder} holds another model than wav2vec 2.0: {', '.join(sorted(wrong)[:3])}."
        )
    return model.eval()
