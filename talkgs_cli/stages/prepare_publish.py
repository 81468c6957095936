"""How a finished work folder becomes the speaker, and what becomes of the one that lay there.

Wherever this is stopped, the old speaker or the new one is whole, and the same command goes on.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from talkgs_cli.runtime import disk_errors
from talkgs_cli.speaker import SpeakerFolder

WORK_FILE = "work.json"
OBSERVATIONS = "observations.safetensors"  # what the landmarker saw
LANDMARK_TRACK = "landmark_track.safetensors"  # the track before it is aligned with the pixels
SHARPNESS = "sharpness.safetensors"  # written when all crop frames and labels are there
REPLACED = "replaced"  # the old speaker, while it is being deleted
# Only needed until the speaker is finished; what says that the rest may lie there goes last.
SCRATCH = (OBSERVATIONS, LANDMARK_TRACK, SHARPNESS, WORK_FILE)


def place_of(out: Path) -> Path:
    """The folder that `out` names, under a name of its own: what a link leads to, not ".."."""
    return out.resolve() if out.is_symlink() or out.name in ("", "..") else out


def publish(work: Path, out: Path) -> Path | None:
    """Make the finished work folder the speaker.

    A speaker that is being replaced is deleted only if all in it was made by `prepare`.

    Returns:
        Where the old speaker was moved, or None.
    """
    place, kept = place_of(out), None
    with disk_errors(out):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        elif place.exists() and is_precious(place):
            kept = _free_name(place)
            os.rename(place, kept)
        elif place.exists():
            shutil.rmtree(work / REPLACED, ignore_errors=True)
            os.rename(place, work / REPLACED)
        os.rename(work, place)
        tidy(place)
    return kept


def tidy(folder: Path) -> None:
    """Remove from a finished speaker what only its making needed; the user's own stays."""
    if not (folder / WORK_FILE).is_file():
        return
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
    for name in SCRATCH:
        (folder / name).unlink(missing_ok=True)


def is_precious(folder: Path) -> bool:
    """Whether a folder holds more than `prepare` makes: a fit, renders, exports, the user's own."""
    speaker = SpeakerFolder(folder, {})
    made = {speaker.manifest_path(folder), speaker.report, speaker.tracking_file}
    made |= {speaker.splits_file, speaker.video, speaker.audio, speaker.audio_features}
    made |= {folder / name for name in SCRATCH}
    pictures = (speaker.frames, speaker.labels)
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder and REPLACED in folders and (folder / WORK_FILE).is_file():
            folders.remove(REPLACED)
        if any((here / name).is_symlink() for name in folders):
            return True
        if here in pictures:
            files = [name for name in files if not re.fullmatch(r"\d{6,}\.png", name)]
        if any(here / name not in made for name in files):
            return True
    return False


def _free_name(out: Path) -> Path:
    number = 1
    while (name := out.with_name(f"{out.name}.old-{number}")).exists():
        number += 1
    return name
