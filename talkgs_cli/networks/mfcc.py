"""Mel-frequency cepstra as SyncNet was trained on; for that network only.

Source: Davis & Mermelstein 1980, with the settings that the network's authors used: 25 ms frames
every 10 ms without a window, 26 triangles up to half the sample rate, 13 cosine coefficients, sine
lifter of 22, the first coefficient replaced by the log energy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_S, STEP_S = 0.025, 0.010
EMPHASIS = 0.97
FFT = 512
TRIANGLES, COEFFICIENTS, LIFTER = 26, 13, 22
TINY = float(np.finfo(float).eps)


def mfcc(samples: NDArray[np.floating], sample_rate_hz: int = 16_000) -> NDArray[np.float32]:
    """Cepstra of a sound.

    Args:
        samples: [S] mono, as 16-bit integers would be (-32768 to 32767).
        sample_rate_hz: Samples a second.

    Returns:
        [T100, 13], a hundred a second.
    """
    from scipy.fft import dct

    emphasised = np.append(samples[:1], samples[1:] - EMPHASIS * samples[:-1])
    power = np.abs(np.fft.rfft(_frames(emphasised, sample_rate_hz), FFT)) ** 2 / FFT
    energy = np.maximum(power.sum(1), TINY)
    mel = np.log(np.maximum(power @ _triangles(sample_rate_hz).T, TINY))
    found = dct(mel, type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    found *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    found[:, 0] = np.log(energy)
    return np.asarray(found, np.float32)


def _frames(samples: NDArray[np.floating], sample_rate_hz: int) -> NDArray[np.floating]:
    """[T, 400] overlapping pieces, the last filled up with zeros."""
    length, step = round(FRAME_S * sample_rate_hz), round(STEP_S * sample_rate_hz)
    count = 1 + max(0, -(-(len(samples) - length) // step))
    padded = np.zeros((count - 1) * step + length)
    padded[: len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::step]


def _triangles(sample_rate_hz: int) -> NDArray[np.float64]:
    """[26, FFT / 2 + 1] filters, evenly spaced in mel."""
    top_mel = 2595 * np.log10(1 + sample_rate_hz / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, top_mel, TRIANGLES + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * corners_hz / sample_rate_hz).astype(int)
    filters = np.zeros((TRIANGLES, FFT // 2 + 1))
    for row, (low, middle, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = np.arange(low, middle), np.arange(middle, high)
        filters[row, rising] = (rising - low) / (middle - low)
        filters[row, falling] = (high - falling) / (high - middle)
    return filters
