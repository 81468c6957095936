"""`talkgs speak`: the options of making a speaker talk, and how the answer is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish, quoted
from talkgs_cli.commands.options import ForceOption, JsonOption, SpeakerArgument
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs speak --audio in.wav",
    "talkgs speak speaker/ --audio podcast.mp3 --out talking.mp4",
)


def speak(
    speaker: SpeakerArgument = None,
    audio: Annotated[
        Path | None, Option("--audio", help="Sound to say: any format ffmpeg reads.")
    ] = None,
    out: Annotated[
        Path | None, Option("--out", help="The mp4 to write; without it, under SPEAKER/renders/.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a fitted speaker say an audio file.

    The video is marked as synthetic in its metadata.
    """
    from talkgs_cli.config import SpeakConfig

    if audio is None:
        raise UsageError("speak needs a sound to say.", hint="Add: --audio FILE")
    folder = SpeakerFolder.find(speaker)

    from talkgs_cli.stages.speak import speak as run

    answer = run(folder, audio, out, SpeakConfig(), console.make_progress(), force=force)
    finish(
        answer,
        path=answer["video"],
        said=already_done_note(answer),
        next_command=f"talkgs score {quoted(folder.path)}",
        as_json=as_json,
    )
