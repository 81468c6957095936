"""A clip's arrays on disk: they read as NumPy's would, and the process hardly grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talkgs_cli.frame_rows import FrameRows, RowWriter, first_rows, middles

VALUES = np.random.default_rng(0).standard_normal((1300, 7, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FrameRows:
    path = tmp_path_factory.mktemp("rows") / "r.safetensors"
    with RowWriter(path, "points", VALUES.shape[1:]) as writer:
        writer.append(VALUES[0])
        writer.append(VALUES[1:])
        writer.finish({"valid": np.ones(1300, np.uint8), "scores": VALUES[:, 0]}, {"by": "us"})
    return FrameRows.of(path, "points")


INDICES = [
    5,
    -1,
    -3,
    slice(None),
    slice(3, 900, 7),
    slice(1290, 5000),
    slice(9, 9),
    np.array([4, 5, 6, 1200, 3]),
    np.arange(1300) % 3 == 0,
    (slice(None), [1, 6], slice(None, 2)),
    (slice(None), np.array([[1, 6], [0, 2]])),
    (slice(10, 700), slice(None), 1),
    (7, 3, slice(None, 2)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_it_reads_what_numpy_would(rows: FrameRows, index: object) -> None:
    found, expected = rows[index], VALUES[index]  # type: ignore[index]
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_the_file_is_an_ordinary_safetensors_file(rows: FrameRows, tmp_path: Path) -> None:
    read = load_file(rows.path)
    assert np.array_equal(read["points"], VALUES)
    assert np.array_equal(read["scores"], VALUES[:, 0])
    save_file(read, tmp_path / "again.safetensors")
    again = FrameRows.of(tmp_path / "again.safetensors", "points")
    assert np.array_equal(again[:], VALUES)


def test_rows_can_be_mended_before_the_end(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "r.safetensors", "x", (2,)) as writer:
        for _ in range(3):
            writer.append(np.zeros(2, np.float32))
        writer[1] = writer[0] + 4
        writer.append(np.ones(2, np.float32))
        writer.finish({}, {})
    assert FrameRows.of(writer.path, "x")[:].tolist() == [[0, 0], [4, 4], [0, 0], [1, 1]]


def test_the_middle_of_a_frame_is_the_mean_of_its_points(rows: FrameRows) -> None:
    assert np.allclose(middles(rows), VALUES[..., :2].mean(1), atol=1e-6)


def test_the_first_rows_stay_on_disk(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    with RowWriter(tmp_path / "r.safetensors", "x", (3,)) as writer:
        for row in values:
            writer.append(row)
        writer.finish({}, {})
    first = first_rows(FrameRows.of(tmp_path / "r.safetensors", "x"), 4)
    assert isinstance(first, FrameRows)
    assert np.array_equal(first[:], values[:4])
    assert np.array_equal(first[-1], values[3])
    assert len(first_rows(values, 99)) == 10


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from talkgs_cli.frame_rows import FrameRows, RowWriter
path = Path(sys.argv[1])
row = np.ones((478, 3), np.float32)
FrameRows, RowWriter, np.linalg.norm(row)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with RowWriter(path, "points", row.shape) as writer:
    for _ in range(20000):
        writer.append(row)
    writer.finish({}, {})
rows = FrameRows.of(path, "points")
assert rows[:, [13, 14], :2].sum() == 80000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_hundred_megabytes_of_rows_take_ten(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "r.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 10_000
