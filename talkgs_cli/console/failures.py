"""How a failure reaches the user: one message, one hint, an exit code; and quiet libraries."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talkgs_cli.console.lines import print_error, print_json
from talkgs_cli.errors import BadInput, MachineLacks, TalkgsError
from talkgs_cli.runtime import disk_errors


def debugging() -> bool:
    """Whether the user asked for tracebacks with TALKGS_DEBUG=1."""
    return os.environ.get("TALKGS_DEBUG", "") not in ("", "0")


def understand(error: Exception) -> TalkgsError | None:
    """The user-facing form of an exception, or None when it is a bug."""
    if isinstance(error, TalkgsError):
        return error
    if isinstance(error, PermissionError) and may_not_be_read(error.filename):
        return BadInput(f"{error.filename} can't be read.", hint="Check who may read it.")
    if isinstance(error, OSError):
        try:
            with disk_errors(Path(error.filename or ".")):
                raise error
        except MachineLacks as known:
            return known
        except OSError:
            return None
    if isinstance(error, MemoryError):
        return MachineLacks(
            "The memory of this machine is full.",
            hint="Close other programs, or use a shorter or smaller video.",
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("talkgs_cli"):
        return MachineLacks(
            f"The Python package {error.name} is missing.",
            hint="Install talkgs again: pip install --force-reinstall talkgs",
        )
    return None


def may_not_be_read(file: str | bytes | int | None) -> bool:
    """Whether this user may not look at a file or folder, or not into the folder that holds it."""
    if not isinstance(file, str):
        return False
    try:
        return Path(file).exists() and not os.access(file, os.R_OK)
    except PermissionError:
        return True


def report(error: Exception, *, as_json: bool) -> int:
    """Tell the user of an error, on stderr and with `as_json` on stdout too.

    Returns:
        The exit code.
    """
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    known = understand(error)
    if known is not None:
        tell(known.kind, known.message, known.hint, as_json=as_json)
        return known.exit_code
    hint = "Please report it; TALKGS_DEBUG=1 in front of the same command shows the traceback."
    tell("bug", f"{type(error).__name__}: {error}", hint, as_json=as_json)
    return 1


def tell(kind: str, message: str, hint: str | None, *, as_json: bool) -> None:
    """One message and its hint on stderr; with `as_json` the error object on stdout."""
    first = "Bug in talkgs" if kind == "bug" else "Error"
    if kind == "interrupted":
        first = "Stopped"
    print_error(f"{first}: {message}")
    if hint:
        print_error(f"  {hint}")
    if as_json:
        print_json({"error": {"kind": kind, "message": message, "hint": hint}})


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep warnings and logs of libraries off stderr, and keep libraries off the network."""
    quiet = {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "error",
        "OPENCV_LOG_LEVEL": "ERROR",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GLOG_minloglevel": "2",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if debugging():
        yield
        return
    last_resort = logging.lastResort
    logging.lastResort = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.lastResort = last_resort
