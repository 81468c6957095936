"""Long sound through networks that see 12 s at a time: one level, windows, joints that don't show.

Memory does not grow with the recording. What happens inside a window is up to the encoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.networks.timing import FEATURE_RATE_HZ

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FEATURE = SAMPLE_RATE_HZ // FEATURE_RATE_HZ

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
WINDOW_FEATURES = WINDOW_S * FEATURE_RATE_HZ
# Encoders see 12.5 ms more to the left: the first feature is about sample 200.
BEFORE = 200
WINDOW_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ + 240

BLOCK = SAMPLE_RATE_HZ // 10
SILENT_POWER = 1e-6
BINS_PER_DB = 100
BINS = 100 * BINS_PER_DB  # of power, from -60 dBFS up

Sound = NDArray[np.float32]


class Loudness:
    """The level of the speech in a recording, measured as it comes in.

    The level is the mean power of the 100 ms blocks that are neither silent nor 10 dB below the
    rest (the gating of ITU-R BS.1770, without its frequency weighting), so pauses don't count. The
    blocks are kept as a histogram in steps of 0.01 dB: an hour takes no more memory than a second.
    """

    def __init__(self) -> None:
        self._power = np.zeros(BINS)  # sum of the powers of the blocks in each bin
        self._count = np.zeros(BINS, np.int64)
        self._rest = np.zeros(0, np.float32)
        self._sum = 0.0
        self._samples = 0

    def add(self, samples: Sound) -> None:
        """Listen to the next samples.

        Raises:
            BadInput: values that aren't numbers.
        """
        if not np.isfinite(samples).all():
            raise BadInput("The sound holds values that aren't numbers.", hint="Export it again.")
        self._sum += float(samples.sum(dtype=np.float64))
        self._samples += len(samples)
        held = np.concatenate([self._rest, samples])
        whole = len(held) // BLOCK * BLOCK
        self._rest = held[whole:].copy()
        self._add_blocks(held[:whole].reshape(-1, BLOCK))

    def _add_blocks(self, blocks: Sound) -> None:
        power = blocks.var(axis=1, dtype=np.float64)
        loud = power[power > SILENT_POWER]
        decibel = 10 * np.log10(loud / SILENT_POWER)
        bins = np.minimum((decibel * BINS_PER_DB).astype(np.int64), BINS - 1)
        np.add.at(self._power, bins, loud)
        np.add.at(self._count, bins, 1)

    @property
    def heard_s(self) -> float:
        """How much of it was loud enough for speech: neither silence nor a hiss below the floor."""
        floor = round((LEVEL_FLOOR_DBFS - 10 * np.log10(SILENT_POWER)) * BINS_PER_DB)
        return float(self._count[floor:].sum()) * BLOCK / SAMPLE_RATE_HZ

    def level(self, samples: Sound) -> Sound:
        """Samples of the recording at the level of speech, their constant offset taken away.

        Raises:
            BadInput: nothing was heard yet.
        """
        if not self._samples:
            raise BadInput("The sound is empty.", hint="Give a recording with something in it.")
        offset = np.float32(self._sum / self._samples)
        return np.asarray((samples - offset) * np.float32(self._gain()), np.float32)

    def _gain(self) -> float:
        power, count = self._power, self._count
        if self._samples < BLOCK:  # a scrap of sound is one block
            scrap = Loudness()
            scrap._add_blocks(self._rest[None])
            power, count = scrap._power, scrap._count
        floor = 10 ** (LEVEL_FLOOR_DBFS / 10)
        level = floor
        if count.any():
            mean = power / np.maximum(count, 1)
            loud = mean > 0.1 * power.sum() / count.sum()
            level = max(floor, float(power[loud].sum() / count[loud].sum()))
        return float(10 ** (LEVEL_DBFS / 20) / np.sqrt(level))


def measure_loudness(chunks: Iterable[Sound]) -> Loudness:
    """Listen to a whole recording, chunk by chunk."""
    loudness = Loudness()
    for chunk in chunks:
        for piece in _pieces(chunk):
            loudness.add(piece)
    return loudness


def normalise_loudness(samples: Sound) -> Sound:
    """Bring the speech in a recording to one level.

    Raises:
        BadInput: no samples, or values that aren't numbers.
    """
    samples = np.asarray(samples, np.float32).reshape(-1)
    return measure_loudness([samples]).level(samples)


class WindowedEncoder(ABC):
    """An encoder whose network sees one window at a time."""

    name: str
    dim: int
    rate_hz = FEATURE_RATE_HZ

    @abstractmethod
    def window_features(self, sound: Sound) -> NDArray[np.float32]:
        """Features of a window.

        Args:
            sound: [192240] levelled samples; feature k is about sample 200 + 320 k.

        Returns:
            [600, D].
        """

    def encode(self, samples: Sound) -> NDArray[np.float32]:
        """Describe a recording: see `audio_encoder.AudioEncoder.encode`."""
        samples = np.asarray(samples, np.float32).reshape(-1)
        loudness = measure_loudness([samples])
        return np.concatenate(list(self.encode_stream([samples], loudness)))

    def encode_stream(
        self, chunks: Iterable[Sound], loudness: Loudness | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Describe a recording as it comes in: see `audio_encoder.AudioEncoder.encode_stream`."""
        weight = _blend_weight()
        total = np.zeros((WINDOW_FEATURES, self.dim), np.float32)
        weights = np.zeros(WINDOW_FEATURES, np.float32)
        first = -LEAD_S * FEATURE_RATE_HZ  # feature of total[0]
        done = 0
        # A window's features are final where the next one has no weight yet.
        final = (HOP_S + DROP_S) * FEATURE_RATE_HZ
        hop = HOP_S * FEATURE_RATE_HZ
        for sound, samples, last in _windows(chunks, loudness):
            total += weight[:, None] * self.window_features(sound)
            weights += weight
            stop = feature_count(samples) if last else first + final
            part = slice(done - first, stop - first)
            if stop > done:
                yield np.asarray(total[part] / weights[part, None], np.float32)
            done, first = stop, first + hop
            total = np.concatenate([total[hop:], np.zeros_like(total[:hop])])
            weights = np.concatenate([weights[hop:], np.zeros_like(weights[:hop])])


def feature_count(sample_count: int) -> int:
    """How many features a recording of that many samples has."""
    return -(-sample_count // SAMPLES_PER_FEATURE)


def _windows(
    chunks: Iterable[Sound], loudness: Loudness | None
) -> Iterator[tuple[Sound, int, bool]]:
    """Windows of 12 s every 8 s, the first with 2 s of silence before the sound.

    Without a loudness each window is at the level of what was heard up to its end.

    Yields:
        [192240] levelled samples, how many samples were heard so far, whether it is the last.

    Raises:
        BadInput: no samples, or values that aren't numbers.
    """
    heard = loudness or Loudness()
    held = np.zeros(0, np.float32)
    begin = 0  # sample held[0] of the recording
    start = -LEAD_S * SAMPLE_RATE_HZ  # sample where the window's first feature lies
    listened = 0
    for piece in (piece for chunk in chunks for piece in _pieces(chunk)):
        held = np.concatenate([held, piece])
        while begin + len(held) > (end := start - BEFORE + WINDOW_SAMPLES):
            if loudness is None:
                heard.add(held[listened - begin : end - begin])
                listened = end
            yield _cut(held, start - BEFORE - begin, heard), end, False
            start += HOP_S * SAMPLE_RATE_HZ
            kept = max(0, start - BEFORE - begin)
            held, begin = held[kept:], begin + kept
    samples = begin + len(held)
    if loudness is None:
        heard.add(held[listened - begin :])
    last = samples // (HOP_S * SAMPLE_RATE_HZ) * HOP_S * SAMPLE_RATE_HZ - LEAD_S * SAMPLE_RATE_HZ
    while start <= last:
        yield _cut(held, start - BEFORE - begin, heard), samples, start == last
        start += HOP_S * SAMPLE_RATE_HZ


def _cut(held: Sound, first: int, loudness: Loudness) -> Sound:
    """A window that begins at held[first], silence where there is no sound."""
    inside = held[max(first, 0) : max(first + WINDOW_SAMPLES, 0)]
    window = np.zeros(WINDOW_SAMPLES, np.float32)
    window[max(-first, 0) : max(-first, 0) + len(inside)] = loudness.level(inside)
    return window


def _pieces(chunk: Sound) -> Iterator[Sound]:
    """A chunk of any length in pieces of at most a second."""
    chunk = np.asarray(chunk, np.float32).reshape(-1)
    for start in range(0, len(chunk), SAMPLE_RATE_HZ):
        yield chunk[start : start + SAMPLE_RATE_HZ]


def _blend_weight() -> NDArray[np.float32]:
    """[600] weight of a window's features: zero where dropped, a ramp where two windows meet."""
    time_s = np.arange(WINDOW_FEATURES) / FEATURE_RATE_HZ
    ramp_s = 2 * (LEAD_S - DROP_S)
    rise = (time_s - DROP_S) / ramp_s
    fall = (WINDOW_S - DROP_S - time_s) / ramp_s
    return np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32)
