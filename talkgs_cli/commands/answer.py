"""The last lines of a command: what there is to say, the path made, the next command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from talkgs_cli import console


def already_done_note(answer: dict[str, Any]) -> list[str]:
    """The line that says that nothing was done, or none."""
    return ["Already done; nothing was changed."] if answer.get("already_done") else []


def quoted(path: Path | str) -> str:
    """A path as one word of a shell command."""
    return shlex.quote(str(path))


def finish(
    answer: dict[str, Any],
    *,
    path: Path | str,
    said: list[str],
    next_command: str,
    as_json: bool,
) -> None:
    """The last lines of a command: what there is to say, the path made, the next command."""
    for line in said:
        console.print_error(line)
    if as_json:
        console.print_json(answer)
    else:
        console.print_result(str(path))
    console.print_error(f"Next: {next_command}")
