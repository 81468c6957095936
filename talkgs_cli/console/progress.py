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


class Pace:
    """How fast a piece of work goes. The first step is left out: it carries compiling and loading.

    Attributes:
        started: Clock at the start, seconds.
        count: Steps so far.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.count = 0
        self._first: tuple[float, int] | None = None

    def add(self, n: int) -> None:
        """Count n more steps."""
        self.count += n
        if self._first is None:
            self._first = (time.monotonic(), self.count)

    @property
    def rate(self) -> float | None:
        """Steps a second, None while it can't be told."""
        if self._first is None or self.count == self._first[1]:
            return None
        return (self.count - self._first[1]) / max(time.monotonic() - self._first[0], 1e-9)


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
        pace = Pace()
        task = self._bars.add_task(name, total=total, rate="")

        def advance(n: int) -> None:
            pace.add(n)
            rate = f"{pace.rate:.1f}/s" if pace.rate else ""
            self._bars.update(task, advance=n, rate=rate)

        try:
            yield advance
            self.note(finished_line(name, pace))
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
        pace = Pace()
        next_line = pace.started + FIRST_LINE_S

        def advance(n: int) -> None:
            nonlocal next_line
            pace.add(n)
            now = time.monotonic()
            if now >= next_line and pace.count != total:
                next_line = now + LINE_EVERY_S
                self.note(running_line(name, pace, total))

        yield advance
        self.note(finished_line(name, pace))

    def note(self, message: str) -> None:
        """Print one sentence."""
        print_error(message)


def make_progress() -> TerminalProgress | LineProgress:
    """Live bars when stderr is a terminal, plain lines otherwise."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


def duration(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def running_line(name: str, pace: Pace, total: int | None) -> str:
    """Stage, count, rate, time left."""
    parts = [f"{name}: {pace.count}" + (f"/{total}" if total else "")]
    if rate := pace.rate:
        parts.append(f"{rate:.1f}/s")
        if total and pace.count < total:
            parts.append(f"{duration((total - pace.count) / rate)} left")
    return ", ".join(parts)


def finished_line(name: str, pace: Pace) -> str:
    """Stage, count, time taken."""
    counted = f" {pace.count}," if pace.count > 1 else ""
    return f"{name}:{counted} done in {duration(time.monotonic() - pace.started)}"
