"""Read the arrays of a FLAME-format pickle without running anything it says.

A pickle is a program. Here every name in it becomes an inert record of what was asked for; only
names that stand for numbers in NumPy, SciPy and chumpy are taken, and only afterwards are those
records decoded, by the code below. No class or function of the pickle's choice is ever called, and
chumpy need not be installed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput

SPARSE = re.compile(r"scipy\.sparse(?:\._?(csc|csr))?\.(csc|csr)_(?:matrix|array)")
NUMBER = re.compile(r"[<>=|]?([biuf])([1248])")
NESTING = 8  # a chumpy array may hold another one; more than this is no FLAME file

NAMES = {
    "numpy.ndarray",
    "numpy.dtype",
    "copyreg._reconstructor",
    "builtins.object",
    "builtins.bytes",
    "builtins.set",
    "_codecs.encode",
    "chumpy.ch.Ch",
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
}
"""Every name a FLAME file may use, as Python 3 writes it (and those that SPARSE matches)."""

PYTHON_2 = {"copy_reg": "copyreg", "__builtin__": "builtins"}
BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a damaged pickle can raise."""


class _Record:
    """What a pickle asked to be made: a name, the arguments, the state. It does nothing.

    Each name gets a subclass of its own, made for one file, so that nothing outlives the reading.
    """

    __slots__ = ("args", "state")
    name = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Turns allowed names into records and refuses all others."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._path = path
        self._records: dict[str, type[_Record]] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The record of a name.

        Raises:
            BadInput: the name is not one of a FLAME file's.
        """
        name = f"{PYTHON_2.get(module_name, module_name)}.{global_name}"
        if name not in NAMES and not SPARSE.fullmatch(name):
            raise BadInput(
                f"{self._path} asks for {module_name}.{global_name}, which no FLAME file needs. "
                "It was refused; nothing of it was run.",
                hint="Don't open this file with other tools. Get FLAME from its own web site.",
            )
        if name not in self._records:
            self._records[name] = type("Record", (_Record,), {"__slots__": (), "name": name})
        return self._records[name]


def read_pickle(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read arrays from a pickled dict.

    Args:
        path: The file.
        keys: What to read; sparse matrices come back dense.

    Returns:
        The arrays, by key; a key the file doesn't have is left out.

    Raises:
        BadInput: the pickle is damaged, no dict, or asks for anything but arrays.
    """
    content = path.read_bytes()
    try:
        _check_sizes(content)
        loaded = _InertUnpickler(content, path).load()
        if not isinstance(loaded, dict):
            raise ValueError(f"it holds a {type(loaded).__name__}, not a dict")
        return {key: _array(loaded[key]) for key in keys if key in loaded}
    except BROKEN as error:
        raise BadInput(
            f"{path} can't be read as a FLAME file: {str(error) or type(error).__name__}.",
            hint="Download it again: it is damaged, or something else.",
        ) from error


def _check_sizes(content: bytes) -> None:
    """Refuse sizes that a file of this length can't mean: the unpickler would allocate them."""
    for opcode, argument, _ in pickletools.genops(content):  # raises at texts longer than the file
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise ValueError(f"a place {argument} in the memory of a file of {len(content)} bytes")


def _array(value: Any, depth: int = 0) -> NDArray[Any]:
    """Decode a NumPy, sparse or chumpy array."""
    name, args, state = _parts(value)
    if depth > NESTING:
        raise ValueError("arrays within arrays without end")
    if name == "chumpy.ch.Ch":
        if not isinstance(state, dict) or "x" not in state:
            raise ValueError("a chumpy array without its numbers")
        return _array(state["x"], depth + 1)
    if SPARSE.fullmatch(name):
        return _dense(name, state)
    if name.endswith("._reconstruct") and isinstance(state, tuple) and len(state) in (4, 5):
        shape, dtype, fortran, data = state[-4:]
        return _numbers(data, dtype, shape, "F" if fortran else "C")
    if name.endswith("._frombuffer") and len(args) == 4:
        data, dtype, shape, order = args
        return _numbers(data, dtype, shape, order)
    raise ValueError(f"{name or type(value).__name__} where an array should be")


def _parts(value: Any) -> tuple[str, tuple[Any, ...], Any]:
    """(name, arguments, state) of a record; the name is that of the object's class."""
    if not isinstance(value, _Record):
        return "", (), None
    if value.name == "copyreg._reconstructor" and value.args:  # the oldest way to write an object
        return str(getattr(value.args[0], "name", "")), (), value.state
    return value.name, value.args, value.state


def _numbers(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Interpret bytes as numbers; every size is checked before it is believed."""
    code = _dtype(dtype)
    content = _bytes(data)
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    if math.prod(shape) * code.itemsize != len(content) or order not in ("C", "F"):
        raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
    return np.frombuffer(content, code).reshape(shape, order=order)


def _dtype(value: Any) -> np.dtype[Any]:
    """Decode the type of an array's elements: plain numbers only."""
    name, args, state = _parts(value)
    match = NUMBER.fullmatch(args[0]) if args and isinstance(args[0], str) else None
    if name != "numpy.dtype" or match is None:
        raise ValueError("an array that doesn't hold plain numbers")
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return np.dtype((">" if order == ">" else "<") + match[1] + match[2])


def _bytes(value: Any) -> bytes:
    """Decode bytes: as they are, as Python 2 wrote them, or as Python 3 wrote them for Python 2."""
    name, args, _ = _parts(value)
    if name == "_codecs.encode" and args and isinstance(args[0], str):
        value = args[0]
    if name == "builtins.bytes" and not args:
        return b""
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ValueError("an array without bytes")


def _whole(value: Any) -> int:
    """Decode an integer, Python's or NumPy's."""
    name, args, _ = _parts(value)
    if name.endswith(".scalar") and len(args) == 2:
        value = _numbers(args[1], args[0], (), "C").item()
    if type(value) is not int:
        raise ValueError(f"{value!r} where a length should be")
    return value


def _dense(name: str, state: Any) -> NDArray[Any]:
    """Decode a compressed sparse matrix; repeated entries add up, as SciPy has it."""
    values, minor, starts = (_array(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = (_whole(length) for length in state.get("_shape") or state["shape"])
    by_column = "csc" in name
    major_count = columns if by_column else rows
    lengths = starts[1:].astype(np.int64) - starts[:-1].astype(np.int64)
    fits = len(lengths) == major_count and (lengths >= 0).all() and lengths.sum() == len(minor)
    if not fits or len(values) != len(minor) or (minor < 0).any() or rows * columns > 10**7:
        raise ValueError("a sparse matrix whose parts don't fit together")
    major = np.repeat(np.arange(major_count), lengths)
    dense = np.zeros((rows, columns))
    np.add.at(dense, (minor, major) if by_column else (major, minor), values)
    return dense
