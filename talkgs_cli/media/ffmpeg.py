"""Finds an ffmpeg program and runs it; it knows no video and no audio.

Every command is built with ffmpeg-python and run here, so that a process never outlives its use
and its last words reach the user.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from talkgs_cli.errors import BadInput, MachineLacks, TalkgsError

PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml")
LOCAL_FILES_ONLY = "file,pipe,fd,crypto,data"  # a playlist must not make us fetch anything


def ffmpeg_program() -> str:
    """The ffmpeg to use: $TALKGS_FFMPEG, else `ffmpeg` on the path, else imageio-ffmpeg's.

    A program without libx264 (some distributions build it so) is passed over.

    Raises:
        MachineLacks: there is none.
    """
    return _find_program(os.environ.get("TALKGS_FFMPEG"), os.environ.get("PATH"))


@functools.lru_cache(maxsize=8)
def _find_program(named: str | None, _search_path: str | None) -> str:
    if named:
        if shutil.which(named) is None:
            raise MachineLacks(
                f"TALKGS_FFMPEG is {named!r}, which is no program.",
                hint="Set it to an ffmpeg program, or unset it.",
            )
        return named
    for program in (shutil.which("ffmpeg"), _bundled_program()):
        if program and _can_encode(program):
            return program
    raise MachineLacks(
        "There is no ffmpeg with libx264 on this machine.",
        hint="Run: pip install imageio-ffmpeg, or set TALKGS_FFMPEG to an ffmpeg program.",
    )


def _bundled_program() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _can_encode(program: str) -> bool:
    try:
        listing = subprocess.run(
            [program, "-hide_banner", "-encoders"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return " libx264 " in listing.stdout


@functools.lru_cache(maxsize=4)
def has_filter(program: str, name: str) -> bool:
    """Whether the program knows a filter."""
    listing = subprocess.run(
        [program, "-hide_banner", "-filters"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return f" {name} " in listing.stdout


class FileUrl(str):
    """A name whose bytes may be no text: ffmpeg gets them, ffmpeg-python hashes its `str()`."""

    def __str__(self) -> str:
        return self.encode("utf-8", "backslashreplace").decode("utf-8")


def file_url(path: Path) -> str:
    """A name that ffmpeg takes as a file whatever it looks like (`a:b.mp4`, `-x.mp4`)."""
    return FileUrl(f"file:{path}")


def require_file(path: Path, what: str) -> None:
    """Raise `BadInput` unless `path` is a readable file, and itself the media."""
    if not path.exists():
        raise BadInput(f"There is no file {path}.", hint=f"Give the path of a {what} file.")
    if not path.is_file():
        raise BadInput(f"{path} is not a file.", hint=f"Give the path of a {what} file.")
    if not os.access(path, os.R_OK):
        raise BadInput(f"{path} can't be read.", hint="Check who may read the file.")
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n")
    if start.startswith(PLAYLISTS):
        raise BadInput(
            f"{path} is a playlist, not a {what} file.", hint=f"Give a {what} file itself."
        )


def last_line(stderr: str) -> str:
    """What ffmpeg said last, without its address prefix."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else "it gave no reason"
    while said.startswith("[") and "] " in said:
        said = said.partition("] ")[2]
    return said.removeprefix("Error opening input files: ").rstrip(".")


def failure(path: Path, stderr: str) -> TalkgsError:
    """The error for a failed write to `path`."""
    if "No space left" in stderr or "quota exceeded" in stderr:
        return MachineLacks(
            f"The disk is full while writing {path}.", hint="Free some space and run it again."
        )
    if "Permission denied" in stderr or "Read-only file system" in stderr:
        return MachineLacks(
            f"Can't write to {path}: {last_line(stderr)}.",
            hint="Choose a folder you may write to, with --out or by changing folder.",
        )
    return MachineLacks(
        f"ffmpeg could not write {path}: {last_line(stderr)}.",
        hint="Check the folder and the free space, or set TALKGS_FFMPEG to another ffmpeg.",
    )


class Process:
    """A running ffmpeg with one binary pipe and its stderr kept aside.

    Attributes:
        pipe: Its stdin or stdout.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        pipe = process.stdout or process.stdin
        assert pipe is not None  # one of them was asked for
        self.pipe: IO[bytes] = pipe

    def finish(self) -> int:
        """Close the pipe, wait, and give the exit status."""
        self.pipe.close()
        return self._process.wait()

    def said(self) -> str:
        """All it wrote on stderr so far."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self.pipe.close()


@contextmanager
def running(
    output: Any, reads_stdin: bool = False, stdout: IO[bytes] | None = None
) -> Iterator[Process]:
    """Run an ffmpeg-python output; the process is gone when the block ends.

    Args:
        output: What `ffmpeg.output` returned.
        reads_stdin: The pipe is its stdin; otherwise its stdout.
        stdout: Where its stdout goes when the pipe is its stdin; nowhere if None.
    """
    command = output.global_args("-hide_banner", "-loglevel", "error").compile(
        cmd=ffmpeg_program(), overwrite_output=True
    )
    with tempfile.TemporaryFile() as errors:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if reads_stdin else subprocess.DEVNULL,
            stdout=(stdout or subprocess.DEVNULL) if reads_stdin else subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        process = Process(popen, errors)
        try:
            yield process
        finally:
            process.kill()
