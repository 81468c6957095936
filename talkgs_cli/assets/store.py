"""The cache of assets: only whole files with the right SHA-256 ever get a name in it.

Where bytes come from is up to `sources`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from talkgs_cli.assets.sources import FOLDER_VARIABLE, MIRROR_VARIABLE, Source, sources
from talkgs_cli.assets.table import ASSETS, Asset, AssetFile
from talkgs_cli.errors import DownloadFailed, MachineLacks, UsageError
from talkgs_cli.runtime import Progress, SilentProgress, disk_errors, file_sha256

KEPT = ".unfinished"
"""Folder of the cache for downloads that go on where they stopped."""


def cache_dir() -> Path:
    """Where assets and compiled code are kept: $TALKGS_CACHE, or the platform's cache folder."""
    return Path(os.environ.get("TALKGS_CACHE") or platformdirs.user_cache_dir("talkgs"))


def is_present(name: str) -> bool:
    """Whether all files of an asset are in the cache with the right size."""
    return state(name) == "present"


def state(name: str, *, check_hashes: bool = False) -> str:
    """How an asset lies in the cache.

    Args:
        name: The asset.
        check_hashes: Read every byte too; otherwise sizes are compared.

    Returns:
        "present", "missing" or "damaged".
    """
    asset = _known(name)
    paths = [(cache_dir() / name / file.name, file) for file in asset.files]
    if not all(path.is_file() for path, _ in paths):
        return "missing"
    for path, file in paths:
        if path.stat().st_size != file.size or (check_hashes and file_sha256(path) != file.sha256):
            return "damaged"
    return "present"


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The folder that holds an asset's files, fetched if it is not there yet.

    Raises:
        DownloadFailed: no source has it, or the bytes are wrong.
        MachineLacks: the cache can't be written.
    """
    if not is_present(name):
        pull([name], progress)
    return cache_dir() / name


def fetch_file(name: str, progress: Progress | None = None) -> Path:
    """The path of a single-file asset, fetched if needed."""
    (file,) = _known(name).files
    return fetch(name, progress) / file.name


def pull(
    names: Iterable[str], progress: Progress | None = None, *, check_hashes: bool = False
) -> None:
    """Fetch every named asset that is missing or damaged; what two share is downloaded once.

    A second process that wants the same waits for the first one.

    Raises:
        DownloadFailed: no source has one of them, or the bytes are wrong.
        MachineLacks: the cache can't be written.
    """
    progress = progress or SilentProgress()
    assets = [_known(name) for name in names]
    with _scratch() as scratch, progress.stage("Fetching assets", len(assets)) as advance:
        places = sources(scratch / "archives", cache_dir() / KEPT, progress)
        for asset in assets:
            found = state(asset.name, check_hashes=check_hashes)
            if found != "present":
                again = "damaged, fetching it again" if found == "damaged" else "fetching it"
                progress.note(f"{asset.name} ({asset.size / 1e6:.1f} MB): {again}")
                _fetch(asset, places, scratch)
            advance(1)


def listing(*, check_hashes: bool = False) -> dict[str, Any]:
    """Every asset with its licence, size, sources in order and state, and where the cache is."""
    places = sources(cache_dir(), cache_dir(), SilentProgress())
    return {
        "cache": str(cache_dir()),
        "assets": [
            {
                "name": asset.name,
                "what": asset.what,
                "licence": asset.licence,
                "size": asset.size,
                "extra": asset.extra or None,
                "sources": [place.describe(asset) for place in places if place.offers(asset)],
                "state": state(asset.name, check_hashes=check_hashes),
                "files": [
                    {"name": file.name, "size": file.size, "sha256": file.sha256}
                    for file in asset.files
                ],
            }
            for asset in ASSETS.values()
        ],
    }


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise UsageError(f"There is no asset {name!r}.", hint=f"Known: {', '.join(ASSETS)}")
    return ASSETS[name]


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder beside the assets, ours alone while the block runs, gone afterwards."""
    from filelock import FileLock

    cache, scratch = cache_dir(), cache_dir() / ".incoming"
    try:
        with disk_errors(cache):
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / ".lock"):
                shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
                scratch.mkdir()
                try:
                    yield scratch
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    except MachineLacks as error:
        raise MachineLacks(
            error.message,
            hint="Free some space, or set TALKGS_CACHE to a folder you may write to.",
        ) from error


def _fetch(asset: Asset, places: list[Source], scratch: Path) -> None:
    """Ask one source after the other; wrong bytes end the search, someone should look."""
    failures: list[DownloadFailed] = []
    for place in [place for place in places if place.offers(asset)]:
        arriving = scratch / asset.name
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir()
        try:
            place.collect(asset, arriving)
        except DownloadFailed as failure:
            failures.append(failure)
            continue
        for file in asset.files:
            _check(asset, file, arriving / file.name, place.describe(asset))
        target = cache_dir() / asset.name
        target.mkdir(exist_ok=True)
        for file in asset.files:
            os.replace(arriving / file.name, target / file.name)
        return
    reasons = "; ".join(failure.message for failure in failures)
    hints = [failure.hint for failure in failures if failure.hint]
    raise DownloadFailed(f"{asset.name} could not be fetched: {reasons}.", _by_hand(asset, hints))


def _check(asset: Asset, file: AssetFile, path: Path, place: str) -> None:
    digest = file_sha256(path)
    if digest != file.sha256:
        raise DownloadFailed(
            f"{asset.name}/{file.name} from {place} is not the file talkgs knows: "
            f"SHA-256 {digest[:12]} instead of {file.sha256[:12]}.",
            _by_hand(asset, ["Do not use it."]),
        )


def _by_hand(asset: Asset, hints: list[str]) -> str:
    names = ", ".join(file.name for file in asset.files)
    by_hand = (
        f"Or put {names} into {cache_dir() / asset.name} yourself, or name a folder that holds "
        f"{asset.name}/ in {FOLDER_VARIABLE}, or a Hub repository in {MIRROR_VARIABLE}."
    )
    return " ".join([*hints, by_hand])
