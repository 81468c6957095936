"""Whisper's log-mel spectrogram, and the encoder that is nothing but that: needs no weights."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.networks.audio_windows import SAMPLE_RATE_HZ, WindowedEncoder

# Whisper's own front end (Radford et al. 2022, section 2.2): 25 ms windows every 10 ms, 80 mels,
# log10 clamped 8 below the maximum, then (x + 4) / 4.
WINDOW = 400
HOP = 160
MELS = 80
# The clamp follows the loudest frame in the original, so that a window's features depend on what
# else is in it. Loudness is normalised here, and the ceiling is what normalised speech reaches.
LOG_CEILING = 1.5


class LogMelEncoder(WindowedEncoder):
    """Loudness-normalised log-mel spectrogram only: knows no phones."""

    name = "log-mel"
    dim = MELS

    def window_features(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """[192240] samples to [600, 80]."""
        return every_20_ms(log_mel(sound))


def load(name: str, threads: int) -> LogMelEncoder:
    """The encoder; there is nothing to load."""
    return LogMelEncoder()


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's log-mel spectrogram with a fixed ceiling; frames need 200 samples either side.

    Args:
        samples: [n * 160 + 400 - 160]; the centre of frame 0 is sample 200.

    Returns:
        [80, n].
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    log = np.log10(np.maximum(_mel_filters() @ power.T, 1e-10))
    return ((np.maximum(log, LOG_CEILING - 8) + 4) / 4).astype(np.float32)


def every_20_ms(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """[80, 2n] at 100 Hz to [n, 80] at 50 Hz, each the mean around its even frame."""
    side = np.concatenate([mel[:, :1], mel[:, 1:-1:2]], axis=1)
    return (0.5 * mel[:, ::2] + 0.25 * (side + mel[:, 1::2])).T


@cache
def _mel_filters() -> NDArray[np.float64]:
    import librosa

    filters: NDArray[np.float64] = librosa.filters.mel(
        sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=MELS, dtype=np.float64
    )
    return filters
