"""Where `prepare` works and what it may replace; it looks into no video.

Work happens in OUT.partial, which becomes OUT by one rename when everything in it is right. An
interrupted run is continued from there if video and configuration are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talkgs_cli import __version__
from talkgs_cli.config import PrepareConfig, to_json
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.runtime import disk_errors, require_writable, write_json
from talkgs_cli.speaker import SpeakerFolder

WORK_FILE = "work.json"


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finished_speaker(out: Path) -> SpeakerFolder | None:
    """The prepared speaker that lies at `out`, if there is one.

    Raises:
        UsageError: something else lies there.
    """
    if not out.exists():
        return None
    if out.is_dir() and not any(out.iterdir()):
        return None
    if not SpeakerFolder.manifest_path(out).is_file():
        raise UsageError(
            f"{out} exists and is not a speaker folder.", hint="Choose another name with --out."
        )
    return SpeakerFolder.open_(out)


def stored_answer(speaker: SpeakerFolder, request: Request) -> dict[str, Any] | None:
    """The answer of an earlier, equal `prepare`, with newly stated consent put on record.

    Raises:
        UsageError: the speaker was made from another video or with other settings.
    """
    record = speaker.stage("prepare") or {}
    config = PrepareConfig(**record["config"])
    if Request(speaker.manifest["video_sha256"], config).key != request.key:
        what = (
            "with other settings"
            if speaker.manifest["video_sha256"] == request.video_sha256
            else "from another video"
        )
        raise UsageError(
            f"{speaker.path} was prepared {what}.",
            hint="Add --force to replace it, or choose another name with --out.",
        )
    if request.config.consent == "stated" != config.consent:
        record["config"]["consent"] = "stated"
        speaker.save_manifest()
    report = str(speaker.report) if speaker.report.is_file() else None
    where = {"speaker": str(speaker.path), "report": report}
    return {**record["result"], **where, "already_done": True}


def keep_consent(request: Request, previous: SpeakerFolder | None) -> Request:
    """Carry a stated consent over when the same video is prepared again."""
    if previous is None or previous.manifest.get("video_sha256") != request.video_sha256:
        return request
    record = previous.stage("prepare") or {}
    if (record.get("config") or {}).get("consent") != "stated":
        return request
    return Request(request.video_sha256, replace(request.config, consent="stated"))


@contextmanager
def work_folder(out: Path, request: Request) -> Iterator[Path]:
    """OUT.partial for this request: what an interrupted run left, or an empty one.

    An interruption leaves it to be continued; a video that is refused leaves nothing.
    """
    work = _open_work_folder(out, request)
    try:
        yield work
    except BadInput:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _open_work_folder(out: Path, request: Request) -> Path:
    work = out.with_name(f"{out.name}.partial")
    require_writable(out.parent)
    key = {**request.key, "talkgs": __version__}
    if work.exists() and _read_key(work) != key:
        with disk_errors(work):
            shutil.rmtree(work)  # another request's leftovers; never a finished speaker
    if not work.exists():
        require_writable(work)
        write_json(work / WORK_FILE, key)
    return work


def _read_key(work: Path) -> dict[str, Any] | None:
    try:
        key: dict[str, Any] = json.loads((work / WORK_FILE).read_text(encoding="utf-8"))
        return key
    except (OSError, ValueError):
        return None


def publish(work: Path, out: Path) -> Path | None:
    """Make the finished work folder the speaker.

    A speaker that is being replaced is deleted only if nothing but `prepare` ever ran on it.

    Returns:
        Where the old speaker was moved, or None.
    """
    (work / WORK_FILE).unlink(missing_ok=True)
    kept = None
    with disk_errors(out):
        if out.exists():
            aside = _free_name(out)
            os.rename(out, aside)
            if is_precious(aside):
                kept = aside
            else:
                shutil.rmtree(aside)
        os.rename(work, out)
    return kept


def is_precious(folder: Path) -> bool:
    """Whether a speaker folder holds more than `prepare` makes: a fit, videos, scores."""
    try:
        speaker = SpeakerFolder.open_(folder)
    except BadInput:
        return any(folder.iterdir())
    made_later = (speaker.fit, speaker.renders, speaker.scores)
    return any(part.is_dir() and any(part.iterdir()) for part in made_later)


def _free_name(out: Path) -> Path:
    number = 1
    while (name := out.with_name(f"{out.name}.old-{number}")).exists():
        number += 1
    return name
