"""How our Numba kernels are compiled, cached and spread over threads; it holds no kernel.

This is the only module that imports Numba first: the folder for compiled code has to be chosen
before that. A folder that can't be written to costs the cache (kernels are compiled again in every
process), never the rendering.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from talkgs_cli.assets import cache_dir

MAX_THREADS = 16


def _writable_cache() -> Path | None:
    """The folder for compiled kernels, or None when it can't be written to."""
    folder = Path(os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir() / "numba")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        warnings.warn(
            f"Compiled kernels can't be kept in {folder} ({error.strerror}): every run compiles "
            "them again. Set TALKGS_CACHE to a folder you may write to.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return folder


CACHE_FOLDER = _writable_cache()

import numba  # noqa: E402  (reads NUMBA_CACHE_DIR when imported)

JIT: dict[str, Any] = {
    "fastmath": True,
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "cache": CACHE_FOLDER is not None,
}
"""Options of every kernel: threads are ours, so the GIL must go; fastmath lets LLVM vectorise."""

kernel: Callable[..., Any] = numba.njit(**JIT)
inline: Callable[..., Any] = numba.njit(inline="always", fastmath=True, error_model="numpy")


def _default_threads() -> int:
    wanted = os.environ.get("TALKGS_THREADS") or os.environ.get("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = int(wanted) if wanted and wanted.isdigit() and int(wanted) > 0 else MAX_THREADS
    return max(1, min(cores or 1, limit, MAX_THREADS))


class _Pool:
    """Worker threads besides the calling one; made on first use, again after a fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0
        self._lock = threading.Lock()

    def resize(self, threads: int) -> None:
        with self._lock:
            if self._executor is not None and self._process == os.getpid():
                self._executor.shutdown()
            self._executor = None
            self.threads = threads

    def executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None or self._process != os.getpid():
                self._executor = ThreadPoolExecutor(self.threads - 1, "talkgs-render")
                self._process = os.getpid()
            return self._executor


_pool = _Pool(_default_threads())


def threads() -> int:
    """How many threads the kernels use."""
    return _pool.threads


def set_threads(count: int) -> None:
    """Use `count` threads from now on; results do not depend on it, to the bit."""
    _pool.resize(max(1, min(count, MAX_THREADS)))


def run_pieces(function: Callable[..., Any], pieces: Sequence[tuple[int, int]], *args: Any) -> None:
    """Call `function(start, stop, *args)` for every piece, on all threads, first come first served.

    Pieces must not depend on one another; their number must not depend on the thread count where
    the result does.
    """
    if _pool.threads == 1 or len(pieces) == 1:
        for start, stop in pieces:
            function(start, stop, *args)
        return
    waiting = iter(pieces)  # next() is atomic under the GIL

    def work() -> None:
        for start, stop in waiting:
            function(start, stop, *args)

    executor = _pool.executor()
    others = [executor.submit(work) for _ in range(min(_pool.threads, len(pieces)) - 1)]
    work()
    for other in others:
        other.result()


def even_pieces(count: int, size: int) -> list[tuple[int, int]]:
    """Cut range(count) into pieces of about `size`; at least one piece, maybe empty."""
    return [(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


def _stamp() -> Path | None:
    """The file that says that this version's kernels were compiled on this machine."""
    if CACHE_FOLDER is None:
        return None
    from llvmlite import binding

    digest = hashlib.sha256(f"{numba.__version__} {binding.get_host_cpu_name()}".encode())
    for source in sorted(Path(__file__).parent.glob("numba_*.py")):
        digest.update(source.read_bytes())
    return CACHE_FOLDER / f"compiled-{digest.hexdigest()[:16]}"


def is_compiled() -> bool:
    """Whether the kernels are in the cache, so that the first frame will not take 10 to 30 s."""
    stamp = _stamp()
    return stamp is not None and stamp.exists()


def mark_compiled() -> None:
    """Remember that the kernels are in the cache."""
    stamp = _stamp()
    if stamp is not None:
        try:
            stamp.touch()
        except OSError:
            return  # a full disk costs the message on the next start, nothing else
