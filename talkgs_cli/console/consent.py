"""Asks once whether the person in a video agreed; it records nothing and never blocks a script."""

from __future__ import annotations

import sys
from pathlib import Path

from typer import confirm

from talkgs_cli.console.lines import print_error
from talkgs_cli.errors import BadInput
from talkgs_cli.speaker import SpeakerFolder


def consent_stated(video: Path, out: Path, stated: bool, *, ask: bool) -> bool:
    """Whether consent is stated: by the option, earlier for this folder, or now at a terminal."""
    if stated or _consent_on_record(out):
        return True
    if not video.is_file():
        return False  # the stage says what is wrong
    print_error("A speaker is someone's likeness: make one only with that person's consent.")
    if not (ask and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return confirm("Did the person in the video agree?", default=False, err=True)


def _consent_on_record(out: Path) -> bool:
    try:
        record = SpeakerFolder.open_(out).stage("prepare") or {}
    except BadInput:
        return False
    return bool((record.get("config") or {}).get("consent") == "stated")
