"""Turn a user's FLAME file into the arrays of `FlameHead`, once; it finds no landmarks itself.

Read are .pkl (see `flame_pickle`), .npz and .safetensors files with FLAME's own key names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.heads.derive_anatomy import Detector
from talkgs_cli.heads.flame import EMBEDDING, FlameHead, flame_key
from talkgs_cli.heads.flame_anatomy import find_landmarks, mouth_coordinates
from talkgs_cli.heads.flame_pickle import read_pickle
from talkgs_cli.heads.head_picture import Rasterizer
from talkgs_cli.heads.open_head import OpenHead

SHAPE_COUNT, EXPRESSION_COUNT = 100, 50
FILE_SHAPES = {150: 100}  # shape directions of files that were cut down; 300 in all others
PARENTS = [0, 1, 1, 1]  # of neck, jaw and the eyes
NECK, JAW, EYES = 1, 2, (3, 4)
EYES_APART_M = (0.04, 0.09)  # between the eyeballs' centres: tells metres from other units
MIDDLE_FROM_EYES_M = (0.0, -0.030, -0.075)  # from between the eyeballs to the head frame's origin
KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
EMBEDDING_KEYS = ("lmk_face_idx", "lmk_b_coords", "landmark_indices")


def import_flame(
    path: Path, detect: Detector, rasterize: Rasterizer, lips_inner: Sequence[int]
) -> FlameHead:
    """Convert a FLAME file, find its landmarks and put the head into the cache.

    Args:
        path: The user's file; a landmark embedding (`EMBEDDING`) beside it is used.
        detect: RGB uint8 picture to [478, 3] pixels, or None.
        rasterize: As `rendering.mesh.rasterize_mesh`.
        lips_inner: Landmarks of the inner lip line; see `find_landmarks`.

    Raises:
        BadInput: not a FLAME file.
        DownloadFailed: the open head, from which landmarks are transferred, can't be had.
    """
    bare = bare_head(flame_key(str(path)), read_arrays(path), path)
    head = find_landmarks(bare, OpenHead.load(), detect, rasterize, lips_inner)
    embedding = path.with_name(EMBEDDING)
    if embedding.is_file():
        head = _with_embedding(head, embedding)
    head = replace(head, mouth_coordinates=mouth_coordinates(head, lips_inner))
    head.save()
    return head


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read FLAME's arrays from any of the formats.

    Raises:
        BadInput: unreadable, or an array is missing.
    """
    if path.suffix in (".npz", ".safetensors"):
        arrays = _read_plain(path)
    else:
        arrays = read_pickle(path, KEYS)
    absent = [key for key in KEYS if key not in arrays]
    if absent:
        raise _no_flame(path, f"it has no {', '.join(absent)}")
    return arrays


def _read_plain(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return _read_npz(path, KEYS)
    except (SafetensorError, ValueError) as error:
        raise _no_flame(path, str(error) or type(error).__name__) from error


def _read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays that an .npz file has.

    Raises:
        ValueError: damaged, or no .npz file.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, NpzFile):
            raise ValueError("it is one array, not an .npz file")
        with file:
            return {key: file[key] for key in keys if key in file}
    except (BadZipFile, EOFError, KeyError, NotImplementedError, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def bare_head(key: str, arrays: dict[str, NDArray[Any]], path: Path) -> FlameHead:
    """Check a file's arrays and cut them down to what is used: no landmarks, no regions yet."""
    template = np.asarray(arrays["v_template"], np.float64)
    faces = np.asarray(arrays["f"]).astype(np.int64)
    directions = np.asarray(arrays["shapedirs"], np.float64)
    count = len(template)
    _check_sizes(arrays, path)
    joints_of = np.asarray(arrays["J_regressor"], np.float64)
    joints = joints_of @ template  # [5, 3]
    apart = float(np.linalg.norm(joints[EYES[0]] - joints[EYES[1]]))
    if not EYES_APART_M[0] < apart < EYES_APART_M[1]:
        raise _no_flame(path, f"its eyes are {apart:.3g} m apart")
    left, right = sorted(EYES, key=lambda joint: -joints[joint, 0])
    turning = [JAW, left, right]

    first = FILE_SHAPES.get(directions.shape[2], 300)
    chosen = (
        directions[:, :, : min(SHAPE_COUNT, first)],
        directions[:, :, first : first + EXPRESSION_COUNT],
    )
    shape, expression = (np.moveaxis(part, 2, 0) for part in chosen)
    # Nine entries of the rotation for each joint below the root, the neck first.
    features = [9 * (joint - NECK) + entry for joint in turning for entry in range(9)]
    origin = joints[list(EYES)].mean(axis=0) + np.array(MIDDLE_FROM_EYES_M)
    single = {
        "template": template - origin,
        "shape_basis": shape,
        "expression_basis": expression,
        "joints": joints[turning] - origin,
        "joints_shape": np.einsum("jv,kvc->kjc", joints_of[turning], shape),
        "joints_expression": np.einsum("jv,kvc->kjc", joints_of[turning], expression),
        "joint_weights": np.asarray(arrays["weights"])[:, turning].T,
        "pose_basis": np.moveaxis(np.asarray(arrays["posedirs"]), 2, 0)[features],
        "landmark_weights": np.zeros((0, 3)),
    }
    if not all(np.isfinite(array).all() for array in single.values()) or faces.max() >= count:
        raise _no_flame(path, "its numbers make no mesh")
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for name, array in single.items()
    }
    whole = torch.int64
    return FlameHead(
        key,
        "",
        **tensors,
        mouth_coordinates=torch.zeros(len(expression), dtype=torch.bool),
        faces=torch.from_numpy(faces),
        face_regions=torch.zeros(len(faces), dtype=whole),
        landmark_index=torch.zeros(0, dtype=whole),
        landmark_vertices=torch.zeros(0, 3, dtype=whole),
    )


def _check_sizes(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """Refuse arrays that are no FLAME model's; the number of vertices and faces is free."""
    count = arrays["v_template"].size // 3
    basis = arrays["shapedirs"].shape[-1] if arrays["shapedirs"].ndim == 3 else 0
    wanted = {
        "v_template": (count, 3),
        "f": (arrays["f"].size // 3, 3),
        "shapedirs": (count, 3, basis),
        "posedirs": (count, 3, 36),
        "J_regressor": (5, count),
        "weights": (count, 5),
        "kintree_table": (2, 5),
    }
    for key, shape in wanted.items():
        if arrays[key].shape != shape or count == 0:
            raise _no_flame(path, f"its {key} is {arrays[key].shape} instead of {shape}")
    if arrays["kintree_table"][0, 1:].tolist() != PARENTS:
        raise _no_flame(path, "its joints are not head, neck, jaw and two eyes")
    if basis <= 300 and basis not in FILE_SHAPES:
        raise _no_flame(path, f"it has {basis} shape directions; 300 and expressions are needed")


def _with_embedding(head: FlameHead, path: Path) -> FlameHead:
    """Take the landmarks of the embedding that is published beside FLAME; keep all others."""
    try:
        file = _read_npz(path, EMBEDDING_KEYS)
        faces = file["lmk_face_idx"].astype(np.int64).ravel()
        weights = file["lmk_b_coords"].astype(np.float32)
        marks = file["landmark_indices"].astype(np.int64).ravel()
        known = {int(mark): row for row, mark in enumerate(head.landmark_index)}
        rows = torch.tensor([known[int(mark)] for mark in marks])
        if weights.shape != (len(faces), 3) or len(marks) != len(faces) or faces.min() < 0:
            raise ValueError("its arrays don't fit together")
        corners = head.faces[torch.from_numpy(faces)]
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise BadInput(
            f"{path} is not a landmark embedding of this FLAME file: {error}.",
            hint="Remove it, and the landmarks are found without it.",
        ) from error
    head.landmark_vertices[rows] = corners
    head.landmark_weights[rows] = torch.from_numpy(weights)
    head.table += "+embedding"
    return head


def _no_flame(path: Path, reason: str) -> BadInput:
    return BadInput(
        f"{path} is not a FLAME file: {reason}.",
        hint="FLAME's web site offers generic_model.pkl (2020), flame2023.pkl and 2023 Open.",
    )
