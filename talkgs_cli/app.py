"""`talkgs`: the commands in the order in which `--help` lists them.

Each lies in a file of its own under commands/; nothing heavy is imported before one runs.
"""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option, Typer

from talkgs_cli import __version__, console
from talkgs_cli.commands import (
    assets,
    bench,
    demo,
    doctor,
    export,
    fit,
    prepare,
    score,
    speak,
    translator,
    verify,
)
from talkgs_cli.console.boundary import Commands, examples

app = Typer(
    cls=Commands,
    name="talkgs",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print_result(f"talkgs {__version__}")
        raise Exit


@app.callback(
    epilog=examples(
        "talkgs prepare video.mp4                   track the face -> speaker/",
        "talkgs fit speaker/                        learn how this person looks and moves",
        "talkgs speak speaker/ --audio in.wav       audio -> video",
        "talkgs score                               how good is it, on held-out frames",
        "talkgs demo                                all of it on a made-up speaker",
    )
)
def talkgs(
    version: Annotated[
        bool,
        Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Turn a video of one person into a talking head that says whatever audio you give it.

    Everything runs on this machine, on a CPU if need be; nothing is uploaded.
    """


app.command(epilog=prepare.EXAMPLES)(prepare.prepare)
app.command(epilog=fit.EXAMPLES)(fit.fit)
app.command(epilog=speak.EXAMPLES)(speak.speak)
app.command(epilog=score.EXAMPLES)(score.score)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=demo.EXAMPLES)(demo.demo)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(epilog=assets.EXAMPLES)(assets.assets)
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.add_typer(translator.translator)


def main() -> None:
    """Entry point of the `talkgs` script."""
    app(prog_name="talkgs")
