"""Compiled kernels: kept, announced, and done without when the folder can't be written to."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from talkgs_cli.rendering import numba_jit
from talkgs_cli.rendering.warm_up import compile_kernels, keep_freed_memory
from talkgs_cli.runtime import SilentProgress

PROJECT = """
import warnings, sys
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from talkgs_cli.rendering import numba_jit
import numpy as np

@numba_jit.kernel
def double(x):
    return 2 * x

assert double(np.float32(21)) == 42
print(numba_jit.CACHE_FOLDER, len(caught), *[w.message for w in caught])
"""


def run_python(code: str, cache: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment["TALKGS_CACHE"] = str(cache)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def script(folder: Path) -> str:
    """Numba caches functions of files only, so the program is a file."""
    path = folder / "program.py"
    path.write_text(PROJECT)
    return f"import runpy; runpy.run_path({str(path)!r})"


def test_kernels_go_into_the_cache_folder(tmp_path: Path) -> None:
    child = run_python(script(tmp_path), tmp_path / "cache")
    output, _ = child.communicate(timeout=100)
    assert child.returncode == 0, output
    assert str(tmp_path / "cache" / "numba") in output
    assert list((tmp_path / "cache" / "numba").rglob("*.nbc"))


def test_a_cache_that_can_not_be_written_costs_a_warning_only(tmp_path: Path) -> None:
    # a file where the folder should be stops root as well, which permissions don't
    (tmp_path / "cache").write_text("in the way")
    child = run_python(script(tmp_path), tmp_path / "cache")
    output, _ = child.communicate(timeout=100)
    assert child.returncode == 0, output
    assert "None 1 Compiled kernels can't be kept in" in output
    assert "Set TALKGS_CACHE" in output


def test_two_processes_may_fill_one_cache(tmp_path: Path) -> None:
    children = [run_python(script(tmp_path), tmp_path / "cache") for _ in range(2)]
    for child in children:
        output, _ = child.communicate(timeout=100)
        assert child.returncode == 0, output


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Any]:
        return super().stage(name, total)


def test_compiling_is_announced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_jit, "CACHE_FOLDER", tmp_path)
    progress = Notes()
    compile_kernels(progress)
    compile_kernels(progress)
    assert len(progress.notes) == 1
    assert progress.notes[0].startswith("Compiling the renderer")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept_where_malloc_can_be_told_so() -> None:
    import ctypes

    assert keep_freed_memory() == hasattr(ctypes.CDLL(None), "mallopt")
