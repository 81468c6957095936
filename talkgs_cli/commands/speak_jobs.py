"""Several sounds in one `talkgs speak`: what is shown of them, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

from talkgs_cli import console
from talkgs_cli.errors import (
    BadInput,
    DownloadFailed,
    MachineLacks,
    TalkgsError,
    UsageError,
)
from talkgs_cli.speaker import SpeakerFolder

if TYPE_CHECKING:
    from talkgs_cli.config import SpeakConfig

EXIT_CODES = {
    error.kind: error.exit_code
    for error in (TalkgsError, UsageError, BadInput, MachineLacks, DownloadFailed)
}


def say_all(
    audios: Sequence[Path],
    jobs_file: Path | None,
    speaker: Path | None,
    out: Path | None,
    config: SpeakConfig,
    workers: str,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Say every sound; paths of the videos on stdout, failures on stderr."""
    from talkgs_cli.stages.job_workers import run_jobs
    from talkgs_cli.stages.jobs import read_jobs

    if out is not None and out.is_file():
        raise UsageError(f"{out} is a file.", hint="For several sounds --out is a folder.")
    chosen = _speaker(speaker, required=bool(audios))
    jobs = read_jobs(audios, jobs_file, chosen, out, config)
    answer = run_jobs(jobs, workers, console.make_progress(), force=force)
    if as_json:
        console.print_json(answer)
    else:
        for job in answer["jobs"]:
            if job["video"]:
                console.print_result(job["video"])
    _sum_up(answer)
    failed = [job for job in answer["jobs"] if job["state"] == "failed"]
    if failed:
        raise Exit(EXIT_CODES.get(failed[0]["error"]["kind"], 1))


def _speaker(speaker: Path | None, *, required: bool) -> Path | None:
    """The folder for jobs that name no speaker of their own."""
    if speaker is None and not required:
        try:
            return SpeakerFolder.find(None).path
        except UsageError:
            return None  # every line may name its own
    return SpeakerFolder.find(speaker).path


def _sum_up(answer: dict[str, Any]) -> None:
    from talkgs_cli.stages.job_workers import said_of

    for job in answer["jobs"]:
        if job["state"] == "failed":
            error = job["error"]
            console.print_error(f"Error: {said_of(job)}")
            if error["hint"]:
                console.print_error(f"  {error['hint']}")
    console.print_error(
        f"{answer['done']} said, {answer['already_done']} done before, {answer['failed']} failed."
    )
    if answer["failed"]:
        console.print_error("Next: mend them and run the same again; only they are said.")
