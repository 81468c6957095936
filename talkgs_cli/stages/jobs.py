"""Lists of sounds to say: read from the command line, a folder or a JSON-lines file.

It says nothing itself; a line that can't be read becomes a job that fails, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talkgs_cli.config import SpeakConfig, from_json, to_json
from talkgs_cli.errors import BadInput, TalkgsError, UsageError
from talkgs_cli.media.ffmpeg import require_file
from talkgs_cli.stages.speak_record import located

SOUND_SUFFIXES = (
    *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif"),
    *(".mp4", ".mov", ".mkv", ".webm", ".mka"),
)
"""What is taken from a folder; a file named outright may end in anything."""

KEYS = ("audio", "out", "speaker", "options")


@dataclass(frozen=True)
class Problem:
    """Why a job can't be done or was not.

    Attributes:
        kind: As in the errors' exit codes.
        message: What happened.
        hint: What to do.
    """

    kind: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: TalkgsError) -> Problem:
        """An error of ours."""
        return cls(error.kind, error.message, error.hint)


@dataclass(frozen=True)
class Job:
    """One sound to say. Plain values only: it travels to other processes and machines.

    Attributes:
        where: Where the user wrote it, such as "jobs.jsonl line 3".
        speaker: Speaker folder, absolute.
        audio: Sound file, absolute.
        out: Video to write, absolute; None: under the speaker's renders.
        name: Of its folder under renders where several jobs would share one, else None.
        options: Fields of SpeakConfig that differ from the default.
        problem: Why it can't be done at all, or None.
    """

    where: str
    speaker: str = ""
    audio: str = ""
    out: str | None = None
    name: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    problem: Problem | None = None

    def config(self) -> SpeakConfig:
        """How it is said."""
        return from_json(SpeakConfig, dict(self.options))


def read_jobs(
    audios: Sequence[Path],
    jobs_file: Path | None,
    speaker: Path | None,
    out: Path | None,
    config: SpeakConfig,
) -> list[Job]:
    """All jobs, in the order in which they are written.

    Args:
        audios: Sound files and folders of such.
        jobs_file: JSON lines, or None.
        speaker: For jobs that name none.
        out: Folder for the videos of jobs that name none; None: under the speaker's renders.
        config: For what a job's options leave out.

    Raises:
        BadInput: the list itself can't be read, or nothing is in it.
    """
    jobs: list[Job] = []
    for path in audios:
        for sound in _sounds(path):
            jobs.append(_job({"audio": str(sound)}, str(sound), Path("."), speaker, out, config))
    if jobs_file is not None:
        require_file(jobs_file, "job list")
        jobs += _lines(jobs_file, speaker, out, config)
    if not jobs:
        raise BadInput(
            f"There is nothing to say in {jobs_file or ', '.join(map(str, audios))}.",
            hint="Give sound files, a folder of them, or one JSON object a line.",
        )
    return _named(_without_clashes(jobs))


def _sounds(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SOUND_SUFFIXES)
    if not found:
        raise BadInput(
            f"There is no sound file in {path}.", hint="Give a folder of .wav, .mp3 or the like."
        )
    return found


def _lines(
    file: Path, speaker: Path | None, out: Path | None, config: SpeakConfig
) -> Iterator[Job]:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        where = f"{file.name} line {number}"
        try:
            text = line.decode("utf-8-sig").strip()
            if not text:
                continue
            entry = json.loads(text)
        except ValueError as error:
            problem = Problem("bad_input", f"{where} is not JSON: {error}", "One object a line.")
            yield Job(where, problem=problem)
            continue
        yield _job(entry, where, file.parent, speaker, out, config)


def _job(
    entry: Any,
    where: str,
    folder: Path,
    speaker: Path | None,
    out: Path | None,
    config: SpeakConfig,
) -> Job:
    """One job of an entry; relative paths are relative to `folder`."""
    try:
        audio, target, own_speaker, options = _fields(entry, where)
        if own_speaker is None and speaker is None:
            raise UsageError(f"{where} names no speaker.", hint='Add "speaker", or name a folder.')
        chosen = speaker if own_speaker is None else folder / own_speaker
        both = {**to_json(config), **located(options, folder)}
        merged = from_json(SpeakConfig, located(both, Path()))
        suffix = ".mov" if merged.background == "alpha" else ".mp4"
        video = folder / target if target else out and out / f"{Path(audio).stem}{suffix}"
        return Job(
            where,
            str((chosen or Path()).resolve()),
            str((folder / audio).resolve()),
            str(video.resolve()) if video else None,
            options=tuple(to_json(merged).items()),
        )
    except TalkgsError as error:
        return Job(where, problem=Problem.of(error))


def _fields(entry: Any, where: str) -> tuple[str, str | None, str | None, dict[str, Any]]:
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is no JSON object.", hint='Like: {"audio": "a.wav"}')
    if unknown := sorted(set(entry) - set(KEYS)):
        raise BadInput(
            f"{where} has the unknown key {', '.join(unknown)}.", hint=f"Known: {', '.join(KEYS)}."
        )
    audio, target, speaker = (entry.get(key) for key in ("audio", "out", "speaker"))
    options = entry.get("options") or {}
    if not isinstance(audio, str) or not audio:
        raise BadInput(f"{where} names no audio.", hint='Like: {"audio": "a.wav"}')
    for key, value in (("out", target), ("speaker", speaker)):
        if value is not None and not isinstance(value, str):
            raise BadInput(f'{where}: "{key}" is {value!r}, not a path.')
    if not isinstance(options, dict):
        raise BadInput(f'{where}: "options" is {options!r}, not an object.')
    try:
        from_json(SpeakConfig, {**to_json(SpeakConfig()), **options})
    except (TypeError, AttributeError, TalkgsError) as error:
        said = error.message if isinstance(error, TalkgsError) else str(error)
        raise BadInput(
            f"{where}: {said}", hint="Options are those of talkgs_cli.config.SpeakConfig."
        ) from error
    return audio, target, speaker, options


def _without_clashes(jobs: list[Job]) -> list[Job]:
    """Later jobs that would write over an earlier one's video, or repeat it, are problems."""
    taken: dict[Any, str] = {}
    checked = []
    for job in jobs:
        key = job.out or (job.speaker, job.audio, job.options)
        if job.problem is None and key in taken:
            what = f"writes the same video as {taken[key]}"
            problem = Problem(
                "usage", f"{job.where} {what}: {job.out or job.audio}.", 'Give it another "out".'
            )
            checked.append(replace(job, problem=problem))
            continue
        taken[key] = job.where
        checked.append(job)
    return checked


def _named(jobs: list[Job]) -> list[Job]:
    """Jobs that would share a folder under renders, told apart by a mark; workers don't wait."""
    stems = Counter((job.speaker, Path(job.audio).stem) for job in jobs if job.problem is None)
    named = []
    for job in jobs:
        stem = Path(job.audio).stem
        if job.problem is None and stems[job.speaker, stem] > 1:
            told_apart = json.dumps([job.audio, job.out, job.options])
            mark = hashlib.sha256(told_apart.encode()).hexdigest()[:6]
            job = replace(job, name=f"{stem}-{mark}")
        named.append(job)
    return named
