"""Make the open head's arrays from the MakeHuman files: neutral, identity, expression, jaw.

It reads the archive and the table of our own (`anatomy.json`); it neither poses nor caches.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.heads.jaw import fit_jaw
from talkgs_cli.heads.makehuman import FACE_UNITS, TARGETS, BodyMesh, MakeHumanArchive
from talkgs_cli.types import REGIONS

ANATOMY = Path(__file__).with_name("anatomy.json")
METRES = 0.1  # MakeHuman counts in decimetres
SHAPE_MODES = 36
LOWEST = 5.8  # where the neck is cut, decimetres in the neutral body (the chin is near 6.2)
ORIGIN_FROM_EYES = (0.0, -0.30, -0.75)  # decimetres from between the eyeballs to the head frame

GROUP_REGIONS = {
    "body": "skin",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
    "helper-l-eye": "eyes",
    "helper-r-eye": "eyes",
}
# The jaw's own rotation replaces these units.
JAW_UNITS = ("jawOpen", "jawLeft", "jawRight")
MOUTH_PREFIXES = ("jaw", "mouth", "tongue", "cheekPuff")
RACES, SEXES = ("african", "asian", "caucasian"), ("female", "male")
# How far people are taken to lie along a slider: standard deviation, 1 = the slider's end.
SLIDER_SIGMA = 0.25
MACRO_SIGMA = 0.5
# Sliders that move a whole feature off the middle: nobody's, and the teeth don't follow them.
SIDEWAYS = ("trans-in.target.gz", "trans-out.target.gz")
SLIDER_FOLDERS = ("head", "eyes", "nose", "mouth", "ears", "chin", "cheek", "forehead", "eyebrows")


@dataclass(frozen=True)
class Anatomy:
    """Our own table about the head's surface, made by `derive_anatomy`.

    Attributes:
        quad_regions: [Q] index into REGIONS for each kept quad.
        landmarks: [L] which of the tracker's 478 points.
        corners: [L, 3] vertices of MakeHuman's body mesh.
        weights: [L, 3] barycentric.
    """

    quad_regions: NDArray[np.int64]
    landmarks: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: NDArray[np.float64]


def read_anatomy(path: Path = ANATOMY) -> Anatomy:
    """Read the table that ships with the package."""
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = np.array(table["landmarks"], dtype=np.float64)
    first_two = rows[:, 4:6]
    return Anatomy(
        np.array([int(digit) for digit in table["quad_regions"]]),
        rows[:, 0].astype(np.int64),
        rows[:, 1:4].astype(np.int64),
        np.concatenate([first_two, 1 - first_two.sum(1, keepdims=True)], axis=1),
    )


def write_anatomy(anatomy: Anatomy, path: Path = ANATOMY) -> None:
    """Write the table: one landmark a line, so that a change can be read.

    Called by hand, by the script in docs/heads.md, when mesh, pictures or detector have changed.
    """
    rows = [
        f"  [{mark}, {a}, {b}, {c}, {u:.4f}, {v:.4f}]"
        for mark, (a, b, c), (u, v, _) in zip(
            anatomy.landmarks, anatomy.corners, anatomy.weights, strict=True
        )
    ]
    regions = "".join(str(region) for region in anatomy.quad_regions)
    path.write_text(
        f'{{\n "quad_regions": "{regions}",\n "landmarks": [\n' + ",\n".join(rows) + "\n ]\n}\n",
        encoding="utf-8",
    )


@dataclass(frozen=True)
class HeadCut:
    """The part of the body that is the head.

    Attributes:
        body: The whole mesh.
        neutral: [P, 3] the average young adult, whole body, decimetres.
        vertices: [V] kept vertices, indices into the body.
        quads: [Q, 4] kept quads, indices into `vertices`.
        quad_groups: [Q] their groups.
    """

    body: BodyMesh
    neutral: NDArray[np.float64]
    vertices: NDArray[np.int64]
    quads: NDArray[np.int64]
    quad_groups: NDArray[np.str_]


def cut_head(archive: MakeHumanArchive) -> HeadCut:
    """Average the young adults and keep head, neck, teeth, tongue and eyeballs."""
    body = archive.mesh()
    count = len(body.points)
    macro = TARGETS + "macrodetails/"
    neutral = body.points.copy()
    for sex in SEXES:
        for race in RACES:
            neutral += archive.target(f"{macro}{race}-{sex}-young.target.gz", count) / 6
        build = f"{macro}universal-{sex}-young-averagemuscle-averageweight.target.gz"
        neutral += archive.target(build, count) / 2
    kept = np.isin(body.groups, list(GROUP_REGIONS))
    kept &= neutral[body.quads, 1].min(axis=1) > LOWEST
    vertices, quads = np.unique(body.quads[kept], return_inverse=True)
    return HeadCut(body, neutral, vertices, quads.reshape(-1, 4), body.groups[kept])


def split_quads(quads: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Q, 4] quads to [2 Q, 3] triangles; quad i becomes triangles 2 i and 2 i + 1."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3)


def identity_modes(archive: MakeHumanArchive, cut: HeadCut) -> NDArray[np.float64]:
    """Principal directions of the sliders that shape a head: [S, V, 3] decimetres, unit variance.

    Each slider is taken as an independent zero-mean direction, so the modes are the singular
    vectors of the scaled displacements, each scaled by its standard deviation. Whole-head shifts
    are taken out: they belong to the pose.
    """
    count = len(cut.body.points)
    macro = TARGETS + "macrodetails/"

    def moved(name: str) -> NDArray[np.float64]:
        return archive.target(name, count)[cut.vertices]

    directions = [
        SLIDER_SIGMA * moved(name)
        for folder in SLIDER_FOLDERS
        for name in archive.names(f"{TARGETS}{folder}/")
        if not (folder != "eyes" and name.endswith(SIDEWAYS))
    ]
    young = {(r, s): moved(f"{macro}{r}-{s}-young.target.gz") for r in RACES for s in SEXES}
    average = np.mean(list(young.values()), axis=0)
    directions += [MACRO_SIGMA * (shape - average) for shape in young.values()]
    for (race, sex), shape in young.items():
        old = moved(f"{macro}{race}-{sex}-old.target.gz")
        directions.append(0.5 * MACRO_SIGMA * (old - shape))
    for sex in SEXES:
        normal = moved(f"{macro}universal-{sex}-young-averagemuscle-averageweight.target.gz")
        for weight in ("minweight", "maxweight"):
            build = f"{macro}universal-{sex}-young-averagemuscle-{weight}.target.gz"
            directions.append(MACRO_SIGMA * (moved(build) - normal))

    stack = np.stack(directions)  # [K, V, 3]
    skull = cut.neutral[cut.vertices, 1] > LOWEST + 0.5
    stack -= stack[:, skull].mean(axis=1, keepdims=True)
    _, spread, modes = np.linalg.svd(stack.reshape(len(stack), -1), full_matrices=False)
    scaled = modes[:SHAPE_MODES] * spread[:SHAPE_MODES, None]
    return scaled.reshape(SHAPE_MODES, -1, 3)


def build_arrays(
    archive: MakeHumanArchive, anatomy: Anatomy | None
) -> tuple[dict[str, NDArray[np.generic]], tuple[str, ...]]:
    """All arrays of the head, metres, head frame, float32 and int64; and the expression names.

    Args:
        archive: The MakeHuman files.
        anatomy: Our table, or None to build a head without landmarks and fine regions.
    """
    cut = cut_head(archive)
    count = len(cut.body.points)
    names = {Path(name).stem: name for name in archive.names(FACE_UNITS)}
    units = {unit: archive.target(path, count)[cut.vertices] for unit, path in names.items()}
    expressions = tuple(unit for unit in units if unit not in JAW_UNITS)

    bone = np.zeros(len(cut.vertices), dtype=bool)
    bone[cut.quads[np.isin(cut.quad_groups, ["helper-lower-teeth", "helper-tongue"])]] = True
    teeth = np.zeros(len(cut.vertices), dtype=bool)
    teeth[cut.quads[np.char.endswith(cut.quad_groups, "teeth")]] = True
    points = cut.neutral[cut.vertices]
    jaw = fit_jaw(points, units["jawOpen"], bone)
    expression = np.stack([units[unit] for unit in expressions])
    expression[:, teeth] = 0.0  # teeth are bone: only the jaw moves the lower ones

    eyes = np.char.endswith(cut.quad_groups, "-eye")
    origin = points[np.unique(cut.quads[eyes])].mean(axis=0) + np.array(ORIGIN_FROM_EYES)
    shape = identity_modes(archive, cut)
    near_hinge = np.argsort(np.linalg.norm(points[:, 1:] - jaw.hinge[1:], axis=1))[:60]
    regions = (
        np.array([REGIONS.index(GROUP_REGIONS[group]) for group in cut.quad_groups])
        if anatomy is None
        else anatomy.quad_regions
    )
    to_cut = np.full(count, -1)
    to_cut[cut.vertices] = np.arange(len(cut.vertices))
    single = {
        "template": (points - origin) * METRES,
        "shape_basis": shape * METRES,
        "expression_basis": expression * METRES,
        "hinge": (jaw.hinge - origin) * METRES,
        "hinge_basis": shape[:, near_hinge].mean(axis=1) * METRES,
        "jaw_weights": jaw.weights,
        "jaw_remainder": jaw.remainder * METRES,
        "jaw_reference_rad": np.array([jaw.reference_rad]),
        "landmark_weights": np.zeros((0, 3)) if anatomy is None else anatomy.weights,
    }
    whole = {
        "faces": split_quads(cut.quads),
        "face_regions": np.repeat(regions, 2),
        "body_vertices": cut.vertices,
        "landmark_index": np.zeros(0) if anatomy is None else anatomy.landmarks,
        "landmark_vertices": np.zeros((0, 3)) if anatomy is None else to_cut[anatomy.corners],
    }
    arrays: dict[str, NDArray[np.generic]] = {
        **{name: array.astype(np.float32) for name, array in single.items()},
        **{name: array.astype(np.int64) for name, array in whole.items()},
    }
    return arrays, expressions
