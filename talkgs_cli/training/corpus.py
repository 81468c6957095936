"""What a base translator learns from: features of recordings beside what the lips do in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import atomic_path

Array = NDArray[np.float32]


@dataclass
class Recording:
    """One recording at 50 Hz.

    Attributes:
        voice: Whose it is; what is measured on a voice is never learnt from it.
        features: [n, D].
        shifted: [n, D] of the same speech in another timbre; equal to `features` where none is.
        curves: [n, 2] opening and width (`visemes.CURVES`).
        active: [n] 1 where someone speaks.
    """

    voice: str
    features: Array
    shifted: Array
    curves: Array
    active: Array


@dataclass
class Corpus:
    """Recordings by one encoder.

    Attributes:
        encoder: Its name.
        recordings: In order.
        made_with: What they were drawn with, so that other settings don't take them for theirs.
    """

    encoder: str
    recordings: list[Recording] = field(default_factory=list)
    made_with: str = ""

    @property
    def duration_s(self) -> float:
        """Seconds of sound, without the shifted copies."""
        return sum(len(item.features) for item in self.recordings) / 50

    def save(self, path: Path) -> None:
        """Write a safetensors file (features in half precision)."""
        from safetensors.numpy import save_file

        arrays = {}
        for index, item in enumerate(self.recordings):
            for name in ("features", "shifted", "curves", "active"):
                arrays[f"{index:05d}.{item.voice}.{name}"] = getattr(item, name).astype(np.float16)
        with atomic_path(path) as partial:
            save_file(arrays, partial, {"encoder": self.encoder, "made_with": self.made_with})

    @staticmethod
    def origin(path: Path) -> str:
        """`made_with` of a file, without reading its arrays; empty where there is none to trust."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                return str((file.metadata() or {}).get("made_with", ""))
        except (SafetensorError, OSError):
            return ""

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Read it back.

        Raises:
            BadInput: not such a file.
        """
        from safetensors import SafetensorError, safe_open

        found: dict[tuple[str, str], dict[str, Array]] = {}
        try:
            with safe_open(path, framework="np") as file:
                encoder = file.metadata()["encoder"]
                made_with = file.metadata().get("made_with", "")
                for key in sorted(file.keys()):
                    index, rest = key.split(".", 1)
                    voice, _, name = rest.rpartition(".")
                    value = file.get_tensor(key).astype(np.float32)
                    found.setdefault((index, voice), {})[name] = value
            recordings = [Recording(voice, **arrays) for (_, voice), arrays in found.items()]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path} can't be read as a corpus: {error}", hint="Leave it out to make it again."
            ) from error
        return cls(encoder, recordings, made_with)
