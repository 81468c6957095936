"""`RenderRecord`: where a spoken video goes, whether it is there already, and notes about it."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from talkgs_cli import __version__
from talkgs_cli.config import SpeakConfig, to_json
from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import file_sha256, write_json
from talkgs_cli.speaker import SpeakerFolder


class RenderRecord:
    """renders/NAME/render.json of one sound; sounds of the same name get places of their own.

    Args:
        speaker: Whose renders.
        audio: The sound.
        out: Where the video goes; None: into renders/NAME/.
        config: How it is said.
        name: NAME; None: the sound's, with a number where another sound has it.

    Attributes:
        video: Where the video goes.
        request: What the result depends on.

    Raises:
        UsageError: the video would replace its own sound.
    """

    def __init__(
        self,
        speaker: SpeakerFolder,
        audio: Path,
        out: Path | None,
        config: SpeakConfig,
        name: str | None = None,
    ) -> None:
        sha256 = file_sha256(audio)
        place = speaker.renders / name if name else _place_for(speaker.renders, audio.stem, sha256)
        self._file = place / "render.json"
        suffix = ".mov" if config.background == "alpha" else ".mp4"
        self.video = out or self._file.with_name(f"video{suffix}")
        self._own_place = self.video.parent.resolve() == place.resolve()
        if self.video.exists() and self.video.samefile(audio):
            raise UsageError(
                f"{self.video} is the sound itself.", hint="Name another file with --out."
            )
        self.request = {
            "audio_sha256": sha256,
            "config": located(to_json(config), Path()),
            "fit": (speaker.stage("fit") or {}).get("finished"),
            "talkgs": __version__,
            # Its place among the renders goes without saying, and stays true when they are moved.
            "video": None if self._own_place else str(self.video.resolve()),
        }

    def finished(self) -> dict[str, Any] | None:
        """The answer of the same request before, if its video is still there."""
        record = read_record(self._file)
        if record is None or record["request"] != self.request or not self.video.is_file():
            return None
        if record["result"] is None:  # claimed and not finished
            return None
        return {**record["result"], "video": str(self.video), "already_done": True}

    def require_free(self) -> None:
        """Raise `UsageError` if the video would replace a file that is not this sound's.

        What lies in the sound's own folder under renders is: of a `speak` with other settings, or
        of one that was stopped before it could note what it made.
        """
        record = read_record(self._file)
        wanted = self.request["video"]
        mine = self._own_place or (record is not None and record["request"].get("video") == wanted)
        if self.video.exists() and not mine:
            raise UsageError(
                f"{self.video} exists already.",
                hint="Add --force to replace it, or name another file with --out.",
            )

    def claim(self) -> None:
        """Note that the video is this sound's although it is not finished: it may be replaced."""
        write_json(self._file, {"request": self.request, "result": None})

    def keep(self, result: dict[str, Any]) -> None:
        """Note what was made."""
        write_json(self._file, {"request": self.request, "result": result})


def located(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fields of `SpeakConfig` with absolute paths, which mean the same in every folder.

    Args:
        options: Some or all fields.
        folder: What relative paths are relative to. What is no file there stays as it is.
    """
    from talkgs_cli.assets.translators import released_names
    from talkgs_cli.config import POSES
    from talkgs_cli.stages.speak_background import ALPHA, colour_of

    words = {"pose": POSES, "background": (ALPHA,), "translator": tuple(released_names())}
    found = {}
    for key in ("pose", "background", "translator", "c2pa_cert", "c2pa_key"):
        value = options.get(key)
        if not value or not isinstance(value, str) or value in words.get(key, ()):
            continue
        path = folder / value
        there = path.is_dir() if key == "translator" else path.is_file()
        if there and not (key == "background" and colour_of(value) is not None):
            found[key] = str(path.resolve())
    return {**options, **found}


def _place_for(renders: Path, name: str, sha256: str) -> Path:
    """renders/NAME, or NAME-2 and so on where another sound of that name was said."""
    for number in count(1):
        place = renders / (name if number == 1 else f"{name}-{number}")
        record = read_record(place / "render.json")
        if record is None or record["request"].get("audio_sha256") == sha256:
            return place
    raise AssertionError  # count() has no end


def read_record(file: Path) -> dict[str, Any] | None:
    """A record, or None where there is none, or none of ours."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if {"request", "result"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None
