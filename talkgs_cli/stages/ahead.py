"""`ahead`: works on an iterator in a thread of its own, a few items before they are asked for.

Whatever an item is, and however it is made, is the caller's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

POLL_S = 0.2  # a thread that waits for room looks this often whether it is still wanted


@dataclass
class _Last:
    """Put after the last item: why there are no more."""

    error: BaseException | None


class _Worker(Generic[ItemT]):
    """A thread that fills a queue until the items end, fail, or nobody wants them any more."""

    def __init__(self, items: Iterator[ItemT], count: int, name: str) -> None:
        self.made: queue.Queue[ItemT | _Last] = queue.Queue(count)
        self._items = items
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"talkgs-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as failed:  # it is raised again where the items are used
            error = failed
        finally:
            if isinstance(self._items, Generator):
                with suppress(Exception):
                    self._items.close()  # programs it runs end here, in its own thread
            self._put(_Last(error))

    def _put(self, item: ItemT | _Last) -> bool:
        while not self._unwanted.is_set():
            with suppress(queue.Full):
                self.made.put(item, timeout=POLL_S)
                return True
        return False

    def stop(self) -> None:
        self._unwanted.set()
        with suppress(queue.Empty):
            while True:
                self.made.get_nowait()  # room for one that waits
        self._thread.join()


def ahead(items: Iterable[ItemT], count: int, name: str) -> Generator[ItemT]:
    """Yield the items, made up to `count` ahead in a thread; closing it ends the thread.

    Args:
        items: Used in that thread only. A generator is closed there.
        count: How many may wait; they and one more are in memory.
        name: Of the thread, for those who look.

    >>> list(ahead(range(5), 2, "counting"))
    [0, 1, 2, 3, 4]
    """
    worker: _Worker[ItemT] = _Worker(iter(items), count, name)
    try:
        while not isinstance(item := worker.made.get(), _Last):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        worker.stop()
