"""`talkgs assets`: the table of third-party files, shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from talkgs_cli import console
from talkgs_cli.commands.options import JsonOption
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError

EXAMPLES = examples(
    "talkgs assets",
    "talkgs assets --pull        before going offline",
    "talkgs assets wav2vec2_base_960h --pull",
    "talkgs assets --flame generic_model.pkl",
)


def assets(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[NAME...]", help="With --pull: only these; without, all but extras'."),
    ] = None,
    pull: Annotated[bool, Option("--pull", help="Fetch what is missing, and check all.")] = False,
    flame: Annotated[
        Path | None, Option("--flame", help="Convert your own FLAME file, for prepare --head.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the third-party files talkgs uses."""
    from talkgs_cli import assets as table

    if names and not pull:
        raise UsageError("Names of assets are for --pull.", hint="Add: --pull")
    if pull:
        table.pull(names or table.needed_assets(), console.make_progress(), check_hashes=True)
    answer = table.listing()
    if flame is not None:
        from talkgs_cli.stages.flame import convert_flame

        answer["flame"] = convert_flame(flame, console.make_progress())
    if as_json:
        console.print_json(answer)
    else:
        console.print_assets(answer)
    if flame is not None:
        console.print_error(f"Next: talkgs prepare VIDEO --head {answer['flame']['head']}")
