"""`talkgs prepare`: the options of tracking a video, and how its answer is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish, quoted
from talkgs_cli.commands.options import READ_LATER, ForceOption, JsonOption
from talkgs_cli.console.boundary import examples
from talkgs_cli.console.consent import consent_stated

EXAMPLES = examples(
    "talkgs prepare video.mp4",
    "talkgs prepare interview.mov --out presenter --consent",
)


def prepare(
    video: Annotated[
        Path, Argument(metavar="VIDEO", help="Video of one person, with sound.", **READ_LATER)
    ],
    out: Annotated[Path, Option("--out", help="Folder of the speaker to make.")] = Path("speaker"),
    consent: Annotated[
        bool, Option("--consent", help="The person in the video agreed to this use.")
    ] = False,
    head: Annotated[
        str, Option("--head", help="open, or flame:PATH of your own FLAME file.")
    ] = "open",
    fix_offset: Annotated[
        bool, Option("--fix-offset", help="Shift a sound that is early or late to the mouth.")
    ] = False,
    no_photometric: Annotated[
        bool, Option("--no-photometric", help="Don't align the landmark track with the pixels.")
    ] = False,
    encoder: Annotated[
        str, Option("--encoder", help="whisper-tiny.en, wav2vec2-base-960h or log-mel.")
    ] = "whisper-tiny.en",
    short_side: Annotated[
        int, Option("--short-side", help="Shrink larger videos to it, in pixels; 2160 keeps 4K.")
    ] = 1080,
    max_frame_rate: Annotated[
        int, Option("--max-frame-rate", help="Halve faster rates; 60 keeps 60 frames a second.")
    ] = 30,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Track the face in a video: makes the speaker folder."""
    from talkgs_cli.config import PrepareConfig
    from talkgs_cli.stages.prepare import prepare as run

    stated = consent_stated(video, out, consent, ask=not as_json)
    config = PrepareConfig(
        head=head,
        photometric=not no_photometric,
        fix_offset=fix_offset,
        encoder=encoder,
        max_short_side=short_side,
        max_frame_rate=max_frame_rate,
        consent="stated" if stated else "not stated",
    )
    answer = run(video, out, config, console.make_progress(), force=force)
    verdict = f"Verdict: {answer.get('verdict')}, {answer.get('frames')} frames."
    finish(
        answer,
        path=answer.get("speaker") or out,
        said=[
            *already_done_note(answer),
            verdict,
            *(answer.get("advice") or []),
            *([f"Report: {answer['report']}"] if answer.get("report") else []),
        ],
        next_command=f"talkgs fit {quoted(out)}",
        as_json=as_json,
    )
