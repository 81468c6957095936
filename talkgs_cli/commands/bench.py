"""`talkgs bench`: the timings, shown."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from talkgs_cli import console
from talkgs_cli.commands.options import JsonOption
from talkgs_cli.console.boundary import examples

EXAMPLES = examples(
    "talkgs bench",
    "talkgs bench raster --json",
)


def bench(
    what: Annotated[
        str | None, Argument(metavar="WHAT", help="raster, fit-step, speak-frame or speak.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the inner loops on this machine."""
    from talkgs_cli.stages.bench import bench as run

    answer = run(what, console.make_progress())
    if as_json:
        console.print_json(answer)
    else:
        console.print_bench(answer)
