"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from talkgs_cli.console.boundary import JSON_FLAG

SpeakerArgument = Annotated[
    Path | None,
    Argument(metavar="SPEAKER", help="Speaker folder; without it, the speaker here."),
]
ForceOption = Annotated[
    bool, Option("--force", help="Do it again although there is a finished result.")
]
JsonOption = Annotated[bool, Option(JSON_FLAG, help="Print the answer as one JSON object.")]
TRANSLATOR_FLAG = "--translator"
TRANSLATOR_HELP = "NAME, FOLDER or Hub REPO[@REV] of a base translator"
