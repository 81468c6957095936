"""A thread for what `prepare` does beside the crops, which ends soon when the crops are stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Stopped(Exception):
    """The work was told to end."""


class Beside(AbstractContextManager["Beside"]):
    """One thread; it is waited for, unless the block is left by an error or Ctrl-C.

    Then nothing queued begins, and what runs ends at its next step: work takes its progress or its
    input from here, so that it hears of it. It is also a `Progress`, one that shows nothing.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="beside")
        self._stopping = threading.Event()

    def submit(self, work: Callable[..., ResultT], *arguments: Any) -> Future[ResultT]:
        """Queue a piece of work."""
        return self._pool.submit(work, *arguments)

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yield an advance function that raises `Stopped` when it is time."""
        yield lambda n: self._go_on()

    def note(self, message: str) -> None:
        """Drop the message."""

    def watched(self, items: Iterable[ItemT]) -> Iterator[ItemT]:
        """The same items, until it is time to stop."""
        for item in items:
            self._go_on()
            yield item

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stopping.set()
        self._pool.shutdown(cancel_futures=error is not None)
