"""Single lines: messages on stderr, results on stdout, an answer as one JSON object."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any


def print_error(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def print_result(text: str) -> None:
    """One line on stdout: the result, and nothing else ever.

    A path may hold bytes that are no text; they go out as they are, for whoever opens it.
    """
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text) + b"\n")
    sys.stdout.flush()


def print_json(answer: dict[str, Any]) -> None:
    """The answer as one JSON object on stdout; what JSON can't hold (NaN, infinity) is null."""
    print_result(json.dumps(_plain(answer), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
