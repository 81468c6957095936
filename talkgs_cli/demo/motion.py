"""The demo speaker's motion: articulation on the head's own units, blinks, brows, a living pose.

Only the mouth depends on the sound; the rest is drawn from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.types import HeadModel, HeadMotion

if TYPE_CHECKING:
    from talkgs_cli.demo.articulation import Articulation

PIVOT = (0.0, -0.08, -0.06)  # metres, head frame: where head and neck meet
BLINK = (0.35, 0.95, 1.0, 0.7, 0.3, 0.1)  # lid closure at 25 frames a second


@dataclass(frozen=True)
class Style:
    """How lively the demo speaker is.

    Attributes:
        jaw_rad: Widest opening in speech.
        rotation_rad: Amplitudes of nod, turn, tilt.
        shift_m: Of its wandering.
        brows: Times the calm speaker's.
        lopsided: How much more the left half of the mouth moves than the right, 0 to 1.
        blinks: Times as often as the calm speaker.
    """

    jaw_rad: float = 0.18
    rotation_rad: tuple[float, float, float] = (0.025, 0.05, 0.022)
    shift_m: tuple[float, float, float] = (0.003, 0.002, 0.003)
    brows: float = 1.0
    lopsided: float = 0.0
    blinks: float = 1.0


STYLES = {
    "calm": Style(),
    "turning": Style(rotation_rad=(0.08, 0.2, 0.07), shift_m=(0.01, 0.006, 0.015)),
    "expressive": Style(jaw_rad=0.28, brows=2.5, lopsided=0.5, blinks=2.0),
}
"""By the names of `config.DEMO_MOTIONS`."""


@dataclass(frozen=True)
class DemoMotion:
    """The true motion.

    Attributes:
        motion: Expression, jaw and pose of T frames; no correctives.
        gaze: [T, 2] iris shift in picture sides.
    """

    motion: HeadMotion
    gaze: NDArray[np.float32]


def move(
    articulation: Articulation,
    head: HeadModel,
    world_to_camera: Tensor,
    frame_rate: Fraction,
    seed: int,
    style: Style = STYLES["calm"],
) -> DemoMotion:
    """Turn an articulation into a head's motion.

    Args:
        articulation: T frames of mouth.
        head: Whose units move; units it lacks are left out.
        world_to_camera: [4, 4] pose to move about.
        frame_rate: Of the frames.
        seed: Of everything but the mouth.
        style: How lively.
    """
    rng = np.random.default_rng(seed)
    count = len(articulation.opening)
    times = np.arange(count) / float(frame_rate)
    units = _mouth_units(articulation)
    for name in units:
        if name.endswith("Right"):
            units[name] = units[name] * (1 - style.lopsided)
    units |= _upper_face_units(articulation, times, rng, style)
    expression = torch.zeros(count, head.expression_count)
    for column, name in enumerate(head.blendshape_names):
        if name in units:
            expression[:, column] = torch.from_numpy(units[name].astype(np.float32))
    low, high = head.expression_range.T
    jaw = torch.zeros(count, 3)
    jaw[:, 0] = torch.from_numpy((articulation.opening * style.jaw_rad).astype(np.float32))
    turn = _wander(times, rng, style.rotation_rad)
    turn[:, 0] += 0.012 * _emphasis(articulation)
    poses = _poses(world_to_camera, turn, _wander(times, rng, style.shift_m))
    return DemoMotion(
        HeadMotion(expression.clamp(low, high), jaw, torch.zeros(count, 0), poses),
        gaze=(turn[:, [1, 0]] * np.array([-0.03, -0.03])).astype(np.float32),
    )


def _mouth_units(mouth: Articulation) -> dict[str, NDArray[np.floating]]:
    rounded = np.clip(-mouth.width, 0, 1) * np.clip(mouth.speaking, 0, 1)
    spread = np.clip(mouth.width, 0, 1)
    units = {
        "mouthFunnel": 0.45 * rounded,
        "mouthPucker": 0.5 * rounded * (1 - 0.5 * mouth.opening),
        "mouthRollLower": 0.25 * mouth.closure,
        "mouthRollUpper": 0.2 * mouth.closure,
    }
    for side in ("Left", "Right"):
        units[f"mouthSmile{side}"] = 0.3 * (1 - 0.8 * rounded) + 0.15 * spread
        units[f"mouthStretch{side}"] = 0.3 * spread
        units[f"mouthPress{side}"] = 0.3 * mouth.closure
        units[f"mouthLowerDown{side}"] = 0.35 * mouth.hiss + 0.25 * spread * mouth.opening
        units[f"mouthUpperUp{side}"] = 0.2 * mouth.hiss + 0.15 * mouth.opening
    return units


def _upper_face_units(
    mouth: Articulation, times: NDArray[np.floating], rng: np.random.Generator, style: Style
) -> dict[str, NDArray[np.floating]]:
    lids = np.zeros(len(times))
    frame_s = times[1] if len(times) > 1 else 0.04
    at = rng.uniform(0.8, 1.6)
    while at < times[-1]:
        shape = np.interp(times - at, np.arange(len(BLINK)) * 0.04, BLINK, left=0, right=0)
        lids = np.maximum(lids, shape)
        at += max(rng.uniform(1.8, 4.2) / style.blinks, 4 * frame_s)
    brows = style.brows * 0.25 * _emphasis(mouth) + 0.08 * (1 + _wander(times, rng, (1.0,))[:, 0])
    units = {"browInnerUp": np.clip(brows, 0, 1)}
    for side in ("Left", "Right"):
        units[f"eyeBlink{side}"] = lids
        units[f"browOuterUp{side}"] = np.clip(0.8 * brows, 0, 1)
    return units


def _emphasis(mouth: Articulation) -> NDArray[np.floating]:
    """[T] 0 to 1: a slow follower of how open the mouth is."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(mouth.opening, 5.0))


def _wander(
    times: NDArray[np.floating], rng: np.random.Generator, amplitudes: tuple[float, ...]
) -> NDArray[np.floating]:
    """[T, len(amplitudes)] sums of slow sines."""
    curves = np.zeros((len(times), len(amplitudes)))
    for column, amplitude in enumerate(amplitudes):
        for hertz in (0.13, 0.29, 0.53):
            hertz *= rng.uniform(0.8, 1.2)
            phase = rng.uniform(0, 2 * np.pi)
            curves[:, column] += 0.6 * amplitude * np.sin(2 * np.pi * hertz * times + phase)
    return curves


def _poses(
    world_to_camera: Tensor, turn: NDArray[np.floating], shift: NDArray[np.floating]
) -> Tensor:
    """[T, 4, 4] the pose turned about the pivot and shifted, both in the head frame."""
    from scipy.spatial.transform import Rotation

    pivot = np.array(PIVOT)
    local = np.tile(np.eye(4), (len(turn), 1, 1))
    local[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
    local[:, :3, 3] = pivot - local[:, :3, :3] @ pivot + shift
    return torch.from_numpy(world_to_camera.double().numpy() @ local).float()
