"""Head poses that are not the clip's own: from a file, or from a camera that swings round the head.

Frames of the clip don't fit under them, so the head is then rendered alone.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.errors import BadInput

ORBIT_PERIOD_S = 8.0
RIGID_TOLERANCE = 1e-3
POSES, RATE = "world_to_camera", "frame_rate"


@dataclass(frozen=True)
class PoseTrack:
    """Poses over time, played to and fro.

    Attributes:
        world_to_camera: [T, 4, 4] in metres.
        frame_rate: Poses a second.
    """

    world_to_camera: NDArray[np.float64]
    frame_rate: float

    @classmethod
    def read(cls, path: Path) -> PoseTrack:
        """Read an .npz with `world_to_camera` [T, 4, 4] and, if it isn't 25, `frame_rate`.

        `talkgs export --format npz` writes such files.

        Raises:
            BadInput: no such file, another format, or matrices that are no poses.
        """
        hint = f"Give an .npz with {POSES} [T, 4, 4] (OpenCV, metres) and {RATE}, as export makes."
        if not path.is_file():
            raise BadInput(f"There is no pose file {path}.", hint=hint)
        try:
            with np.load(path, allow_pickle=False) as file:
                poses = np.asarray(file[POSES], np.float64)
                rate = _rate(file[RATE]) if RATE in file else 25.0
        except (OSError, ValueError, KeyError, ArithmeticError, zipfile.BadZipFile) as error:
            raise BadInput(f"{path} can't be read as poses: {error}", hint=hint) from error
        if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses):
            raise BadInput(f"{POSES} in {path} has shape {list(poses.shape)}.", hint=hint)
        turn = poses[:, :3, :3]
        off = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max() if len(turn) else 0.0
        if not np.isfinite(poses).all() or off > RIGID_TOLERANCE or np.linalg.det(turn).min() < 0:
            raise BadInput(f"{POSES} in {path} are not rotations with a shift.", hint=hint)
        if not 1 <= rate <= 1000:
            raise BadInput(f"{RATE} in {path} is {rate:g}.", hint=hint)
        return cls(poses, rate)

    def moved_to(self, home: Tensor) -> PoseTrack:
        """The same movement about another mean pose [4, 4].

        The speaker's own poses hardly change; a stranger's head comes to where the camera looks.
        """
        from scipy.spatial.transform import Rotation

        mine, theirs = home.double().numpy(), self.world_to_camera
        mean = Rotation.from_matrix(theirs[:, :3, :3]).mean()
        moved = theirs.copy()
        # Turns are relative to the mean, in the camera's axes; shifts are too.
        relative = Rotation.from_matrix(theirs[:, :3, :3]) * mean.inv()
        moved[:, :3, :3] = (relative * Rotation.from_matrix(mine[:3, :3])).as_matrix()
        moved[:, :3, 3] += mine[:3, 3] - theirs[:, :3, 3].mean(0)
        return PoseTrack(moved, self.frame_rate)

    def at(self, times_s: NDArray[np.float64]) -> Tensor:
        """[k, 4, 4] float32 at any times, between poses interpolated."""
        from scipy.spatial.transform import Rotation, Slerp

        poses = self.world_to_camera
        if len(poses) == 1:
            return torch.from_numpy(poses).float().expand(len(times_s), -1, -1).clone()
        last = len(poses) - 1
        place = np.mod(times_s * self.frame_rate, 2 * last)
        place = np.where(place > last, 2 * last - place, place)
        between = Slerp(np.arange(len(poses)), Rotation.from_matrix(poses[:, :3, :3]))
        out = np.tile(np.eye(4), (len(times_s), 1, 1))
        out[:, :3, :3] = between(place).as_matrix()
        for axis in range(3):
            out[:, axis, 3] = np.interp(place, np.arange(len(poses)), poses[:, axis, 3])
        return torch.from_numpy(out).float()


def _rate(stored: NDArray[Any]) -> float:
    """Frames a second: numerator and denominator as `export` writes them, a number, or a text."""
    if stored.shape == (2,):
        return float(Fraction(int(stored[0]), int(stored[1])))
    return float(Fraction(str(stored)))


def mean_pose(world_to_camera: Tensor) -> Tensor:
    """[4, 4] mean of [T, 4, 4] poses."""
    from scipy.spatial.transform import Rotation

    poses = world_to_camera.double().numpy()
    mean = np.eye(4)
    mean[:3, :3] = Rotation.from_matrix(poses[:, :3, :3]).mean().as_matrix()
    mean[:3, 3] = poses[:, :3, 3].mean(0)
    return torch.from_numpy(mean).float()


def orbit(world_to_camera: Tensor, degrees: float, times_s: NDArray[np.float64]) -> Tensor:
    """Swing the camera round the head, to either side and back every 8 seconds.

    Args:
        world_to_camera: [k, 4, 4].
        degrees: Furthest to either side.
        times_s: [k].
    """
    angle = np.radians(degrees) * np.sin(2 * np.pi * times_s / ORBIT_PERIOD_S)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 0 * angle + 1
    turn: Any = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=1).reshape(
        -1, 3, 3
    )
    turned = world_to_camera.clone()  # the head turns about its own upright axis in front of us
    turned[:, :3, :3] = world_to_camera[:, :3, :3] @ torch.from_numpy(turn).to(world_to_camera)
    return turned
