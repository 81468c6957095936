"""Sound to features at 50 Hz: what is being said, and how loudly, in one vector each 20 ms.

It knows nothing of faces or frames; `timing` relates its samples to video. Sample k describes the
sound around k / 50 s. Each encoder is a file of its own and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import MachineLacks, UsageError
from talkgs_cli.networks.audio_windows import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FEATURE,
    Loudness,
    measure_loudness,
    normalise_loudness,
)
from talkgs_cli.networks.log_mel_encoder import LogMelEncoder

__all__ = [
    "DEFAULT_ENCODER",
    "ENCODERS",
    "SAMPLES_PER_FEATURE",
    "SAMPLE_RATE_HZ",
    "AudioEncoder",
    "LogMelEncoder",
    "Loudness",
    "load_encoder",
    "measure_loudness",
    "normalise_loudness",
    "require_encoder",
]


@dataclass(frozen=True)
class Entry:
    """Where an encoder is: a module of this package with `load(name, threads)`.

    Attributes:
        module: Imported when the encoder is asked for.
        package: What it needs beyond what talkgs always needs.
        extra: The extra of talkgs that brings the package.
    """

    module: str
    package: str = ""
    extra: str = ""


ENCODERS = {
    "whisper-tiny.en": Entry("whisper_encoder"),
    "wav2vec2-base-960h": Entry("wav2vec2_encoder", package="transformers", extra="wav2vec2"),
    "log-mel": Entry("log_mel_encoder"),
}

DEFAULT_ENCODER = "whisper-tiny.en"


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

    def encode_stream(
        self, chunks: Iterable[NDArray[np.float32]], loudness: Loudness | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Describe a recording as it comes in, in constant memory.

        Args:
            chunks: [n] each, of any lengths: mono, 16 kHz. How they are cut changes nothing.
            loudness: Of the whole recording, by `measure_loudness` in a pass before this; the
                features are then those of `encode`. Without it each window is brought to the level
                of what was heard up to its end, which settles within the first words.

        Yields:
            [m, D], in all ceil(n / 320); the first when 10 s were heard, or at the end.

        Raises:
            BadInput: no samples, or values that aren't numbers.
        """


def load_encoder(name: str = DEFAULT_ENCODER, threads: int = 0) -> AudioEncoder:
    """The encoder of that name, its weights fetched if they aren't here.

    Args:
        name: A key of `ENCODERS`.
        threads: CPU threads; 0 leaves the choice to the library that runs it.

    Raises:
        UsageError: an unknown name.
        MachineLacks: the extra it needs isn't installed.
        DownloadFailed: its weights can't be had.
    """
    require_encoder(name)
    module = import_module(f"{__package__}.{ENCODERS[name].module}")
    encoder: AudioEncoder = module.load(name, threads)
    return encoder


def require_encoder(name: str) -> None:
    """Check that an encoder can be loaded here; downloads nothing.

    Raises:
        UsageError: an unknown name.
        MachineLacks: the extra it needs isn't installed.
    """
    if name not in ENCODERS:
        raise UsageError(
            f"There is no audio encoder {name!r}.", hint=f"Known: {', '.join(ENCODERS)}"
        )
    entry = ENCODERS[name]
    if entry.package and find_spec(entry.package) is None:
        raise MachineLacks(
            f"The audio encoder {name} needs the package {entry.package}.",
            hint=f"Install it with: pip install 'talkgs[{entry.extra}]'",
        )
