"""The commands of `talkgs`: options in, one stage called, its answer shown.

No maths, and nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, Typer

from talkgs_cli import __version__, console
from talkgs_cli.console.boundary import JSON_FLAG, Commands, examples
from talkgs_cli.console.consent import consent_stated
from talkgs_cli.errors import MachineLacks, UsageError
from talkgs_cli.speaker import SpeakerFolder

app = Typer(
    cls=Commands,
    name="talkgs",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


SpeakerArgument = Annotated[
    Path | None,
    Argument(metavar="SPEAKER", help="Speaker folder; without it, the speaker here."),
]
ForceOption = Annotated[
    bool, Option("--force", help="Do it again although there is a finished result.")
]
JsonOption = Annotated[bool, Option(JSON_FLAG, help="Print the answer as one JSON object.")]


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


@app.command(
    epilog=examples(
        "talkgs prepare video.mp4",
        "talkgs prepare interview.mov --out presenter --consent",
    )
)
def prepare(
    video: Annotated[Path, Argument(metavar="VIDEO", help="Video of one person, with sound.")],
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
    photometric: Annotated[
        bool, Option(" /--no-photometric", help="Don't align the landmark track with the pixels.")
    ] = True,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Track the face in a video: makes the speaker folder."""
    from talkgs_cli.config import PrepareConfig
    from talkgs_cli.stages.prepare import prepare as run

    stated = consent_stated(video, out, consent, ask=not as_json)
    config = PrepareConfig(
        head=head,
        photometric=photometric,
        fix_offset=fix_offset,
        consent="stated" if stated else "not stated",
    )
    answer = run(video, out, config, console.make_progress(), force=force)
    verdict = f"Verdict: {answer.get('verdict')}, {answer.get('frames')} frames."
    _finish(
        answer,
        path=answer.get("speaker") or out,
        said=[
            *_already_done(answer),
            verdict,
            *(answer.get("advice") or []),
            *([f"Report: {answer['report']}"] if answer.get("report") else []),
        ],
        next_command=f"talkgs fit {_quoted(out)}",
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "talkgs fit",
        "talkgs fit speaker/ --preset draft",
        "talkgs fit presenter --device cuda --seed 7",
    )
)
def fit(
    speaker: SpeakerArgument = None,
    preset: Annotated[
        str, Option("--preset", help="draft: a first look in minutes. standard: better.")
    ] = "standard",
    device: Annotated[str, Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, Option("--seed", help="Seed of everything random.")] = None,
    minutes: Annotated[
        float | None, Option("--minutes", help="Stop optimising after this long.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn how one speaker looks and moves.

    An interrupted fit continues where it was stopped.
    """
    from talkgs_cli.config import FIT_PRESETS

    if preset not in FIT_PRESETS:
        raise UsageError(
            f"There is no preset {preset!r}.", hint=f"Use one of: {', '.join(FIT_PRESETS)}"
        )
    folder = SpeakerFolder.find(speaker)
    chosen: dict[str, Any] = {"device": device, "seed": seed, "minutes": minutes}
    config = replace(
        FIT_PRESETS[preset], **{name: value for name, value in chosen.items() if value is not None}
    )
    from talkgs_cli.stages.fit import fit as run

    answer = run(folder, config, console.make_progress(), force=force)
    _finish(
        answer,
        path=folder.path,
        said=_already_done(answer),
        next_command=f"talkgs speak {_quoted(folder.path)} --audio FILE",
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "talkgs speak --audio in.wav",
        "talkgs speak speaker/ --audio podcast.mp3 --out talking.mp4",
    )
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
    _finish(
        answer,
        path=answer["video"],
        said=_already_done(answer),
        next_command=f"talkgs score {_quoted(folder.path)}",
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "talkgs score",
        "talkgs score presenter --json",
        "talkgs score --generated made.mp4 --reference real.mp4",
    )
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
        console.print_error(f"Next: talkgs speak {_quoted(folder.path)} --audio FILE")


@app.command(
    epilog=examples(
        "talkgs demo",
        "talkgs demo --folder /tmp/look",
    )
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
    _finish(
        answer,
        path=answer["video"],
        said=_already_done(answer),
        next_command="talkgs prepare VIDEO",
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "talkgs doctor",
        "talkgs doctor --json",
    )
)
def doctor(as_json: JsonOption = False) -> None:
    """What this machine has, lacks, and the fix."""
    from talkgs_cli.stages.doctor import doctor as run

    answer = run()
    if as_json:
        console.print_json(answer)
    else:
        console.print_doctor(answer)
    if not answer["ok"]:
        raise Exit(MachineLacks.exit_code)


@app.command(
    epilog=examples(
        "talkgs assets",
        "talkgs assets --pull        before going offline",
        "talkgs assets --flame generic_model.pkl",
    )
)
def assets(
    pull: Annotated[bool, Option("--pull", help="Fetch what is missing, and check all.")] = False,
    flame: Annotated[
        Path | None, Option("--flame", help="Convert your own FLAME file, for prepare --head.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the third-party files talkgs uses."""
    from talkgs_cli import assets as table

    if pull:
        table.pull(table.ASSETS, console.make_progress(), check_hashes=True)
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


@app.command(
    epilog=examples(
        "talkgs bench",
        "talkgs bench raster --json",
    )
)
def bench(
    what: Annotated[
        str | None, Argument(metavar="WHAT", help="raster, fit-step or speak-frame.")
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


def _already_done(answer: dict[str, Any]) -> list[str]:
    return ["Already done; nothing was changed."] if answer.get("already_done") else []


def _quoted(path: Path | str) -> str:
    return shlex.quote(str(path))


def _finish(
    answer: dict[str, Any],
    *,
    path: Path | str,
    said: list[str],
    next_command: str,
    as_json: bool,
) -> None:
    """The last lines of a command: what there is to say, the path made, the next command."""
    for line in said:
        console.print_error(line)
    if as_json:
        console.print_json(answer)
    else:
        console.print_result(str(path))
    console.print_error(f"Next: {next_command}")


def main() -> None:
    """Entry point of the `talkgs` script."""
    app(prog_name="talkgs")
