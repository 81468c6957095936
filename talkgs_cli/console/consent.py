"""Asks once whether the person in a video agreed; it records nothing and never blocks a script."""

from __future__ import annotations

import sys
from pathlib import Path

from typer import confirm

from talkgs_cli.console.lines import print_error
from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import file_sha256
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare_folder import consent_on_record


def consent_stated(video: Path, out: Path, stated: bool, *, ask: bool) -> bool:
    """Whether consent is stated: by the option, earlier for this very video, or at a terminal."""
    if stated:
        return True
    if not video.is_file():
        return False  # the stage says what is wrong
    if _stated_before(video, out):
        return True
    print_error("A speaker is someone's likeness: make one only with that person's consent.")
    if not (ask and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return confirm("Did the person in the video agree?", default=False, err=True)


def _stated_before(video: Path, out: Path) -> bool:
    try:
        speaker = SpeakerFolder.open_(out)
        return consent_on_record(speaker, file_sha256(video))
    except (BadInput, OSError):  # the stage says what is wrong
        return False
