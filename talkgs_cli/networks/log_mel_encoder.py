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
    log = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    return ((np.maximum(log, LOG_CEILING - 8) + 4) / 4).astype(np.float32)


def every_20_ms(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """[80, 2n] at 100 Hz to [n, 80] at 50 Hz, each the mean around its even frame."""
    side = np.concatenate([mel[:, :1], mel[:, 1:-1:2]], axis=1)
    return (0.5 * mel[:, ::2] + 0.25 * (side + mel[:, 1::2])).T


@cache
def mel_filters() -> NDArray[np.float64]:
    """[80, 201] share of each frequency of a spectrum in each mel, as librosa's `filters.mel`.

    Slaney's scale: even up to 1000 Hz, logarithmic beyond; each triangle has the same area. librosa
    itself would be half a second of every start: it imports much of SciPy.
    """
    even_hz, bend_hz, bend_mel, ratio = 200 / 3, 1000.0, 15.0, np.log(6.4) / 27
    top_mel = bend_mel + np.log(SAMPLE_RATE_HZ / 2 / bend_hz) / ratio
    mels = np.linspace(0, top_mel, MELS + 2)
    beyond = bend_hz * np.exp(ratio * (mels - bend_mel))
    edges_hz = np.where(mels < bend_mel, mels * even_hz, beyond)  # [82]
    spectrum_hz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE_HZ)  # [201]
    width_hz = np.diff(edges_hz)[:, None]  # [81, 1]
    rising = (spectrum_hz - edges_hz[:-2, None]) / width_hz[:-1]
    falling = (edges_hz[2:, None] - spectrum_hz) / width_hz[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges_hz[2:] - edges_hz[:-2]))[:, None], np.float64)
