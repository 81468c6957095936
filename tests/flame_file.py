"""Files in FLAME's format, made from the open head: the real ones may not be passed on."""

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.sparse
import torch

from talkgs_cli.heads.open_head import OpenHead
from talkgs_cli.types import REGIONS

ABSENT = ("upper_teeth", "lower_teeth", "tongue", "mouth_interior")  # from FLAME
OFFSET_M = np.array([0.001, 0.04, -0.02])  # FLAME's origin is elsewhere
KINTREE = np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32)


class Ch:
    """Looks like chumpy's array once it is pickled."""

    def __init__(self, x):
        self.x = x
        self._cache = {"drs": None}


def flame_arrays(head: OpenHead, identity: torch.Tensor | None = None) -> dict:
    """The arrays of a FLAME file whose average person has the open head's identity [S]."""
    if identity is not None:
        basis = head.shape_basis
        head = head.settle(identity)
        head.shape_basis = basis
    regions = head.face_regions.numpy()
    kept = ~np.isin(regions, [REGIONS.index(name) for name in ABSENT])
    vertices, faces = np.unique(head.faces.numpy()[kept], return_inverse=True)
    faces = faces.reshape(-1, 3)
    template = head.template.double().numpy()[vertices]
    count = len(vertices)

    shape, expression = head.shape_basis.numpy(), head.expression_basis.numpy()
    directions = np.zeros((count, 3, 400))
    directions[:, :, : len(shape)] = np.moveaxis(shape[:, vertices], 0, 2)
    directions[:, :, 300 : 300 + len(expression)] = np.moveaxis(expression[:, vertices], 0, 2)
    weights = np.zeros((count, 5))
    weights[:, 2] = head.jaw_weights.numpy()[vertices]
    eyes = np.unique(faces[regions[kept] == REGIONS.index("eyes")])
    balls = [eyes[template[eyes, 0] > 0], eyes[template[eyes, 0] < 0]]
    for joint, ball in zip((3, 4), balls, strict=True):
        weights[ball, joint] = 1 - weights[ball, 2]
    weights[:, 0] = 1 - weights.sum(1)

    joints = np.zeros((5, count))
    for joint, ball in zip((3, 4), balls, strict=True):
        joints[joint, ball] = 1 / len(ball)
    some = np.linspace(0, count - 1, 40).astype(int)
    equations = np.concatenate([template[some].T, np.ones((1, len(some)))])
    for joint, place in ((0, [0, -0.1, 0]), (1, [0, -0.08, 0]), (2, head.hinge.numpy())):
        joints[joint, some] = np.linalg.lstsq(equations, np.append(place, 1.0))[0]

    posedirs = np.zeros((count, 3, 36))
    remainder = head.jaw_remainder.double().numpy()[vertices]
    posedirs[:, :, 9 + 7] = remainder / np.sin(float(head.jaw_reference_rad))  # row 2, column 1
    return {
        "v_template": template + OFFSET_M,
        "f": faces.astype(np.uint32),
        "shapedirs": directions,
        "posedirs": posedirs,
        "J_regressor": scipy.sparse.csc_matrix(joints),
        "weights": weights,
        "kintree_table": KINTREE,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "kept_vertices": vertices,
    }


def write_flame(path: Path, arrays: dict, protocol: int = 2) -> Path:
    """Pickle the arrays as FLAME's files are: of chumpy, SciPy and NumPy."""
    chumpy, ch = ModuleType("chumpy"), ModuleType("chumpy.ch")
    chumpy.ch, ch.Ch = ch, Ch
    here = Ch.__module__
    Ch.__module__ = "chumpy.ch"
    sys.modules |= {"chumpy": chumpy, "chumpy.ch": ch}
    wrapped = ("v_template", "shapedirs", "posedirs", "weights")
    try:
        path.write_bytes(
            pickle.dumps({k: Ch(v) if k in wrapped else v for k, v in arrays.items()}, protocol)
        )
    finally:
        Ch.__module__ = here
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    return path
