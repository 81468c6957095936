"""`talkgs export`: a fitted speaker for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish, quoted
from talkgs_cli.commands.options import ForceOption, JsonOption, SpeakerArgument
from talkgs_cli.console.boundary import examples
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs export",
    "talkgs export presenter --format ply --frame 100 --out presenter.ply",
    "talkgs export presenter --format npz",
)


def export(
    speaker: SpeakerArgument = None,
    kind: Annotated[
        str, Option("--format", help="ply: Gaussians for viewers. npz: head motion as arrays.")
    ] = "ply",
    out: Annotated[Path | None, Option("--out", help="The file to write.")] = None,
    frame: Annotated[
        int | None, Option("--frame", help="Frame of the clip whose pose the Gaussians take.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a speaker's Gaussians or head motion for other programs."""
    folder = SpeakerFolder.find(speaker)
    from talkgs_cli.stages.export import export as run

    answer = run(folder, kind, out, frame, console.make_progress(), force=force)
    finish(
        answer,
        path=answer["file"],
        said=already_done_note(answer),
        next_command=f"talkgs speak {quoted(folder.path)} --audio FILE",
        as_json=as_json,
    )
