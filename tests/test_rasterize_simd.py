"""The blending kernels are vector code: counted in what the compiler made, not timed."""

from __future__ import annotations

import platform
import re
from typing import Any

import numba
import pytest

from talkgs_cli.rendering import numba_blend, numba_blend_backward, numba_jit

MATRIX = numba.float32[:, ::1]
IMAGE = numba.float32[:, :, ::1]
FLOATS = numba.float32[::1]
INTS = numba.int32[::1]
INT = numba.int64
FORWARD = (INT,) * 4 + (MATRIX, MATRIX) + (INTS,) * 3 + (FLOATS, INT, INT, IMAGE, MATRIX)
BACKWARD = (
    (INT,) * 4 + (MATRIX, MATRIX) + (INTS,) * 4 + (INT, INT, IMAGE, MATRIX, IMAGE, MATRIX, MATRIX)
)


def inner_loop(kernel: Any, signature: tuple[Any, ...]) -> list[str]:
    """The instructions of the shortest loop around the packed minimum that clamps alpha."""
    fresh = numba.njit(**{**numba_jit.JIT, "cache": False})(kernel.py_func)
    fresh.compile(signature)
    (code,) = fresh.inspect_asm().values()
    lines = [line.strip() for line in code.splitlines()]
    packed = [n for n, line in enumerate(lines) if re.match(r"v?minps\b", line)]
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if re.match(r"\.\w+:", line)}
    loops = []
    for n, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.\w+)$", line)
        start = labels.get(jump.group(1), n) if jump else n
        if start < n and any(start < p < n for p in packed):
            loops.append(lines[start:n])
    return min(loops, key=len) if loops else []


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly; this is not x86"
)
@pytest.mark.parametrize(
    ("kernel", "signature"),
    [
        (numba_blend.blend_tiles, FORWARD),
        (numba_blend_backward.blend_tiles_backward, BACKWARD),
    ],
    ids=["forward", "backward"],
)
def test_pixels_are_blended_by_vector_instructions_only(
    kernel: Any, signature: tuple[Any, ...]
) -> None:
    loop = inner_loop(kernel, signature)
    assert loop, "no loop with a packed minimum: the pixels are blended one by one"
    arithmetic = r"v?(f?n?m(add|sub|ul)\d*|add|sub|mul|min|max|div)"
    packed = [line for line in loop if re.match(arithmetic + r"ps\b", line)]
    scalar = [line for line in loop if re.match(arithmetic + r"ss\b", line)]
    assert len(packed) >= 20, f"{len(packed)} packed operations"
    assert not scalar, f"{len(scalar)} scalar operations in the inner loop"
