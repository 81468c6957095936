"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from talkgs_cli.console.boundary import JSON_FLAG

READ_LATER: Any = {"readable": False}
"""For options that name a file to read: one that may not be read is told as any unusable file is,
by whoever reads it (exit code 3), not as a wrong command line."""

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
