"""Whisper's encoder states beside the log-mel spectrogram, by CTranslate2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.networks.audio_windows import WindowedEncoder
from talkgs_cli.networks.log_mel_encoder import MELS, every_20_ms, log_mel


class WhisperEncoder(WindowedEncoder):
    """Whisper encoder states beside the log-mel spectrogram.

    The states tell phones apart across voices and languages, the spectrogram keeps what a speech
    recogniser throws away: how loud, how sharp.
    """

    def __init__(self, folder: Path, name: str = "whisper-tiny.en", threads: int = 0) -> None:
        """Load the network.

        Args:
            folder: The model in CTranslate2 format.
            name: What a translator stores, to refuse other features.
            threads: CPU threads; 0 leaves the choice to CTranslate2.
        """
        import ctranslate2

        self.name = name
        with _torch_threads_kept():
            self._model: Any = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type="float32", intra_threads=threads
            )
        self.dim = self._states(np.zeros((MELS, 100), np.float32)).shape[1] + MELS

    def window_features(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """[192240] samples to [600, 384 + 80]."""
        mel = log_mel(sound)
        return np.concatenate([self._states(mel), every_20_ms(mel)], axis=1)

    def _states(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        import ctranslate2

        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None]))
        with _torch_threads_kept():
            return np.array(self._model.encode(view, to_cpu=True), np.float32)[0]


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Let CTranslate2 not change the number of torch threads.

    Both use OpenMP: CTranslate2 sets the thread count of the whole process, and a fit that goes on
    with more torch threads than it asked for is several times slower.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(name: str, threads: int) -> WhisperEncoder:
    """The encoder, its weights fetched if they aren't here."""
    from talkgs_cli.assets import fetch

    return WhisperEncoder(fetch("whisper_tiny_en"), name, threads)
