"""`talkgs score`: the options of measuring, and how the figures are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import quoted
from talkgs_cli.commands.options import JsonOption, SpeakerArgument
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs score",
    "talkgs score presenter --json",
    "talkgs score --generated made.mp4 --reference real.mp4",
)


def score(
    speaker: SpeakerArgument = None,
    generated: Annotated[
        Path | None, Option("--generated", help="A made video, to compare with --reference.")
    ] = None,
    reference: Annotated[
        Path | None, Option("--reference", help="The real video it should look like.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a speaker on frames it never saw.

    With --generated and --reference, any two videos.
    """
    from talkgs_cli.config import ScoreConfig

    if (generated is None) != (reference is None) or (generated and speaker):
        raise UsageError(
            "Two videos are compared with both --generated and --reference, and no SPEAKER.",
            hint="Like: talkgs score --generated made.mp4 --reference real.mp4",
        )
    folder = None if generated else SpeakerFolder.find(speaker)

    from talkgs_cli.stages import score as stage

    progress = console.make_progress()
    if generated is not None and reference is not None:
        answer = stage.score_videos(generated, reference, ScoreConfig(), progress)
    elif folder is not None:
        answer = stage.score(folder, ScoreConfig(), progress)
    if as_json:
        console.print_json(answer)
    else:
        console.print_score(answer)
    if folder is not None:
        console.print_error(f"Kept in {folder.scores}")
        console.print_error(f"Next: talkgs speak {quoted(folder.path)} --audio FILE")
