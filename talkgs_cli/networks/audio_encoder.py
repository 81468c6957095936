"""Sound to features at 50 Hz: what is being said, and how loudly, in one vector each 20 ms.

It knows nothing of faces or frames; `timing` relates its samples to video. Sample k describes the
sound around k / 50 s: the spectrogram frame centred there, and the Whisper state that its two
convolutions centre on that same frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.timing import FEATURE_RATE_HZ

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FEATURE = SAMPLE_RATE_HZ // FEATURE_RATE_HZ

# Whisper's own front end (Radford et al. 2022, section 2.2): 25 ms windows every 10 ms, 80 mels,
# log10 clamped 8 below the maximum, then (x + 4) / 4.
WINDOW = 400
HOP = 160
MELS = 80
# The clamp follows the loudest frame in the original, so that a window's features depend on what
# else is in it. Loudness is normalised here, and the ceiling is what normalised speech reaches.
LOG_CEILING = 1.5

# Speech is brought to this level; quieter input than the floor is taken for silence and gets no
# more gain than the floor gets (so that a hum isn't raised to speech).
LEVEL_DBFS = -23.0
LEVEL_FLOOR_DBFS = -45.0

# The network sees 12 s at a time. Positions near the ends of a window come out different, so one
# second is dropped on each side and the next two are blended with the neighbour.
WINDOW_S = 12
HOP_S = 8
LEAD_S = 2
DROP_S = 1


class AudioEncoder(Protocol):
    """Speech features. A translator is bound to the encoder it was trained with, by name."""

    name: str
    dim: int
    rate_hz: int

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Describe a recording.

        Args:
            samples: [n] mono, 16 kHz, about [-1, 1].

        Returns:
            [ceil(n / 320), D]; sample k describes the sound around k / 50 s.

        Raises:
            BadInput: no samples, or values that aren't numbers.
        """


class LogMelEncoder:
    """Loudness-normalised log-mel spectrogram only: needs no weights, knows no phones."""

    name = "log-mel"
    dim = MELS
    rate_hz = FEATURE_RATE_HZ

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `AudioEncoder.encode`."""
        samples = normalise_loudness(samples)
        return np.concatenate([_every_20_ms(mel)[part] for _, mel, part in _windows(samples)])[
            : feature_count(len(samples))
        ]


class WhisperEncoder:
    """Whisper encoder states beside the log-mel spectrogram.

    The states tell phones apart across voices and languages, the spectrogram keeps what a speech
    recogniser throws away: how loud, how sharp.
    """

    rate_hz = FEATURE_RATE_HZ

    def __init__(self, folder: Path, name: str = "whisper-tiny.en", threads: int = 0) -> None:
        """Load the network.

        Args:
            folder: The model in CTranslate2 format.
            name: What a translator stores, to refuse other features.
            threads: CPU threads; 0 leaves the choice to CTranslate2.
        """
        import ctranslate2

        self.name = name
        self._model: Any = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="float32", intra_threads=threads
        )
        self.dim = self._states(np.zeros((MELS, 100), np.float32)).shape[1] + MELS

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `AudioEncoder.encode`. Memory beyond the result does not grow with length."""
        samples = normalise_loudness(samples)
        count = feature_count(len(samples))
        features = np.zeros((count, self.dim), np.float32)
        total = np.zeros(count, np.float32)
        weight = _blend_weight()
        for start, mel, _ in _windows(samples):
            window = np.concatenate([self._states(mel), _every_20_ms(mel)], axis=1)
            first, last = max(start, 0), min(start + len(window), count)
            inside = slice(first - start, last - start)
            features[first:last] += weight[inside, None] * window[inside]
            total[first:last] += weight[inside]
        return np.asarray(features / total[:, None], np.float32)

    def _states(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        import ctranslate2

        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None]))
        return np.array(self._model.encode(view, to_cpu=True), np.float32)[0]


def load_encoder(name: str = "whisper-tiny.en", threads: int = 0) -> AudioEncoder:
    """The encoder of that name, its weights fetched if they aren't here.

    Raises:
        UsageError: an unknown name.
        DownloadFailed: its weights can't be had.
    """
    if name == LogMelEncoder.name:
        return LogMelEncoder()
    if name == "whisper-tiny.en":
        from talkgs_cli.assets import fetch

        return WhisperEncoder(fetch("whisper_tiny_en"), name, threads)
    raise UsageError(f"There is no audio encoder {name!r}.", hint="Known: whisper-tiny.en, log-mel")


def feature_count(sample_count: int) -> int:
    """How many features a recording of that many samples has."""
    return -(-sample_count // SAMPLES_PER_FEATURE)


def normalise_loudness(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring the speech in a recording to one level.

    The level is the mean power of the 100 ms blocks that are neither silent nor 10 dB below the
    rest (the gating of ITU-R BS.1770, without its frequency weighting), so pauses don't count.

    Raises:
        BadInput: no samples, or values that aren't numbers.
    """
    samples = np.asarray(samples, np.float32).reshape(-1)
    if not len(samples):
        raise BadInput("The sound is empty.", hint="Give a recording with something in it.")
    if not np.isfinite(samples).all():
        raise BadInput("The sound holds values that aren't numbers.", hint="Export it again.")
    samples = samples - samples.mean(dtype=np.float64).astype(np.float32)
    block = min(len(samples), SAMPLE_RATE_HZ // 10)
    whole = samples[: len(samples) // block * block].reshape(-1, block)
    power = np.einsum("bi,bi->b", whole, whole).astype(np.float64) / block
    floor = 10 ** (LEVEL_FLOOR_DBFS / 10)
    loud = power[power > 1e-6]
    loud = loud[loud > 0.1 * loud.mean()] if len(loud) else loud
    level = max(floor, float(loud.mean())) if len(loud) else floor
    gain = 10 ** (LEVEL_DBFS / 20) / np.sqrt(level)
    return np.asarray(samples * gain, np.float32)


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


@cache
def _mel_filters() -> NDArray[np.float64]:
    import librosa

    filters: NDArray[np.float64] = librosa.filters.mel(
        sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=MELS, dtype=np.float64
    )
    return filters


def _windows(samples: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32], slice]]:
    """Windows of 12 s every 8 s, the first with 2 s of silence before the sound.

    Yields:
        Index of the window's first feature, its [80, 1200] log-mel, the part of its features that
        belongs to no other window.
    """
    half = WINDOW // 2
    core = slice(LEAD_S * FEATURE_RATE_HZ, (LEAD_S + HOP_S) * FEATURE_RATE_HZ)
    for index in range(len(samples) // (HOP_S * SAMPLE_RATE_HZ) + 1):
        start = (index * HOP_S - LEAD_S) * SAMPLE_RATE_HZ
        first = start - half
        last = start + WINDOW_S * SAMPLE_RATE_HZ - HOP + half
        inside = samples[max(first, 0) : max(last, 0)]
        padded = np.zeros(last - first, np.float32)
        padded[max(-first, 0) : max(-first, 0) + len(inside)] = inside
        yield start // SAMPLES_PER_FEATURE, log_mel(padded), core


def _blend_weight() -> NDArray[np.float32]:
    """[600] weight of a window's features: zero where dropped, a ramp where two windows meet."""
    time_s = np.arange(WINDOW_S * FEATURE_RATE_HZ) / FEATURE_RATE_HZ
    ramp_s = 2 * (LEAD_S - DROP_S)
    rise = (time_s - DROP_S) / ramp_s
    fall = (WINDOW_S - DROP_S - time_s) / ramp_s
    return np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32)


def _every_20_ms(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """[80, 2n] at 100 Hz to [n, 80] at 50 Hz, each the mean around its even frame."""
    side = np.concatenate([mel[:, :1], mel[:, 1:-1:2]], axis=1)
    return (0.5 * mel[:, ::2] + 0.25 * (side + mel[:, 1::2])).T
