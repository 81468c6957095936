"""`Clock`: seconds by named part of a stage."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

ItemT = TypeVar("ItemT")


class Clock:
    """Adds up the seconds spent in named parts; a part belongs to one thread at a time."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a `with` block under `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(name, time.monotonic() - started)

    def over(self, name: str, items: Iterator[ItemT]) -> Generator[ItemT]:
        """Time how long each item takes to arrive; closing this closes a generator underneath."""
        try:
            while True:
                started = time.monotonic()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._add(name, time.monotonic() - started)
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()

    def parts(self) -> dict[str, float]:
        """Seconds by part."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
