"""Released translators: from NAME, FOLDER or OWNER/NAME[@REVISION] to a checked local folder.

    README.md            the card           config.json    one JSON object, with `model_sha256`
    model.safetensors    the weights

A folder of this layout is a release and a Hub repository alike. What the tensors and the other
keys mean is known to the network that loads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkgs_cli.assets.hub import REPOSITORY, wrong_bytes
from talkgs_cli.assets.snapshots import snapshot
from talkgs_cli.assets.store import cache_dir
from talkgs_cli.errors import BadInput, TalkgsError, UsageError
from talkgs_cli.runtime import Progress, SilentProgress, file_sha256, write_json

CARD, CONFIG, MODEL = "README.md", "config.json", "model.safetensors"
FILES = (CARD, CONFIG, MODEL)
DECLARED = "model_sha256"
"""Key of config.json: the SHA-256 of model.safetensors."""

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class TranslatorRelease:
    """A translator whose files are here and are the declared ones.

    Attributes:
        name: What finds exactly these files again: NAME, FOLDER, or OWNER/NAME@REVISION.
        folder: Where they lie.
        config: The content of config.json.
        model_sha256: Of the weights.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    model_sha256: str

    @property
    def card(self) -> Path:
        """The card."""
        return self.folder / CARD

    @property
    def model(self) -> Path:
        """The weights."""
        return self.folder / MODEL


def releases_folder() -> Path:
    """Where released weights lie: models/ of a checkout, or their copy inside the wheel."""
    bundled = PACKAGE / "released"
    return bundled if bundled.is_dir() else PACKAGE.parent / "models"


def released_names() -> list[str]:
    """Names of the translators that come with talkgs."""
    return sorted(path.parent.name for path in releases_folder().glob(f"*/{CONFIG}"))


def find_translator(spec: str, progress: Progress | None = None) -> TranslatorRelease:
    """The translator a user means.

    Args:
        spec: The name of a bundled release, a folder, or a Hub repository OWNER/NAME with or
            without @REVISION.
        progress: Told of downloads, and of the revision that a bare repository is at.

    Raises:
        UsageError: it is none of these.
        BadInput: a folder that lacks a file or is inconsistent.
        DownloadFailed: the Hub doesn't give it.
    """
    if spec in released_names():
        return read_release(releases_folder() / spec, spec)
    if Path(spec).is_dir():
        return read_release(Path(spec), spec)
    repository, at, revision = spec.partition("@")
    if spec[:1] in "./~" or not REPOSITORY.fullmatch(repository) or (at and not revision):
        known = ", ".join(released_names()) or "none in this version"
        raise UsageError(
            f"There is no translator {spec!r}.",
            hint=f"Give a folder, a Hub repository as OWNER/NAME[@REVISION], or a name: {known}.",
        )
    return pull_translator(repository, revision or None, progress)


def pull_translator(
    repository: str,
    revision: str | None = None,
    progress: Progress | None = None,
    *,
    refresh: bool = False,
) -> TranslatorRelease:
    """A translator of a Hub repository, downloaded unless it is in the cache.

    Args:
        repository: OWNER/NAME.
        revision: A commit of 40 hex digits, a branch or tag, or None for the current state.
        progress: Told of downloads and of the resolved revision.
        refresh: Ask for the current state although it was asked before.

    Raises:
        DownloadFailed: the Hub doesn't give it, or its bytes are wrong.
        BadInput: what lies there is no translator.
    """
    progress = progress or SilentProgress()
    found = snapshot(cache_dir(), repository, revision, FILES, progress, refresh=refresh)
    name = f"{found.repository}@{found.revision}"
    return read_release(found.folder, name, wrong=wrong_bytes)


def read_release(folder: Path, name: str, *, wrong: Any = None) -> TranslatorRelease:
    """Check a folder's files against each other.

    Args:
        folder: The folder.
        name: What the user calls it.
        wrong: Makes the error for weights that aren't the declared ones, from what, actual and
            declared hash.

    Raises:
        BadInput: a file is missing or can't be read, or the weights aren't the declared ones.
    """
    for file in (CONFIG, MODEL):
        if not (folder / file).is_file():
            raise BadInput(
                f"{folder} is no translator: it has no {file}.",
                hint=f"A translator is a folder with {', '.join(FILES)}.",
            )
    config = _read_config(folder / CONFIG)
    declared = config.get(DECLARED)
    if not isinstance(declared, str):
        raise BadInput(
            f"{folder / CONFIG} does not declare {DECLARED}.",
            hint="Take the folder from where it was trained; talkgs translator train writes it.",
        )
    actual = file_sha256(folder / MODEL)
    if actual != declared:
        error: TalkgsError = (wrong or _wrong_weights)(str(folder / MODEL), actual, declared)
        raise error
    return TranslatorRelease(name, folder, config, actual)


def seal(folder: Path) -> TranslatorRelease:
    """Write the hash of a folder's weights into its config, and read the release back."""
    config = _read_config(folder / CONFIG)
    write_json(folder / CONFIG, {**config, DECLARED: file_sha256(folder / MODEL)})
    return read_release(folder, str(folder))


def _wrong_weights(what: str, actual: str, declared: str) -> BadInput:
    return BadInput(
        f"{what} has SHA-256 {actual[:12]}, its {CONFIG} declares {declared[:12]}.",
        hint="The file was damaged or changed: get it again. Do not use it.",
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"{path} is no JSON: {error}.", hint="Get the translator again.") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} holds no JSON object.", hint="Get the translator again.")
    return config
