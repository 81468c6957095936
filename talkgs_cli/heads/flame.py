"""FLAME as a `HeadModel`: the user's own file, converted once, loaded from the cache ever after.

The model is that of "Learning a model of facial shape and expression from 4D scans" (SIGGRAPH Asia
2017). Here it is posed and loaded; `flame_import` makes the arrays.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from talkgs_cli.assets import cache_dir
from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import atomic_path, file_sha256

VERSION = 1  # raise it when the arrays mean something else
PREFIX = "flame:"
KEY_LENGTH = 12  # of the SHA-256 in a head's name
EMBEDDING = "mediapipe_landmark_embedding.npz"  # read when it lies beside the model
EXPRESSION_LIMIT = 3.0  # standard deviations
GAZE_LIMIT_RAD = 0.6
GAZE = ("gazeLeftPitch", "gazeLeftYaw", "gazeRightPitch", "gazeRightYaw")
JOINTS = ("jaw", "left_eye", "right_eye")
"""The joints that turn; head and neck stay at rest, as the pose is the camera's."""


@dataclass
class FlameHead:
    """The head's arrays (float32, metres, head frame) and how to pose them.

    Linear blend skinning with pose correctives, as FLAME defines it. `jaw` is the rotation of the
    jaw joint. The last four expression coordinates turn the eyeballs, in radians: pitch (+ looks
    down) and yaw (+ looks to the subject's left) of the left and of the right eye.

    Attributes:
        key: First digits of the SHA-256 of the files it was made from.
        table: How the landmark table was found: "derived", "transferred", with "+embedding".
        template: [V, 3] neutral, average identity.
        shape_basis: [S, V, 3] per standard deviation.
        expression_basis: [E - 4, V, 3] per standard deviation.
        joints: [3, 3] of JOINTS, average identity.
        joints_shape: [S, 3, 3] how identity moves them.
        joints_expression: [E - 4, 3, 3] how expression moves them.
        joint_weights: [3, V] skinning weights.
        pose_basis: [27, V, 3] offset per entry of each joint's rotation minus identity, row-major.
        mouth_coordinates: [E - 4] bool, expression coordinates that move the mouth most.
        faces: [F, 3] int64.
        face_regions: [F] int64, indices into types.REGIONS.
        landmark_index: [L] int64 which of the tracker's 478 points.
        landmark_vertices: [L, 3] int64.
        landmark_weights: [L, 3] barycentric.
        name: The head model's name; the other fields are what `types.HeadModel` says.
    """

    key: str
    table: str
    template: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    joints: Tensor
    joints_shape: Tensor
    joints_expression: Tensor
    joint_weights: Tensor
    pose_basis: Tensor
    mouth_coordinates: Tensor
    faces: Tensor
    face_regions: Tensor
    landmark_index: Tensor
    landmark_vertices: Tensor
    landmark_weights: Tensor
    name: str = field(init=False)
    shape_count: int = field(init=False)
    expression_count: int = field(init=False)
    expression_names: tuple[str, ...] = field(init=False)
    blendshape_names: tuple[str, ...] = field(init=False)
    expression_range: Tensor = field(init=False)
    mouth_expression: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.name = PREFIX + self.key
        self.shape_count = len(self.shape_basis)
        modes = len(self.expression_basis)
        self.expression_count = modes + len(GAZE)
        self.expression_names = (*(f"expression{k + 1:03d}" for k in range(modes)), *GAZE)
        self.blendshape_names = ("",) * self.expression_count
        limit = torch.tensor([EXPRESSION_LIMIT] * modes + [GAZE_LIMIT_RAD] * len(GAZE))
        self.expression_range = torch.stack([-limit, limit], dim=1)
        still = torch.zeros(len(GAZE), dtype=torch.bool)
        self.mouth_expression = torch.cat([self.mouth_coordinates.bool(), still])

    def only(self, vertices: Tensor) -> FlameHead:
        """The same head with only some vertices ([K] int64); it has no faces and no landmarks."""
        none = torch.zeros(0, 3, dtype=torch.int64)
        return replace(
            self,
            template=self.template[vertices],
            shape_basis=self.shape_basis[:, vertices],
            expression_basis=self.expression_basis[:, vertices],
            joint_weights=self.joint_weights[:, vertices],
            pose_basis=self.pose_basis[:, vertices],
            faces=none,
            face_regions=none[:, 0],
            landmark_index=none[:, 0],
            landmark_vertices=none,
            landmark_weights=none.float(),
        )

    def settle(self, shape: Tensor) -> FlameHead:
        """The same head with one identity ([S]) built in; it takes shapes of length 0."""
        return replace(
            self,
            template=self.template + torch.einsum("s,svc->vc", shape, self.shape_basis),
            shape_basis=self.shape_basis[:0],
            joints=self.joints + torch.einsum("s,sjc->jc", shape, self.joints_shape),
            joints_shape=self.joints_shape[:0],
        )

    def vertices(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Pose the head in its own frame; see `types.HeadModel.vertices`."""
        shape = shape if shape.ndim == 2 else shape[None]  # [1 or B, S]
        modes, gaze = expression[:, : -len(GAZE)], expression[:, -len(GAZE) :]
        shaped = (
            self.template
            + _blend(shape, self.shape_basis)
            + _blend(modes, self.expression_basis)  # [B, V, 3]
        )
        joints = (
            self.joints
            + _blend(shape, self.joints_shape)
            + _blend(modes, self.joints_expression)  # [B, 3, 3]
        )
        eyes = torch.nn.functional.pad(gaze.unflatten(1, (2, 2)), (0, 1))  # [B, 2, 3]; no roll
        turns = rotation_minus_identity(torch.cat([jaw[:, None], eyes], dim=1))  # [B, 3, 3, 3]
        rest = shaped + _blend(turns.flatten(1), self.pose_basis)
        posed = rest
        for k in range(len(JOINTS)):
            arms = rest - joints[:, k, None]
            moved = arms @ turns[:, k].transpose(1, 2)
            posed = posed + self.joint_weights[k, :, None] * moved
        return posed

    @classmethod
    def load(cls, name: str) -> FlameHead:
        """Load a converted head from the cache.

        Args:
            name: "flame:PATH" of a FLAME file that was converted, or "flame:KEY".

        Raises:
            BadInput: there is neither such a file nor such a head in the cache.
        """
        key = flame_key(name)
        path = cached_file(key)
        given = name.removeprefix(PREFIX)
        again = f"talkgs assets --flame {given if Path(given).is_file() else 'PATH'}"
        if not path.is_file():
            raise BadInput(
                f"The FLAME head {key} is not in the cache {path.parent}.",
                hint=f"Convert the FLAME file it was made from: {again}",
            )
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                if about["version"] != str(VERSION):
                    raise KeyError("version")
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return cls(key, about["table"], **tensors)
        except (SafetensorError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is damaged or of another version of talkgs.",
                hint=f"Convert the FLAME file again: {again}",
            ) from error

    def save(self) -> Path:
        """Put the head into the cache, where `load` finds it."""
        arrays = {
            name: value.numpy()
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name not in ("expression_range", "mouth_expression")
        }
        path = cached_file(self.key)
        with atomic_path(path) as partial:
            save_file(arrays, partial, {"version": str(VERSION), "table": self.table})
        return path


def flame_key(name: str) -> str:
    """The key of the head that "flame:PATH" or "flame:KEY" names; PATH is only read.

    Raises:
        BadInput: PATH is no file, and no key either.
    """
    given = name.removeprefix(PREFIX)
    path = Path(given).expanduser()
    if not path.is_file():
        if len(given) == KEY_LENGTH and set(given) <= set("0123456789abcdef"):
            return given
        raise BadInput(
            f"There is no FLAME file at {given or 'the path given'}.",
            hint="Name the file from FLAME's web site: --head flame:PATH",
        )
    digest = file_sha256(path)
    embedding = path.with_name(EMBEDDING)
    if embedding.is_file():
        digest = hashlib.sha256((digest + file_sha256(embedding)).encode()).hexdigest()
    return digest[:KEY_LENGTH]


def cached_file(key: str) -> Path:
    """Where the converted head lies, or would lie."""
    return cache_dir() / "flame" / f"{key}.safetensors"


def rotation_minus_identity(axis_angle: Tensor) -> Tensor:
    """[..., 3] axis-angle, radians, to [..., 3, 3] rotation minus identity; smooth at 0.

    Rodrigues' formula: sin(a)/a K + 2 sin(a/2)^2/a^2 K^2, with K the cross product's matrix.
    """
    angle = (axis_angle.square().sum(-1) + 1e-14).sqrt()[..., None, None]
    x, y, z = axis_angle.unbind(-1)
    none = torch.zeros_like(x)
    rows = [none, -z, y, z, none, -x, -y, x, none]
    cross = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    twice = 2 * ((angle / 2).sin() / angle).square()
    return angle.sin() / angle * cross + twice * (cross @ cross)


def _blend(coefficients: Tensor, basis: Tensor) -> Tensor:
    """[B, K] times [K, P, 3]: [B, P, 3]."""
    return (coefficients @ basis.flatten(1)).unflatten(1, (-1, 3))
