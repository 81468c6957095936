"""The import layers of docs/design.md, checked on the real code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "talkgs_cli"

TERMINAL = {"typer", "rich"}
HEAVY = {"torch", "librosa", "cv2", "ctranslate2", "numba", "skimage", "scipy", "ai_edge_litert"}
LIGHT = [
    "app.py",
    "commands",
    "console",
    "errors.py",
    "runtime.py",
    "config.py",
    "fit_config.py",
    "inpainting_config.py",
    "assets",
    "speaker.py",
]


def _sources(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _imported_at_module_level(path: Path) -> set[str]:
    """Top-level packages a file imports when it is imported (not inside functions)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _imported_anywhere(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imports_go_downwards_only() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


@pytest.mark.parametrize("name", LIGHT)
def test_light_layers_import_nothing_heavy(name: str) -> None:
    for path in _sources(PACKAGE / name):
        assert not _imported_at_module_level(path) & HEAVY, path


def test_only_app_and_console_know_the_terminal() -> None:
    for path in _sources(PACKAGE):
        part = path.relative_to(PACKAGE).parts[0]
        if part not in ("app.py", "commands", "console"):
            assert not _imported_anywhere(path) & TERMINAL, path


def test_every_module_stays_a_file_one_can_read() -> None:
    for path in _sources(PACKAGE):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines: split it"
