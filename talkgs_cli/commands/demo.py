"""`talkgs demo`: the options of the embedded speaker, and how the answer is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish
from talkgs_cli.commands.options import JsonOption
from talkgs_cli.console.boundary import examples

EXAMPLES = examples(
    "talkgs demo",
    "talkgs demo --folder /tmp/look",
)


def demo(
    folder: Annotated[Path, Option("--folder", help="Where everything goes.")] = Path(
        "talkgs-demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Run all four commands on a made-up speaker."""
    from talkgs_cli.config import DemoConfig
    from talkgs_cli.demo.run import demo as run

    answer = run(folder, DemoConfig(), console.make_progress())
    finish(
        answer,
        path=answer["video"],
        said=already_done_note(answer),
        next_command="talkgs prepare VIDEO",
        as_json=as_json,
    )
