"""`talkgs verify`: what a file says of its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit

from talkgs_cli import console
from talkgs_cli.commands.options import READ_LATER, JsonOption
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import BadInput

EXAMPLES = examples("talkgs verify video.mp4", "talkgs verify video.mp4 --json")


def verify(
    file: Annotated[
        Path, Argument(metavar="FILE", help="A video, of whatever origin.", **READ_LATER)
    ],
    as_json: JsonOption = False,
) -> None:
    """Say whether a video is marked as synthetic, and whether it was changed since.

    Exit code 0: marked, and what is there holds; 3: no mark, or a manifest that does not hold.
    """
    from talkgs_cli.stages.verify import verify as run

    answer = run(file)
    if as_json:
        console.print_json(answer)
    else:
        for line in answer["said"]:
            console.print_result(line)
    if not answer["synthetic"] or answer["intact"] is False:
        raise Exit(BadInput.exit_code)
