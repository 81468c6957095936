"""How far a stage is, on stderr: live bars at a terminal, few plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from talkgs_cli.console.lines import print_error

FIRST_LINE_S = 5.0
"""Without a terminal, a stage stays silent this long before its first progress line."""

LINE_EVERY_S = 20.0
"""Without a terminal, seconds between two progress lines of one stage."""


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
