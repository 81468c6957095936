"""Runs a small LiteRT (.tflite) network on one thread; it knows no model and keeps no state."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_stderr_lock = threading.Lock()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: LiteRT's C++ greets every process on stderr."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # stderr is closed: there is nothing to keep quiet
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


class Network:
    """One network with one input.

    Args:
        model: The bytes of a .tflite file.
    """

    def __init__(self, model: bytes) -> None:
        with _quiet_stderr():
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run the network; the outputs are copies, in the model's own order."""
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
