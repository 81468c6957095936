"""Says a list of jobs, here or on workers: one that fails is told and tried again, the rest go on.

Workers are this process, others on this machine, or a Ray cluster that sees the same files.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from talkgs_cli.errors import MachineLacks, TalkgsError, UsageError
from talkgs_cli.media.ffmpeg import require_file
from talkgs_cli.runtime import Progress, SilentProgress, disk_errors
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.jobs import Job, Problem

RAY = "ray"
SOLO = "one process for each job"
TRIES = 2
HOPELESS = ("bad_input", "usage")  # the same again would fail the same way
DIED = Problem(
    "machine",
    "The worker died while it said this.",
    "Often memory: use fewer workers, or close other programs.",
)

Outcome = dict[str, Any]
Task = Callable[[Job, bool], Outcome]
Engine = Callable[[Sequence[Job], bool], Iterator[tuple[int, Outcome]]]


def run_jobs(
    jobs: Sequence[Job], workers: str, progress: Progress, *, force: bool = False
) -> dict[str, Any]:
    """Say all jobs; what is done already is left alone.

    Args:
        jobs: From `read_jobs`.
        workers: "1" for this process, a number of processes, or "ray".
        progress: Counts jobs and tells of failures as they happen.
        force: Say also what is done.

    Returns:
        The JSON contract of docs/design.md: one outcome a job, in their order, and counts.
    """
    outcomes: dict[int, Outcome] = {}
    with progress.stage("Jobs", len(jobs)) as advance:
        for index, job in enumerate(jobs):
            if (known := _known(job, force=force)) is not None:
                outcomes[index] = known
                _tell(known, progress, again=False)
                advance(1)
        waiting = [index for index in range(len(jobs)) if index not in outcomes]
        for attempt in range(1, TRIES + 1):
            if not waiting:
                break
            engine = engine_for(workers if attempt == 1 else _careful(workers), progress)
            retried = []
            for place, outcome in engine([jobs[index] for index in waiting], force):
                index = waiting[place]
                outcome["attempts"] = attempt
                outcomes[index] = outcome
                failed = outcome["state"] == "failed"
                again = failed and attempt < TRIES and outcome["error"]["kind"] not in HOPELESS
                _tell(outcome, progress, again=again)
                if again:
                    retried.append(index)
                else:
                    advance(1)
            waiting = retried
    ordered = [outcomes[index] for index in range(len(jobs))]
    counts = {state: sum(o["state"] == state for o in ordered) for state in ("done", "failed")}
    return {
        "jobs": ordered,
        "done": counts["done"],
        "already_done": sum(o["state"] == "already_done" for o in ordered),
        "failed": counts["failed"],
        "workers": workers,
    }


def say(job: Job, force: bool, progress: Progress | None = None) -> Outcome:
    """Say one job, in whatever process this is; a failure is an outcome, never an exception."""
    from talkgs_cli.stages.speak import speak

    started = time.monotonic()
    try:
        with disk_errors(Path(job.out or job.speaker)):
            answer = speak(
                SpeakerFolder.open_(Path(job.speaker)),
                Path(job.audio),
                Path(job.out) if job.out else None,
                job.config(),
                progress or SilentProgress(),
                name=job.name,
                force=force,
            )
    except TalkgsError as error:
        return failed(job, Problem.of(error))
    except MemoryError:
        return failed(job, Problem("machine", "The memory of the worker is full."))
    except Exception as error:  # one job's bug must not end the others
        return failed(job, Problem("bug", f"{type(error).__name__}: {error}"))
    state = "already_done" if answer.get("already_done") else "done"
    return {
        **_place(job),
        "state": state,
        "video": answer["video"],
        "frames": answer["frames"],
        "seconds": round(time.monotonic() - started, 2),
        "attempts": 0,
        "error": None,
    }


def failed(job: Job, problem: Problem) -> Outcome:
    """The outcome of a job that went wrong."""
    error = {"kind": problem.kind, "message": problem.message, "hint": problem.hint}
    nothing = {"video": None, "frames": None, "seconds": None, "attempts": 0}
    return {**_place(job), "state": "failed", **nothing, "error": error}


def _place(job: Job) -> dict[str, Any]:
    return {"where": job.where, "speaker": job.speaker or None, "audio": job.audio or None}


def _known(job: Job, *, force: bool) -> Outcome | None:
    """The outcome of a job for which no worker is needed, or None."""
    from talkgs_cli.stages.speak_record import RenderRecord

    if job.problem is not None:
        return failed(job, job.problem)
    try:
        out, audio = Path(job.out) if job.out else None, Path(job.audio)
        speaker = SpeakerFolder.open_(Path(job.speaker))
        speaker.require_fit()
        require_file(audio, "sound")
        record = RenderRecord(speaker, audio, out, job.config(), job.name)
        answer = None if force else record.finished()
    except TalkgsError as error:
        return failed(job, Problem.of(error))
    if answer is None:
        return None
    return {
        **_place(job),
        "state": "already_done",
        "video": answer["video"],
        "frames": answer["frames"],
        "seconds": 0.0,
        "attempts": 0,
        "error": None,
    }


def _tell(outcome: Outcome, progress: Progress, *, again: bool) -> None:
    if outcome["state"] == "failed":
        then = " It is tried again." if again else ""
        progress.note(f"Failed: {said_of(outcome)}{then}")


def said_of(outcome: Outcome) -> str:
    """What went wrong, with the place where the user wrote it, once."""
    message = str(outcome["error"]["message"])
    where = str(outcome["where"])
    return message if where in message else f"{where}: {message}"


# -- engines ---------------------------------------------------------------------------------------


def engine_for(workers: str, progress: Progress) -> Engine:
    """What runs the jobs.

    Raises:
        UsageError: not a number and not "ray".
    """
    if workers == RAY:
        return on_ray
    if workers == SOLO:
        return lambda jobs, force: on_processes(jobs, force, 1)
    if not workers.isdigit() or not 1 <= int(workers) <= 256:
        raise UsageError(f"workers is {workers!r}.", hint=f"Give a number of processes, or {RAY}.")
    if workers == "1":
        return lambda jobs, force: (
            (place, say(job, force, progress)) for place, job in enumerate(jobs)
        )
    return lambda jobs, force: on_processes(jobs, force, int(workers))


def _careful(workers: str) -> str:
    """Workers for a second try: processes go one by one, so that none takes others with it."""
    return workers if workers in (RAY, "1") else SOLO


def on_processes(
    jobs: Sequence[Job], force: bool, workers: int, task: Task | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Processes on this machine, each with its share of the cores; started anew if one dies."""
    waiting = list(enumerate(jobs))
    while waiting:
        running: dict[Any, tuple[int, Job]] = {}
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_share_cores,
            initargs=(max(1, (os.cpu_count() or 1) // workers),),
        )
        try:
            broken = False
            while (waiting or running) and not broken:
                while waiting and len(running) < workers:
                    place, job = waiting.pop(0)
                    running[pool.submit(task or say, job, force)] = (place, job)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place, job = running.pop(future)
                    try:
                        yield place, future.result()
                    except BrokenProcessPool:
                        broken = True
                        yield place, failed(job, DIED)
            for place, job in running.values():
                yield place, failed(job, DIED)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _share_cores(threads: int) -> None:
    os.environ["TALKGS_THREADS"] = str(threads)


def on_ray(
    jobs: Sequence[Job], force: bool, task: Task | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Workers of a Ray cluster: $RAY_ADDRESS, the one running here, or a local one for this call.

    Raises:
        MachineLacks: Ray is not installed, or the cluster can't be reached.
    """
    _prepare_ray()
    try:
        import ray
    except ImportError as error:
        raise MachineLacks("The package ray is missing.", hint="pip install 'talkgs[ray]'") from (
            error
        )
    try:
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MachineLacks(
            f"The Ray cluster can't be reached: {str(error).splitlines()[0]}",
            hint="Check RAY_ADDRESS, or unset it for workers on this machine.",
        ) from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(task or _say_remotely)
        running = {remote.remote(job, force): (place, job) for place, job in enumerate(jobs)}
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            place, job = running.pop(ready)
            try:
                yield place, ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                yield place, failed(job, Problem("machine", f"On the worker: {error.cause}"))
            except ray.exceptions.RayError:
                yield place, failed(job, DIED)
    finally:
        ray.shutdown()


def _prepare_ray() -> None:
    """Settings that Ray reads when it is imported."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it reports its use to its makers otherwise
    logging.getLogger("ray").addHandler(logging.NullHandler())  # its errors reach us as exceptions
    # A cluster that this user started asks for the user's token; with RAY_ADDRESS set, Ray 2.60
    # does not look for it by itself.
    named = os.environ.get("RAY_ADDRESS", "auto") not in ("", "auto", "local")
    own_token = Path.home() / ".ray" / "auth_token"
    told = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if named and (told or own_token.is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _say_remotely(job: Job, force: bool) -> Outcome:
    os.environ.setdefault("TALKGS_THREADS", "1")  # Ray gave this task one core
    return say(job, force)
