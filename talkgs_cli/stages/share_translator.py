"""`translator pull` and `translator push`: nothing is called a translator that doesn't load."""

from __future__ import annotations

from typing import Any

from talkgs_cli.assets.hub import REPOSITORY
from talkgs_cli.assets.translator_push import push_translator
from talkgs_cli.assets.translators import find_translator, pull_translator
from talkgs_cli.errors import UsageError
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.runtime import Progress


def pull(repository: str, progress: Progress) -> dict[str, Any]:
    """Download a translator, the current state of a repository or a revision of it.

    Args:
        repository: OWNER/NAME or OWNER/NAME@REVISION.
        progress: Told of the download and of the revision.

    Returns:
        The JSON answer (docs/design.md).

    Raises:
        UsageError: no such name.
        DownloadFailed: the Hub doesn't give it.
        BadInput: it is no translator that this talkgs can load.
    """
    name, at, revision = repository.partition("@")
    if not REPOSITORY.fullmatch(name) or (at and not revision):
        raise UsageError(
            f"{repository!r} is no repository.", hint="Write it as OWNER/NAME or OWNER/NAME@REV."
        )
    release = pull_translator(name, revision or None, progress, refresh=True)
    BaseTranslator.load(release.folder)
    return {
        "translator": release.name,
        "folder": str(release.folder),
        "model_sha256": release.model_sha256,
    }


def push(translator: str, repository: str, *, private: bool, progress: Progress) -> dict[str, Any]:
    """Upload a translator that loads and whose card is complete.

    Args:
        translator: A folder, or the name of a bundled release.
        repository: OWNER/NAME.
        private: Whether a repository made by this is private.
        progress: Told of the upload.

    Returns:
        The JSON answer (docs/design.md).

    Raises:
        UsageError: no such translator or repository name.
        BadInput: it doesn't load, or its card lacks something.
        DownloadFailed: the Hub refuses, or can't be reached.
    """
    release = find_translator(translator, progress)
    BaseTranslator.load(release.folder)
    return push_translator(release, repository, private=private, progress=progress)
