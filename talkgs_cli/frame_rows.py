"""Arrays of a whole clip that stay on disk: written row by row, read as far as they are asked for.

They lie in ordinary safetensors files. They are read, not mapped: the pages of a mapped file count
as the process's memory for as long as it is mapped.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.runtime import disk_errors

ROWS_AT_ONCE = 512
HEADER_SPACE = 4096  # bytes kept for the header, which is known when the last row is written
_LENGTH = struct.Struct("<Q")
_NAMES = {np.dtype("float32"): "F32", np.dtype("uint8"): "U8"}


class FrameRows:
    """A float32 tensor [T, ...] of a safetensors file, indexed as a NumPy array.

    The first index names rows: a number, a slice, numbers or flags. What else is in the index is
    applied to a few hundred rows at a time, so that `rows[:, [1, 4], :2]` holds no more than it
    returns. There is no `...`.

    Args:
        path: The file.
        shape: Of the tensor.
        offset: Where in the file it begins, bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], offset: int) -> None:
        self.path, self.shape, self._offset = path, shape, offset

    @classmethod
    def of(cls, path: Path, name: str) -> FrameRows:
        """The tensor of that name.

        Raises:
            ValueError: it is not float32.
        """
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            entry = json.loads(file.read(length))[name]
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} of {path} is {entry['dtype']}, not F32.")
        return cls(path, tuple(entry["shape"]), _LENGTH.size + length + entry["data_offsets"][0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read [n, ...] rows; a single number gives one row without the first dimension."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, int | np.integer):
            return self[(slice(rows, None) if rows == -1 else slice(rows, rows + 1), *rest)][0]
        wanted = np.arange(len(self))[rows]
        inner = (slice(None), *rest)
        first = self._read(wanted[:1])[inner]
        found = np.empty((len(wanted), *first.shape[1:]), np.float32)
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            found[part] = self._read(wanted[part])[inner]
        return found

    def first(self, count: int) -> FrameRows:
        """The first `count` rows, or all there are; they stay on disk."""
        return FrameRows(self.path, (min(count, len(self)), *self.shape[1:]), self._offset)

    def _read(self, wanted: NDArray[np.integer]) -> NDArray[np.float32]:
        found = np.empty((len(wanted), *self.shape[1:]), np.float32)
        bounds = np.flatnonzero(np.diff(wanted) != 1) + 1
        with self.path.open("rb", buffering=0) as file:
            for run in np.split(np.arange(len(wanted)), bounds):
                if not len(run):
                    continue
                place = found[run[0] : run[-1] + 1]
                file.seek(self._offset + int(wanted[run[0]]) * place[0].nbytes)
                if file.readinto(place.data.cast("B")) != place.nbytes:
                    raise OSError(f"{self.path} is shorter than its header says.")
        return found


Rows: TypeAlias = FrameRows | NDArray[np.float32]
"""A whole clip's array [T, ...], on disk or in memory."""


def first_rows(rows: Rows, count: int) -> Rows:
    """The first `count` rows, or all there are; those on disk stay there."""
    return rows.first(count) if isinstance(rows, FrameRows) else rows[:count]


def in_parts(count: int, size: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Slices that cover `count` rows, one after the other.

    >>> list(in_parts(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def middles(landmarks: Rows) -> NDArray[np.float32]:
    """[T, 2] mean place of the points [T, L, 2 or 3] of each frame."""
    found = np.empty((len(landmarks), 2), np.float32)
    for part in in_parts(len(landmarks)):
        found[part] = landmarks[part].mean(1)[:, :2]
    return found


class RowWriter:
    """Writes a safetensors file whose first tensor comes row by row; a context manager.

    Args:
        path: The file; it is no safetensors file before `finish`.
        name: Of the tensor.
        row_shape: Shape of one row.
    """

    def __init__(self, path: Path, name: str, row_shape: tuple[int, ...]) -> None:
        self.path, self.name, self.row_shape = path, name, row_shape
        self.count = 0
        with disk_errors(path):
            self._file: IO[bytes] = path.open("w+b")
            self._file.write(bytes(HEADER_SPACE))

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with disk_errors(self.path):
            self._file.close()

    @property
    def _row_bytes(self) -> int:
        return 4 * int(np.prod(self.row_shape))

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add one row, or [n, ...] rows."""
        whole = np.ascontiguousarray(rows, np.float32).reshape(-1, *self.row_shape)
        with disk_errors(self.path):
            self._file.write(whole.tobytes())
        self.count += len(whole)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """A row that was written."""
        self._file.seek(HEADER_SPACE + index * self._row_bytes)
        row = np.frombuffer(self._file.read(self._row_bytes), np.float32)
        self._file.seek(0, 2)
        return row.reshape(self.row_shape)

    def __setitem__(self, index: int, row: NDArray[np.float32]) -> None:
        """Write a row again."""
        with disk_errors(self.path):
            self._file.seek(HEADER_SPACE + index * self._row_bytes)
            self._file.write(np.ascontiguousarray(row, np.float32).tobytes())
            self._file.seek(0, 2)

    def finish(self, others: dict[str, NDArray[Any]], metadata: dict[str, str]) -> None:
        """Write the other tensors, float32 or uint8, and the header."""
        end = self.count * self._row_bytes
        shape = [self.count, *self.row_shape]
        entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        entries[self.name] = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
        # Wide numbers first: readers want them aligned.
        by_width = sorted(others.items(), key=lambda item: -item[1].itemsize)
        with disk_errors(self.path):
            for name, value in by_width:
                self._file.write(np.ascontiguousarray(value).tobytes())
                entries[name] = {
                    "dtype": _NAMES[value.dtype],
                    "shape": list(value.shape),
                    "data_offsets": [end, end + value.nbytes],
                }
                end += value.nbytes
            header = json.dumps(entries).encode()
            space = HEADER_SPACE - _LENGTH.size
            if len(header) > space:
                raise ValueError(f"The header of {self.path} takes {len(header)} bytes.")
            self._file.seek(0)
            self._file.write(_LENGTH.pack(space) + header.ljust(space))
