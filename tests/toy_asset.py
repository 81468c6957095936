"""A small asset of made-up files, a pip that does what a test says, a process that fetches it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from talkgs_cli.assets import ASSETS, Asset, AssetFile, PackageFile, sources

FILES = {"weights.bin": b"weights" * 100, "config.json": b"{}"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def toy_asset(package: PackageFile | None = None, name: str = "toy") -> Asset:
    return Asset(
        name,
        "A toy",
        "CC0-1.0",
        package or PackageFile("toy-package==1.0", "0" * 64),
        tuple(
            AssetFile(file, f"toy_package/{file}", sha256(content), len(content))
            for file, content in FILES.items()
        ),
    )


def wheel_of(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, made by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy_package-1.0-py3-none-any.whl"
    info = "toy_package-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"toy_package/{name}", content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Asset:
    """A small asset in the table, and an empty cache."""
    asset = toy_asset()
    monkeypatch.setitem(ASSETS, "toy", asset)
    return asset


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a function in pip's place: it gets the folder to fill and returns (exit code, output)."""

    def install(act: Any) -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **options: Any) -> Any:
            commands.append(command)
            code, output = act(Path(command[command.index("--dest") + 1]))
            return SimpleNamespace(returncode=code, stdout="", stderr=output)

        monkeypatch.setattr(sources.subprocess, "run", run)
        return commands

    return install


def nothing_half_written(cache: Path) -> bool:
    return not [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


def fetch_in_a_process(**environment: str) -> subprocess.CompletedProcess[str]:
    """Fetch the toy with no pip: its own process, for the Hub's client reads its settings once."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import toy_asset
from talkgs_cli import assets
from talkgs_cli.assets import ASSETS, sources
from talkgs_cli.errors import TalkgsError
ASSETS["toy"] = toy_asset.toy_asset()
sources.importlib.util.find_spec = lambda name: None
try:
    print(sorted(path.name for path in assets.fetch("toy").iterdir()))
except TalkgsError as error:
    print(error.message)
"""
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
