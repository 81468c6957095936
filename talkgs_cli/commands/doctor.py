"""`talkgs doctor`: what the machine has, shown."""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from talkgs_cli import console
from talkgs_cli.commands.options import JsonOption
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import MachineLacks

EXAMPLES = examples(
    "talkgs doctor",
    "talkgs doctor --online --json",
)


def doctor(
    online: Annotated[
        bool, Option("--online", help="Ask the Hub too; without it nothing touches the network.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What this machine has, lacks, and the fix."""
    from talkgs_cli.stages.doctor import doctor as run

    answer = run(online=online)
    if as_json:
        console.print_json(answer)
    else:
        console.print_doctor(answer)
    if not answer["ok"]:
        raise Exit(MachineLacks.exit_code)
