"""Files of Hub repositories in the cache, one folder a revision; whole, hashed, usable offline.

    CACHE/hub/OWNER--NAME/pinned.json            the revision a bare name was resolved to
    CACHE/hub/OWNER--NAME/REVISION/FILES         and snapshot.json, written last: their SHA-256

What the files mean is up to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkgs_cli.assets.hub import REVISION, HubRevision, download, look_up, megabytes, sentence
from talkgs_cli.errors import DownloadFailed
from talkgs_cli.runtime import Progress, disk_errors, file_sha256, write_json

RECORD = "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at a revision, on this machine.

    Attributes:
        repository: OWNER/NAME.
        revision: 40 hex digits.
        folder: Where the files lie.
        sha256: Of each file, by name.
    """

    repository: str
    revision: str
    folder: Path
    sha256: dict[str, str]


def snapshot(
    cache: Path,
    repository: str,
    revision: str | None,
    names: Sequence[str],
    progress: Progress,
    *,
    refresh: bool = False,
) -> Snapshot:
    """The files of a repository, downloaded if they are not in the cache yet.

    Args:
        cache: talkgs' cache folder.
        repository: OWNER/NAME.
        revision: A commit of 40 hex digits, a branch or tag, or None for the current state. What
            isn't a commit is resolved once; the answer is recorded and used from then on.
        names: Files wanted.
        progress: Told of downloads and of the revision a name was resolved to.
        refresh: Resolve a name again although it was resolved before.

    Raises:
        DownloadFailed: they can't be had, or have the wrong bytes.
        MachineLacks: the cache can't be written.
    """
    from filelock import FileLock

    home = cache / "hub" / repository.replace("/", "--")
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            try:
                return _snapshot(home, repository, revision, names, progress, refresh)
            except DownloadFailed as failure:
                raise sentence(failure) from failure


def _snapshot(
    home: Path,
    repository: str,
    revision: str | None,
    names: Sequence[str],
    progress: Progress,
    refresh: bool,
) -> Snapshot:
    source: HubRevision | None = None
    commit = _pinned(home, revision)
    if commit is None or (refresh and commit != revision):
        source = look_up(repository, revision)
        if source.revision != revision:
            write_json(home / "pinned.json", {**_pins(home), revision or "": source.revision})
            progress.note(f"{repository} is at revision {source.revision}.")
        commit = source.revision
    elif commit != revision:
        progress.note(f"{repository}: revision {commit}, as resolved before.")
    folder = home / commit
    known = _recorded(folder)
    if set(names) <= set(known) and all(
        (folder / name).is_file() and file_sha256(folder / name) == known[name] for name in names
    ):
        return Snapshot(repository, commit, folder, {name: known[name] for name in names})
    source = source or look_up(repository, commit)
    total = sum(source.file(name).size for name in names)
    with progress.stage(f"Downloading {repository} (MB)", -(-total // 1_000_000)) as advance:
        arrived = megabytes(advance)
        fetched = {name: download(source, name, folder / name, arrived) for name in names}
    for name, digest in fetched.items():
        # The revision is a hash of its content: other bytes under it are no update.
        if known.get(name, digest) != digest:
            (folder / name).unlink()
            raise DownloadFailed(
                f"the file {name} of {source} is not what it was when it was first fetched",
                hint="Do not use it: the repository's history was changed.",
            )
    record = {"repository": repository, "revision": commit, "files": {**known, **fetched}}
    write_json(folder / RECORD, record)
    return Snapshot(repository, commit, folder, fetched)


def _pinned(home: Path, revision: str | None) -> str | None:
    """The commit that a revision means, as far as it is known without asking."""
    if revision is not None and REVISION.fullmatch(revision):
        return revision
    return _pins(home).get(revision or "")


def _pins(home: Path) -> dict[str, str]:
    return dict(_read(home / "pinned.json"))


def _recorded(folder: Path) -> dict[str, str]:
    return dict(_read(folder / RECORD).get("files", {}))


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; a missing or damaged one is empty, so that it is made again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
