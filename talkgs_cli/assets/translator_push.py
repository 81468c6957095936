"""A translator goes to the Hub: its card is checked, its three files become one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from talkgs_cli import __version__
from talkgs_cli.assets.hub import LOG_IN, REPOSITORY, endpoint, hub_failures, look_up, sentence
from talkgs_cli.assets.translators import FILES, TranslatorRelease
from talkgs_cli.errors import BadInput, DownloadFailed, UsageError
from talkgs_cli.runtime import Progress

SECTIONS = {
    "Data": r"(training )?data",
    "Licence": r"licen[cs]e",
    "Limits": r"limits|limitations",
    "Figures": r"figures|measured figures|results|evaluation",
}
"""What a card has to tell, and how the heading may be written."""

ENOUGH = 40
"""Characters under a heading from which on it counts as written."""


def push_translator(
    release: TranslatorRelease, repository: str, *, private: bool, progress: Progress
) -> dict[str, Any]:
    """Upload a translator as one commit; the repository is made if there is none.

    Returns:
        The JSON answer of `talkgs translator push`.

    Raises:
        UsageError: the repository's name is none.
        BadInput: the card lacks something.
        DownloadFailed: the Hub refuses, or can't be reached.
    """
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r} is no repository.", hint="Write it as OWNER/NAME.")
    if lacking := card_lacks(release.card):
        raise BadInput(
            f"The card {release.card} lacks: {', '.join(lacking)}.",
            hint="Say what it was trained on, under which licence, what it can't do, and what was "
            "measured; then push again.",
        )
    try:
        return _push(release, repository, private, progress)
    except DownloadFailed as failure:
        raise sentence(failure) from failure
    except ValueError as error:  # so says the client when the Hub doesn't like a card
        raise BadInput(
            f"The Hub refuses the card {release.card}: {' '.join(str(error).split())}",
            hint="Correct its front matter and push again.",
        ) from error


def card_lacks(card: Path) -> list[str]:
    """What a card doesn't tell: names of sections, and the licence in its front matter."""
    from huggingface_hub import ModelCard

    if not card.is_file():
        return ["everything: there is no such file"]
    text = card.read_text(encoding="utf-8")
    lacking = []
    try:
        if not ModelCard(text, ignore_metadata_errors=False).data.get("license"):
            lacking.append("license: in the front matter")
    except ValueError as error:
        lacking.append(f"a front matter that can be read ({str(error).splitlines()[0]})")
    written = {
        heading.strip().lower(): len(body.strip())
        for heading, body in re.findall(r"^#{1,3} (.+)\n([^#]*(?:#[^#\n ][^#]*)*)", text, re.M)
    }
    for section, pattern in SECTIONS.items():
        sizes = [size for name, size in written.items() if re.fullmatch(pattern, name)]
        if max(sizes, default=0) < ENOUGH:
            lacking.append(f"## {section}")
    return lacking


def _push(
    release: TranslatorRelease, repository: str, private: bool, progress: Progress
) -> dict[str, Any]:
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise DownloadFailed(
            f"the Hub has to know who pushes to {repository}, and there is no token", LOG_IN
        )
    api = HfApi(endpoint=endpoint())
    with progress.stage(f"Uploading to {repository}", None), hub_failures(repository):
        url = api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, release.folder / name) for name in FILES],
            commit_message=f"{release.folder.resolve().name}, by talkgs {__version__}",
        )
    arrived = look_up(repository, commit.oid)
    stored = arrived.file("model.safetensors").sha256
    if stored is not None and stored != release.model_sha256:
        raise DownloadFailed(
            f"the weights on {arrived} are not the ones that were uploaded", "Push again."
        )
    return {
        "translator": str(arrived),
        "repository": repository,
        "revision": arrived.revision,
        "url": str(url),
        "model_sha256": release.model_sha256,
    }
