"""`talkgs score`: the options of measuring, and how the figures are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from talkgs_cli import console
from talkgs_cli.commands.answer import quoted
from talkgs_cli.commands.options import READ_LATER, JsonOption
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import require_writable
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs score",
    "talkgs score anna ben --report both.html",
    "talkgs score --generated made.mp4 --reference real.mp4",
    "talkgs score --generated ours.mp4 --generated theirs.mp4 --reference real.mp4",
    "talkgs score --protocol er-nerf --generated made.mp4 --reference real.mp4",
)
PROTOCOLS = ("talkgs", "er-nerf")


def score(
    speakers: Annotated[
        list[Path] | None,
        Argument(metavar="[SPEAKER]...", help="Speaker folders; without one, the speaker here."),
    ] = None,
    generated: Annotated[
        list[Path] | None,
        Option(
            "--generated",
            help="A made video, to compare with --reference; repeatable.",
            **READ_LATER,
        ),
    ] = None,
    reference: Annotated[
        list[Path] | None,
        Option(
            "--reference",
            help="The real video: one for all, or one for each --generated.",
            **READ_LATER,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        Option("--report", help="Write a page with plots, worst frames and error maps to FILE."),
    ] = None,
    frames: Annotated[
        int, Option("--frames", min=0, help="Most frames to measure; 0: every one.")
    ] = 100,
    protocol: Annotated[
        str,
        Option(
            "--protocol",
            help="talkgs, or er-nerf: PSNR, LPIPS and LMD as that family of papers prints them.",
        ),
    ] = "talkgs",
    lmd_detector: Annotated[
        str,
        Option(
            "--lmd-detector",
            help="Who finds lip points: mediapipe, or fan with your own weights of it.",
        ),
    ] = "mediapipe",
    syncnet: Annotated[
        Path | None,
        Option("--syncnet", help="Your own SyncNet weights: adds LSE-C and LSE-D of videos."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speakers on frames they never saw.

    With --generated and --reference, any videos. A speaker's page is SPEAKER/scores/report.html.
    """
    from talkgs_cli.config import ScoreConfig

    if protocol not in PROTOCOLS:
        raise UsageError(f"There is no protocol {protocol!r}: {' or '.join(PROTOCOLS)}.")
    if bool(generated) != bool(reference) or (generated and speakers):
        raise UsageError(
            "Two videos are compared with both --generated and --reference, and no SPEAKER.",
            hint="Like: talkgs score --generated made.mp4 --reference real.mp4",
        )
    if protocol == "er-nerf" and not generated:
        raise UsageError(
            "The er-nerf protocol compares two videos.",
            hint="Add: --generated made.mp4 --reference real.mp4",
        )
    if syncnet and not generated:
        raise UsageError(
            "SyncNet measures videos.", hint="Add: --generated made.mp4 --reference real.mp4"
        )
    if report is not None:
        if report.is_dir():
            raise UsageError(f"{report} is a folder.", hint="Like: --report page.html")
        require_writable(report.parent)
    config = ScoreConfig(max_frames=frames, lmd_detector=lmd_detector)
    wanted: list[Path | None] = [*speakers] if speakers else [None]
    folders = [] if generated else [SpeakerFolder.find(path) for path in wanted]

    from talkgs_cli.stages import score_compare as stage

    progress = console.make_progress()
    if generated and reference:
        systems = stage.score_pairs(
            generated,
            reference,
            config,
            progress,
            as_field=protocol == "er-nerf",
            syncnet=syncnet,
        )
    else:
        systems = stage.score_speakers(folders, config, progress)
    answer = stage.answer_of(systems, report)
    if as_json:
        console.print_json(answer)
    else:
        console.print_score(answer)
    for folder in folders:
        console.print_error(f"Kept in {folder.scores}")
    if page := answer.get("report"):
        console.print_error(f"Page: {page}")
    elif not folders or len(folders) > 1:
        console.print_error("For plots and pictures in one page: add --report FILE.html")
    if folders:
        console.print_error(f"Next: talkgs speak {quoted(folders[0].path)} --audio FILE")
