"""A repository on the Hugging Face Hub at one revision: its files' hashes, and their bytes.

Addresses, tokens and proxies are the Hub client's. What it lacks is here: a download that was
killed goes on where it stopped. Where files are kept is up to `snapshots`.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkgs_cli.errors import DownloadFailed
from talkgs_cli.runtime import disk_errors

REVISION = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LOG_IN = "Log in with: hf auth login"

ATTEMPTS = 5
"""A broken connection is taken up this often without a new byte before giving up."""
PAUSE_S = 1.0
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class HubFile:
    """What the Hub says of a file: the SHA-256 of a large one, the git blob id of a small one."""

    size: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class HubRevision:
    """A repository at a revision.

    Attributes:
        repository: OWNER/NAME.
        revision: 40 hex digits.
        files: What lies in it, by path.
    """

    repository: str
    revision: str
    files: dict[str, HubFile]

    def __str__(self) -> str:
        """As users write it: OWNER/NAME@REVISION."""
        return f"{self.repository}@{self.revision}"

    def file(self, name: str) -> HubFile:
        """What the Hub says of one file.

        Raises:
            DownloadFailed: the repository has no such file.
        """
        if name not in self.files:
            raise DownloadFailed(
                f"{self.repository} has no file {name} at revision {self.revision[:12]}",
                hint="Check the name and the revision.",
            )
        return self.files[name]


def endpoint() -> str | None:
    """The Hub to talk to: $HF_ENDPOINT, or None for the client's own default."""
    return os.environ.get("HF_ENDPOINT") or None


def is_switched_off() -> bool:
    """Whether the user keeps the client off the network, with HF_HUB_OFFLINE."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def why_unreachable() -> str | None:
    """Ask the Hub for a sign of life; the reason when there is none."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        get_session().head(endpoint() or constants.ENDPOINT, timeout=TIMEOUT_S)
    except (HTTPError, OfflineModeIsEnabled) as error:
        return first_line(error)
    return None


def look_up(repository: str, revision: str | None = None) -> HubRevision:
    """Ask the Hub for a repository's current revision, or what lies at a given one.

    Args:
        repository: OWNER/NAME.
        revision: A commit, branch or tag; None is the current state of the main branch.

    Raises:
        DownloadFailed: no such repository or revision, no access, or no connection.
    """
    from huggingface_hub import HfApi

    with hub_failures(repository, revision):
        info = HfApi(endpoint=endpoint()).model_info(
            repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S
        )
    found = info.sha or ""
    if not REVISION.fullmatch(found):
        raise DownloadFailed(f"the Hub named no revision of {repository}", hint="Try again later.")
    return HubRevision(
        repository,
        found,
        {
            sibling.rfilename: HubFile(
                sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id
            )
            for sibling in info.siblings or []
        },
    )


def download(source: HubRevision, name: str, target: Path, advance: Callable[[int], None]) -> str:
    """Download one file; what an earlier attempt left beside `target` is taken up.

    Args:
        source: The repository at its revision.
        name: Path of the file in it.
        target: File to write; it appears when it is whole and its hash is right.
        advance: Told the bytes as they arrive.

    Returns:
        The SHA-256 of the file.

    Raises:
        DownloadFailed: it can't be had, or has other bytes than the Hub declares.
        MachineLacks: the disk is full or can't be written to.
    """
    file = source.file(name)
    part = target.with_name(f"{target.name}.part")
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        advance(min(part.stat().st_size, file.size))
        left = ATTEMPTS
        while part.stat().st_size < file.size:
            before = part.stat().st_size
            broken = _stream(source, name, part, advance)
            if part.stat().st_size > before:
                left = ATTEMPTS
            left -= 1
            if broken and not left:
                raise _interrupted(source, name, part.stat().st_size, file.size, broken)
            if broken:
                time.sleep(PAUSE_S)
        digest = _check(source, name, part)
        os.replace(part, target)
    return digest


def megabytes(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Count bytes, and advance a progress that counts whole megabytes."""
    counted = 0

    def count(arrived: int) -> None:
        nonlocal counted
        whole = (counted + arrived) // 1_000_000 - counted // 1_000_000
        counted += arrived
        advance(whole)

    return count


def _stream(
    source: HubRevision, name: str, part: Path, advance: Callable[[int], None]
) -> str | None:
    """Append what `part` lacks. Returns why the connection broke, or None at its regular end."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(source.repository, name, revision=source.revision, endpoint=endpoint())
    have = part.stat().st_size
    # Compressed answers can't be continued by position.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    try:
        with (
            hub_failures(source.repository, source.revision, transport=False),
            get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response,
            part.open("r+b") as sink,
        ):
            hf_raise_for_status(response)
            sink.seek(have if response.status_code == 206 else 0)
            sink.truncate()
            for block in response.iter_bytes():  # of any size: what has come is never held back
                sink.write(block)
                advance(len(block))
    except HfHubHTTPError:
        raise
    except HTTPError as error:
        return first_line(error)
    return None if part.stat().st_size > have else "the connection ended early"


def _check(source: HubRevision, name: str, part: Path) -> str:
    """The SHA-256 of a whole file; removes it and raises when the Hub declares other bytes."""
    file = source.file(name)
    with part.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    actual, declared = sha256, file.sha256
    if declared is None and file.blob_id:
        blob = hashlib.sha1(f"blob {part.stat().st_size}\0".encode(), usedforsecurity=False)
        blob.update(part.read_bytes())
        actual, declared = blob.hexdigest(), file.blob_id
    if declared is not None and actual != declared:
        part.unlink()
        raise wrong_bytes(f"the file {name} from {source.repository}", actual, declared)
    return sha256


def wrong_bytes(what: str, actual: str, declared: str) -> DownloadFailed:
    """The failure of bytes that are not the declared ones."""
    return DownloadFailed(
        f"{what} has the wrong hash: {actual[:12]} instead of {declared[:12]}",
        hint="Do not use it. Run it again; if it stays so, tell the repository's owner.",
    )


def _interrupted(
    source: HubRevision, name: str, have: int, size: int, reason: str
) -> DownloadFailed:
    return DownloadFailed(
        f"the download of {name} from {source.repository} stopped at {have / 1e6:.1f} of "
        f"{size / 1e6:.1f} MB ({reason})",
        hint="Run it again: it goes on where it stopped.",
    )


@contextmanager
def hub_failures(
    repository: str, revision: str | None = None, *, transport: bool = True
) -> Iterator[None]:
    """Turn what the Hub's client raises into a `DownloadFailed` that says what to do.

    Args:
        repository: OWNER/NAME.
        revision: Where in it.
        transport: Also for broken connections; otherwise those pass.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DownloadFailed(
            "the Hub can't be reached: HF_HUB_OFFLINE is set",
            hint=f"Unset HF_HUB_OFFLINE once to fetch {repository}, or name a folder.",
        ) from error
    except HfHubHTTPError as error:
        raise _refused(error, repository, revision) from error
    except HTTPError as error:
        if not transport:
            raise
        raise DownloadFailed(
            f"the Hub can't be reached for {repository}: {first_line(error)}",
            hint="Connect this machine to the network, or name a folder that holds the files.",
        ) from error


def _refused(error: Any, repository: str, revision: str | None) -> DownloadFailed:
    """What an answer of the Hub other than "here it is" means."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return DownloadFailed(
            f"{repository} asks you to log in to the Hub and to accept its terms",
            hint=f"Accept them on the repository's page. {LOG_IN}",
        )
    if isinstance(error, RevisionNotFoundError):
        return DownloadFailed(
            f"{repository} has no revision {revision}",
            hint=f"Check it on the repository's page, or leave it out: {repository}",
        )
    if isinstance(error, EntryNotFoundError):
        return DownloadFailed(f"{repository} lacks a file: {first_line(error)}")
    if isinstance(error, RepositoryNotFoundError):
        return DownloadFailed(
            f"the Hub has no repository {repository}, or it is private",
            hint=f"Check the name. If it is private: {LOG_IN}",
        )
    if status in (401, 403):
        return DownloadFailed(
            f"the Hub does not let you do this with {repository} (status {status})",
            hint=f"Your token is missing, wrong, or may not write. {LOG_IN}",
        )
    return DownloadFailed(
        f"the Hub failed for {repository} (status {status}): {first_line(error)}",
        hint="Try again later.",
    )


def sentence(failure: DownloadFailed) -> DownloadFailed:
    """The failure with its message written as a sentence of its own."""
    message = failure.message[:1].upper() + failure.message[1:].rstrip(".") + "."
    return DownloadFailed(message, failure.hint)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
