"""What the user sees: progress and messages on stderr, results on stdout, errors in one line each.

It draws what it is given and decides exit codes of errors; it runs no stage.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from talkgs_cli.errors import MachineLacks, TalkgsError
from talkgs_cli.runtime import disk_errors

FIRST_LINE_S = 5.0
"""Without a terminal, a stage stays silent this long before its first progress line."""

LINE_EVERY_S = 20.0
"""Without a terminal, seconds between two progress lines of one stage."""


# -- progress ------------------------------------------------------------------------------------


class TerminalProgress:
    """A `runtime.Progress` drawn as live bars on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._open = 0

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show one counted piece of work; the yielded function advances it by n."""
        if self._open == 0:
            self._bars.start()
        self._open += 1
        started, count = time.monotonic(), 0
        task = self._bars.add_task(name, total=total, rate="")

        def advance(n: int) -> None:
            nonlocal count
            count += n
            rate = _rate(count, time.monotonic() - started)
            self._bars.update(task, advance=n, rate=rate)

        try:
            yield advance
            self.note(_finished_line(name, count, time.monotonic() - started))
        finally:
            self._bars.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()

    def note(self, message: str) -> None:
        """Print one sentence above the bars."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)


class LineProgress:
    """A `runtime.Progress` for logs and pipes: few plain lines on stderr."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Report one counted piece of work; the yielded function advances it by n."""
        started, count = time.monotonic(), 0
        next_line = started + FIRST_LINE_S

        def advance(n: int) -> None:
            nonlocal count, next_line
            count += n
            now = time.monotonic()
            if now >= next_line:
                next_line = now + LINE_EVERY_S
                self.note(_running_line(name, count, total, now - started))

        yield advance
        self.note(_finished_line(name, count, time.monotonic() - started))

    def note(self, message: str) -> None:
        """Print one sentence."""
        print_error(message)


def make_progress() -> TerminalProgress | LineProgress:
    """Live bars when stderr is a terminal, plain lines otherwise."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


def _rate(count: int, elapsed_s: float) -> str:
    return f"{count / elapsed_s:.1f}/s" if count and elapsed_s > 0 else ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _running_line(name: str, count: int, total: int | None, elapsed_s: float) -> str:
    parts = [f"{name}: {count}" + (f"/{total}" if total else "")]
    if count:
        parts.append(_rate(count, elapsed_s))
        if total and count < total:
            parts.append(f"{_duration(elapsed_s / count * (total - count))} left")
    return ", ".join(parts)


def _finished_line(name: str, count: int, elapsed_s: float) -> str:
    counted = f" {count}," if count > 1 else ""
    return f"{name}:{counted} done in {_duration(elapsed_s)}"


# -- results -------------------------------------------------------------------------------------


def print_error(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def print_result(text: str) -> None:
    """One line on stdout: the result, and nothing else ever."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(answer: dict[str, Any]) -> None:
    """The answer as one JSON object on stdout; what JSON can't hold (NaN, infinity) is null."""
    print_result(json.dumps(_plain(answer), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def print_table(title: str, header: list[str], rows: list[list[str]], texts: int = 1) -> None:
    """A table on stdout; the first `texts` columns are text, the others figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, highlight=False).print(table)


def figure(value: Any) -> str:
    """One figure of an answer: a number, `{mean, low, high}`, or nothing."""
    if isinstance(value, dict):
        mean, low, high = (value.get(key) for key in ("mean", "low", "high"))
        if low is None or high is None:
            return figure(mean)
        return f"{figure(mean)} [{figure(low)}, {figure(high)}]"
    if value is None:
        return "-"
    if isinstance(value, float):
        if math.isinf(value):
            return "inf"
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


def print_score(answer: dict[str, Any]) -> None:
    """The score as one table of rows and regions, then the lips' behaviour."""
    rows = answer.get("rows") or {}
    metrics = list(
        dict.fromkeys(
            metric for regions in rows.values() for values in regions.values() for metric in values
        )
    )
    shares = answer.get("ground_truth_share") or {}
    table = [
        [
            row,
            region,
            figure((shares.get(row) or {}).get(region)),
            *(_mean(values.get(metric)) for metric in metrics),
        ]
        for row, regions in rows.items()
        for region, values in regions.items()
    ]
    title = f"{answer.get('protocol', '')}, {answer.get('frames', '?')} frames"
    print_table(title, ["row", "region", "true pixels", *metrics], table, texts=2)
    behaviour = answer.get("behaviour") or {}
    if behaviour:
        print_result("")
        print_table("lips", ["", "value"], [[k, figure(v)] for k, v in behaviour.items()])


def _mean(value: Any) -> str:
    return figure(value.get("mean") if isinstance(value, dict) else value)


def print_doctor(answer: dict[str, Any]) -> None:
    """What `doctor` found, problems last."""
    for name in ("talkgs", "python", "torch", "device", "ffmpeg", "cache"):
        if answer.get(name) is not None:
            print_result(f"{name:<12}{_one_line(answer[name])}")
    for name, state in (answer.get("backends") or {}).items():
        print_result(
            f"{name:<12}{'usable' if state['usable'] else 'not usable: ' + state['reason']}"
        )
    for asset in answer.get("assets") or []:
        print_result(f"{'asset':<12}{asset['name']}: {asset['state']}")
    for problem in answer.get("problems") or []:
        print_result(f"Problem: {problem['what']}\n  Fix: {problem['fix']}")
    print_result("Everything is there." if answer["ok"] else "Something is missing: see above.")


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return str(value)


def print_assets(answer: dict[str, Any]) -> None:
    """The table of third-party assets."""
    rows = [
        [
            asset["name"],
            asset["licence"],
            f"{asset['size'] / 1e6:.1f} MB",
            asset["state"],
            asset["sources"][0],
        ]
        for asset in answer["assets"]
    ]
    print_table("", ["asset", "licence", "size", "state", "source"], rows, texts=5)
    print_error(f"Cache: {answer['cache']}")


def print_bench(answer: dict[str, Any]) -> None:
    """Timings and ratios of `bench`."""
    rows = answer.get("rows") or []
    header = list(dict.fromkeys(key for row in rows for key in row))
    print_result(_one_line(answer.get("machine")))
    print_table("", header, [[figure(row.get(key)) for key in header] for row in rows])
    for name, value in (answer.get("ratios") or {}).items():
        print_result(f"{name}: {figure(value)}")


# -- errors --------------------------------------------------------------------------------------


def debugging() -> bool:
    """Whether the user asked for tracebacks with TALKGS_DEBUG=1."""
    return os.environ.get("TALKGS_DEBUG", "") not in ("", "0")


def understand(error: Exception) -> TalkgsError | None:
    """The user-facing form of an exception, or None when it is a bug."""
    if isinstance(error, TalkgsError):
        return error
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
