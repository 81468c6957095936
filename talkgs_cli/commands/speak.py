"""`talkgs speak`: the options of making a speaker talk, and how the answer is shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from talkgs_cli import console
from talkgs_cli.commands.answer import already_done_note, finish, quoted
from talkgs_cli.commands.options import (
    READ_LATER,
    TRANSLATOR_FLAG,
    TRANSLATOR_HELP,
    ForceOption,
    JsonOption,
    SpeakerArgument,
)
from talkgs_cli.commands.speak_jobs import say_all
from talkgs_cli.console.boundary import examples
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder

EXAMPLES = examples(
    "talkgs speak --audio in.wav",
    "talkgs speak speaker/ --audio podcast.mp3 --out talking.mp4",
    "talkgs speak --audio in.wav --start 60 --duration 15 --frame-rate 29.97",
    "talkgs speak --audio in.wav --background alpha --out head.mov",
    "talkgs speak --audio in.wav --stream - | ffplay -",
    "talkgs speak --audio a.wav --audio b.wav --out videos/",
    "talkgs speak --jobs jobs.jsonl --workers ray",
)


def speak(
    speaker: SpeakerArgument = None,
    audio: Annotated[
        list[Path] | None,
        Option(
            "--audio",
            help="Sound to say: any format ffmpeg reads; repeatable; or a folder.",
            **READ_LATER,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", help="The video, or of several the folder; else under SPEAKER/renders/."),
    ] = None,
    jobs: Annotated[
        Path | None,
        Option(
            "--jobs", help="JSON lines: audio, and if you like out, speaker, options.", **READ_LATER
        ),
    ] = None,
    workers: Annotated[
        str,
        Option("--workers", help="For several sounds: a number of processes, or ray."),
    ] = "1",
    frame_rate: Annotated[
        str | None,
        Option("--frame-rate", help="Such as 25, 29.97 or 30000/1001; else the speaker's own."),
    ] = None,
    start: Annotated[float, Option("--start", help="Skip so many seconds of the sound.")] = 0.0,
    duration: Annotated[
        float | None, Option("--duration", help="Say only so many seconds of it.")
    ] = None,
    crop: Annotated[
        bool, Option("--crop", help="Only the square around the head, not the whole frame.")
    ] = False,
    pose: Annotated[
        str,
        Option("--pose", help="Head and body: source, loop (calm seconds), still, or FILE.npz."),
    ] = "source",
    blink: Annotated[
        str, Option("--blink", help="Eyelids: source, or natural: blinks of their own.")
    ] = "source",
    gaze: Annotated[
        str, Option("--gaze", help="Eyes: source, camera, or degrees beside it: LEFT,UP.")
    ] = "source",
    orbit: Annotated[
        float, Option("--orbit", help="Swing the camera so many degrees round the head.")
    ] = 0.0,
    background: Annotated[
        str | None,
        Option("--background", help="The head alone, before FILE, a colour, or alpha: nothing."),
    ] = None,
    mouth_gain: Annotated[
        float, Option("--mouth-gain", help="How far the mouth moves; 1 is the speaker's own.")
    ] = 1.0,
    translator: Annotated[
        str | None,
        Option(TRANSLATOR_FLAG, help=f"{TRANSLATOR_HELP} in place of the fitted one."),
    ] = None,
    seed: Annotated[int, Option("--seed", help="Of blinks and of the order of movements.")] = 0,
    c2pa_cert: Annotated[
        Path | None,
        Option("--c2pa-cert", help="Sign with this PEM certificate, not with a self-made one."),
    ] = None,
    c2pa_key: Annotated[Path | None, Option("--c2pa-key", help="Its private key, PEM.")] = None,
    stream: Annotated[
        str | None, Option("--stream", help="Write to a pipe as frames are made: - is stdout.")
    ] = None,
    stream_format: Annotated[
        str, Option("--stream-format", help="nut (raw frames, sound), mp4 (fragments) or raw.")
    ] = "nut",
    no_inpaint: Annotated[
        bool, Option("--no-inpaint", help="Feather the face's edge instead of inpainting it.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a fitted speaker say an audio file.

    The video is marked as synthetic, in its metadata and by a signature: see talkgs verify.
    """
    from talkgs_cli.config import SpeakConfig

    if not audio and jobs is None:
        raise UsageError("speak needs a sound to say.", hint="Add: --audio FILE")
    several = jobs is not None or len(audio or []) > 1 or (audio or [Path()])[0].is_dir()
    if stream is not None and several:
        raise UsageError("--stream says one sound.", hint="Give one --audio FILE.")
    if stream is not None and (stream != "-" or out is not None or as_json):
        raise UsageError(
            "--stream writes to standard output alone: --stream -, without --out and --json.",
            hint="Pipe it into another program, or use --out FILE instead.",
        )
    config = SpeakConfig(
        frame_rate=frame_rate,
        start_s=start,
        duration_s=duration,
        crop=crop,
        pose=pose,
        blink=blink,
        gaze=gaze,
        orbit_deg=orbit,
        background=background,
        mouth_gain=mouth_gain,
        inpaint=not no_inpaint,
        translator=translator,
        seed=seed,
        c2pa_cert=str(c2pa_cert) if c2pa_cert else None,
        c2pa_key=str(c2pa_key) if c2pa_key else None,
    )
    if several or not audio:
        say_all(audio or [], jobs, speaker, out, config, workers, force=force, as_json=as_json)
        return
    folder = SpeakerFolder.find(speaker)

    if stream is not None:
        from talkgs_cli.stages.speak import stream as run_stream

        progress = console.make_progress()
        try:
            run_stream(folder, audio[0], sys.stdout.buffer, stream_format, config, progress)
        except BrokenPipeError:  # whoever reads has enough: nothing is left to be flushed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    from talkgs_cli.stages.speak import speak as run

    answer = run(folder, audio[0], out, config, console.make_progress(), force=force)
    finish(
        answer,
        path=answer["video"],
        said=already_done_note(answer),
        next_command=f"talkgs score {quoted(folder.path)}",
        as_json=as_json,
    )
