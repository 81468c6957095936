"""Where `prepare` works and what it answers when all is there; it looks into no video.

Work happens in OUT.partial, which becomes OUT by one rename when everything in it is right
(`prepare_publish`). An interrupted run is continued from there if video and configuration are the
same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talkgs_cli import __version__
from talkgs_cli.config import PrepareConfig, from_json, to_json
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.runtime import Progress, disk_errors, require_writable, write_json
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.prepare_publish import WORK_FILE, place_of, tidy

BEING_WRITTEN = {"work.partial.json"}  # all that a kill in the first moment leaves


@dataclass(frozen=True)
class Request:
    """What makes two preparations the same.

    Attributes:
        video_sha256: Of the user's file.
        config: All settings; consent is no part of what is compared.
    """

    video_sha256: str
    config: PrepareConfig

    @property
    def key(self) -> dict[str, Any]:
        """JSON that equals another request's if their results would."""
        config = to_json(self.config)
        del config["consent"]
        return {"video_sha256": self.video_sha256, "config": config}

    @property
    def work_key(self) -> dict[str, Any]:
        """The same for unfinished work, which another version doesn't continue."""
        return {**self.key, "talkgs": __version__}


# -- what lies at OUT ------------------------------------------------------------------------------


def finished_speaker(out: Path, *, force: bool = False) -> SpeakerFolder | None:
    """The prepared speaker that lies at `out`, if there is one.

    Args:
        out: The folder.
        force: A speaker whose manifest can't be read is about to be replaced, so it is none.

    Raises:
        UsageError: something else lies there.
        BadInput: the manifest can't be read.
    """
    if not out.exists():
        return None
    if out.is_dir() and not any(out.iterdir()):
        return None
    if not SpeakerFolder.manifest_path(out).is_file():
        raise UsageError(
            f"{out} exists and is not a speaker folder.", hint="Choose another name with --out."
        )
    try:
        return SpeakerFolder.open_(out)
    except BadInput:
        if force:
            return None
        raise


def just_published(out: Path, request: Request) -> bool:
    """Whether a run of this request was stopped while it tidied up after its last rename."""
    return _read_key(out) == request.work_key


def stored_answer(speaker: SpeakerFolder, request: Request) -> dict[str, Any]:
    """The answer of an earlier, equal `prepare`, with newly stated consent put on record.

    Raises:
        UsageError: the speaker was made from another video, with other settings, or by a version
            that had others.
    """
    record = speaker.stage("prepare") or {}
    if difference := _difference(speaker, record, request):
        raise UsageError(
            f"{speaker.path} was prepared {difference}.",
            hint="Add --force to replace it, or choose another name with --out.",
        )
    if request.config.consent == "stated" != record["config"].get("consent"):
        record["config"]["consent"] = record["result"]["consent"] = "stated"
        speaker.save_manifest()
    tidy(speaker.path)
    report = str(speaker.report) if speaker.report.is_file() else None
    where = {"speaker": str(speaker.path), "report": report}
    return {**record["result"], **where, "already_done": True}


def _difference(speaker: SpeakerFolder, record: dict[str, Any], request: Request) -> str | None:
    video_sha256 = speaker.manifest.get("video_sha256")
    if video_sha256 != request.video_sha256:
        return "from another video"
    try:
        config = from_json(PrepareConfig, record["config"])
    except (BadInput, UsageError, KeyError):
        return "by another version of talkgs, which had other settings"
    if Request(video_sha256, config).key != request.key:
        return "with other settings"
    return None


def keep_consent(request: Request, earlier: SpeakerFolder | None) -> Request:
    """Carry a stated consent over when the same video is prepared again."""
    if earlier is None or not consent_on_record(earlier, request.video_sha256):
        return request
    return replace(request, config=replace(request.config, consent="stated"))


def consent_on_record(speaker: SpeakerFolder, video_sha256: str) -> bool:
    """Whether consent was stated for this very video: another may show another person."""
    if speaker.manifest.get("video_sha256") != video_sha256:
        return False
    record = speaker.stage("prepare") or {}
    return (record.get("config") or {}).get("consent") == "stated"


# -- the work folder -------------------------------------------------------------------------------


def work_path(out: Path) -> Path:
    """OUT.partial, beside what `out` really is."""
    place = place_of(out)
    return place.with_name(f"{place.name}.partial")


def require_place(out: Path) -> None:
    """Refuse, before the work, a place in which no speaker can be made.

    Raises:
        UsageError: the current folder or one around it, a name that is no text, or OUT.partial is
            somebody's own.
        MachineLacks: it can't be written.
    """
    here, whole = Path.cwd(), out.resolve()
    if whole == here or whole in here.parents:
        raise UsageError(
            f"{out} is the folder you are in, or one around it.",
            hint="Name a folder that prepare may make, such as --out speaker.",
        )
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{out} holds bytes that are no text in UTF-8.", hint="Choose another name with --out."
        ) from None
    work = work_path(out)
    require_writable(work.parent)
    if work.exists() and not _is_work_folder(work):
        raise UsageError(
            f"{work} is in the way: it is not an unfinished preparation.",
            hint="Move it, or choose another name with --out.",
        )


@contextmanager
def work_folder(out: Path, request: Request, progress: Progress) -> Iterator[Path]:
    """OUT.partial for this request: what an interrupted run left, or an empty one.

    An interruption leaves it to be continued; a video that is refused leaves nothing.
    """
    require_place(out)
    work = work_path(out)
    if work.exists() and _read_key(work) != request.work_key:
        if _read_key(work) is not None:
            progress.note(f"Deleting {work}: unfinished, of another video, settings or version.")
        with disk_errors(work):
            shutil.rmtree(work)
    if not work.exists():
        require_writable(work)
        write_json(work / WORK_FILE, request.work_key)
    try:
        yield work
    except BadInput:
        shutil.rmtree(work, ignore_errors=True)
        raise


def finished_work(out: Path) -> SpeakerFolder | None:
    """A speaker that was finished but for the last rename."""
    try:
        return SpeakerFolder.open_(work_path(out))
    except BadInput:
        return None


def _is_work_folder(work: Path) -> bool:
    if not work.is_dir():
        return False
    return _read_key(work) is not None or {item.name for item in work.iterdir()} <= BEING_WRITTEN


def _read_key(work: Path) -> dict[str, Any] | None:
    try:
        key = json.loads((work / WORK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return key if isinstance(key, dict) and "video_sha256" in key else None
