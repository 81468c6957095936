"""The configuration of every stage: frozen dataclasses, presets as named instances, JSON on disk.

It knows no tensors and reads no environment; a stage gets one resolved config and records it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from talkgs_cli.errors import BadInput, UsageError

ConfigT = TypeVar("ConfigT")


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def from_json(kind: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Read a config back; unknown or missing keys are refused."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(values) - known:
        raise BadInput(
            f"{kind.__name__} has no field {', '.join(sorted(unknown))}.",
            hint="The file was written by another version of talkgs: run the stage again.",
        )
    return kind(**values)


@dataclass(frozen=True)
class PrepareConfig:
    """How a video becomes a speaker folder."""

    # Head model: "open" or "flame:PATH".
    head: str = "open"
    # Longest side of the stored crop frames, pixels. Larger crops are resampled down to it.
    crop_size: int = 512
    # Frame rates above this are halved until they are not (60 -> 30, 50 -> 25).
    max_frame_rate: int = 30
    # What the user said about the person's consent.
    consent: str = "not stated"

    def __post_init__(self) -> None:
        if not 128 <= self.crop_size <= 1024 or self.crop_size % 16:
            raise UsageError(f"crop_size is {self.crop_size}: use a multiple of 16, 128 to 1024.")
        if self.consent not in ("stated", "not stated"):
            raise UsageError(f"consent is {self.consent!r}: 'stated' or 'not stated'.")
