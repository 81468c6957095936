"""What stages share at run time: progress, seeds, memory, atomic files. It decides nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from talkgs_cli.errors import MachineLacks, UsageError

_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)


class Progress(Protocol):
    """How a stage tells the world how far it is; the console draws it, tests ignore it."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Open one counted piece of work; the yielded function advances it by n."""

    def note(self, message: str) -> None:
        """Say one sentence that matters to the user (goes to stderr)."""


class SilentProgress:
    """A `Progress` that shows nothing; what tests and the Python API use."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yield an advance function that does nothing."""
        yield lambda n: None

    def note(self, message: str) -> None:
        """Drop the message."""


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far, in MiB; 0 where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch and NumPy's BLAS to one thread while many small matrices are multiplied.

    Their threads wait for each other longer than they work: fitting a head took 71 s with two
    where one took 24, and aligning a frame five times as long on a busy machine.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def check_seed(seed: int) -> None:
    """Raise `UsageError` for a seed that one of the generators does not take.

    >>> check_seed(2**32 - 1)
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}: 0 to {2**32 - 1}.")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a `MachineLacks` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineLacks(
                f"The disk is full while writing {path}.", hint="Free some space and run it again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MachineLacks(
                f"Can't write to {path}: {error.strerror}.",
                hint="Choose a folder you may write to, with --out or by changing folder.",
            ) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a `.partial` name beside `path`; rename it onto `path` only if the block succeeds.

    The partial keeps the real suffix (`video.partial.mp4`) so that ffmpeg can tell the format.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            # safetensors makes files only their owner may read; these are the user's to share.
            partial.chmod(0o666 & ~_UMASK)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def require_writable(folder: Path) -> None:
    """Make `folder` if it is missing, and see whether a file can be made in it.

    Raises:
        MachineLacks: the disk is full or may not be written to.
        UsageError: a file is where a folder should be.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(
                f"{folder} is no folder: a file is in its place.", hint="Choose another folder."
            ) from error
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"talkgs")
