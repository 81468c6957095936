"""Blinks and gaze as tracks of their own, put into the motion of the frames underneath.

The lids close as this speaker's lids close, where the clip shows it. Moods and winks: not here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.frame_rows import Rows
from talkgs_cli.metrics.eyes import CLOSED_SHARE, eye_opening
from talkgs_cli.types import HeadModel, HeadMotion, Tracking

LONGEST_BLINK_S = 0.5
AROUND_S = 0.12  # before and after a blink that belong to it
USUAL_S = 2.0
# A blink: down fast, shut for a moment, up slower (Kwon et al. 2013 measured 0.1 s and 0.2 s).
CLOSING_S, SHUT_S, OPENING_S = 0.10, 0.04, 0.22
PAUSE_S = (2.0, 8.0)  # between blinks; people who talk blink 10 to 25 times a minute
DOUBLE_SHARE = 0.08  # blinks that are followed by another at once
GAZE_DEGREES = {"In": 14.8, "Out": 14.3, "Up": 9.7, "Down": 11.0}  # of one unit of the open head


@dataclass(frozen=True)
class EyeUnits:
    """Which expression coordinates are the eyes'.

    Attributes:
        lids: Indices of what moves lids.
        looks: Index of each `eyeLook...` unit by the rest of its name, such as "InLeft".
    """

    lids: list[int]
    looks: dict[str, int]

    @classmethod
    def of(cls, head: HeadModel) -> EyeUnits:
        """Find them by their ARKit names.

        Raises:
            UsageError: the head has none.
        """
        names = head.blendshape_names
        lids = [i for i, name in enumerate(names) if name.startswith("eye")]
        if not any(names[i].startswith("eyeBlink") for i in lids):
            raise UsageError(
                f"The {head.name} head has no eyelids that could be moved.",
                hint="Use --blink source and --gaze source.",
            )
        looks = {names[i][7:]: i for i in lids if names[i].startswith("eyeLook")}
        return cls([i for i in lids if i not in looks.values()], looks)


def blinks(opening: NDArray[np.float64], frame_rate: Fraction) -> NDArray[np.bool_]:
    """[T] whether the eyes are shut or on their way, longer closures left out."""
    from scipy.ndimage import median_filter

    usual = median_filter(opening, size=2 * int(USUAL_S * frame_rate / 2) + 1, mode="nearest")
    low = opening < CLOSED_SHARE * usual
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start > LONGEST_BLINK_S * frame_rate:
            low[start:stop] = False
    return low


def widened(times: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """[T] also true so many frames before and after."""
    near = np.convolve(times, np.ones(2 * frames + 1, np.int64))  # [T + 2 frames]
    return np.asarray(near[frames : frames + len(times)] > 0)


def resting(landmarks: Rows, frame_rate: Fraction) -> NDArray[np.bool_]:
    """[T] whether eyes are well open and lips nearly closed: a frame that can stand still.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
        frame_rate: Of the clip.
    """
    from talkgs_cli.metrics.lips import opening

    eyes, lips = eye_opening(landmarks), opening(landmarks)
    shut = widened(blinks(eyes, frame_rate), max(1, int(AROUND_S * frame_rate)))
    awake = (eyes >= np.quantile(eyes, 0.4)) & ~shut
    quiet = lips <= np.quantile(lips[awake], 0.25) if awake.any() else awake
    return np.asarray(awake & quiet)


class NaturalBlinks:
    """The clip's own blinks taken out, seeded ones put in.

    Args:
        tracking: Of the speaker.
        head: Its head model.
        frame_rate: Of the clip.
        seed: Of the times.
    """

    def __init__(
        self, tracking: Tracking, head: HeadModel, frame_rate: Fraction, seed: int
    ) -> None:
        units = EyeUnits.of(head)
        self._units = [*units.lids, units.looks["DownLeft"], units.looks["DownRight"]]
        mouth_correctives = tracking.mouth_correctives
        motion = tracking.motion
        values = torch.cat(
            [motion.expression[:, self._units], motion.corrective[:, mouth_correctives:]], dim=1
        ).numpy()  # [T, U + C]
        opening = eye_opening(tracking.landmarks)
        shut = blinks(opening, frame_rate) & tracking.valid.numpy()
        around = widened(shut, max(1, round(AROUND_S * frame_rate)))
        self._open = _bridged(values, around)  # [T, U + C]
        self._closed = self._closing(values, shut, opening, head)  # [U + C] added when shut
        self._times = blink_times_s(seed)
        self._began_s = next(self._times)

    def _closing(
        self,
        values: NDArray[np.float32],
        shut: NDArray[np.bool_],
        opening: NDArray[np.float64],
        head: HeadModel,
    ) -> NDArray[np.float32]:
        if shut.any():
            deepest = shut & (opening <= np.quantile(opening[shut], 0.3))
            return np.asarray((values - self._open)[deepest].mean(0), np.float32)
        closing = np.zeros(values.shape[1], np.float32)
        for place, unit in enumerate(self._units):
            if head.blendshape_names[unit].startswith("eyeBlink"):
                closing[place] = 1.0
        return closing

    def apply(self, rest: HeadMotion, positions: Tensor, times_s: NDArray[np.float64]) -> None:
        """Change the eyes of a motion in place.

        Args:
            rest: k frames.
            positions: [k] which frame of the clip each one is.
            times_s: [k] when they are shown; it must not go back between calls.
        """
        shut = np.array([self._depth(t) for t in times_s], np.float32)
        eyes = self._open[positions.numpy()] + shut[:, None] * self._closed
        count = len(self._units)
        rest.expression[:, self._units] = torch.from_numpy(eyes[:, :count])
        first = rest.corrective.shape[1] - (eyes.shape[1] - count)
        rest.corrective[:, first:] = torch.from_numpy(eyes[:, count:])

    def _depth(self, time_s: float) -> float:
        """0 open .. 1 shut at a time that does not go back."""
        while time_s > self._began_s + CLOSING_S + SHUT_S + OPENING_S:
            self._began_s = next(self._times)
        return blink_depth(time_s - self._began_s)


def blink_depth(since_s: float) -> float:
    """How far shut the eyes are so long after a blink began.

    >>> [round(blink_depth(t), 2) for t in (-0.1, 0.0, 0.05, 0.12, 0.25, 0.4)]
    [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if since_s < CLOSING_S:
        share = max(0.0, since_s / CLOSING_S)
    else:
        share = min(1.0, max(0.0, 1 - (since_s - CLOSING_S - SHUT_S) / OPENING_S))
    return share * share * (3 - 2 * share)


def blink_times_s(seed: int) -> Iterator[float]:
    """When blinks begin, without end."""
    dice = random.Random(seed)
    time_s = dice.uniform(0.5, PAUSE_S[0])
    while True:
        yield time_s
        length = CLOSING_S + SHUT_S + OPENING_S
        double = dice.random() < DOUBLE_SHARE
        time_s += length + (0.05 if double else dice.uniform(*PAUSE_S))


def _bridged(values: NDArray[np.float32], gaps: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[T, D] with the frames in gaps filled in straight from their neighbours."""
    if gaps.all() or not gaps.any():
        return values
    known, wanted = np.flatnonzero(~gaps), np.flatnonzero(gaps)
    filled = values.copy()
    for column in range(values.shape[1]):
        filled[wanted, column] = np.interp(wanted, known, values[known, column])
    return filled


class Gaze:
    """Eyes that stay on a point beside the camera while the head moves.

    The speaker's usual gaze in the clip is taken for a look into the camera.

    Args:
        tracking: Of the speaker.
        head: Its head model.
        frame_rate: Of the clip.
        offset_deg: (to the speaker's left, up) of the camera.
    """

    def __init__(
        self,
        tracking: Tracking,
        head: HeadModel,
        frame_rate: Fraction,
        offset_deg: tuple[float, float],
    ) -> None:
        self._looks = EyeUnits.of(head).looks
        self._range = head.expression_range
        angles = head_angles_deg(tracking.motion.world_to_camera)  # [T, 2]
        self._head = torch.from_numpy(np.median(angles, axis=0))
        usual = self._angles(tracking.motion.expression).median(0).values  # [2]
        self._target = usual + torch.tensor(offset_deg, dtype=usual.dtype)

    def _angles(self, expression: Tensor) -> Tensor:
        """[T, 2] degrees: mean of both eyes, to the subject's left and up, in the head's frame."""
        unit = {name: expression[:, i] * _degrees(name) for name, i in self._looks.items()}
        yaw = (unit["OutLeft"] - unit["InLeft"] + unit["InRight"] - unit["OutRight"]) / 2
        pitch = (unit["UpLeft"] - unit["DownLeft"] + unit["UpRight"] - unit["DownRight"]) / 2
        return torch.stack([yaw, pitch], dim=1)

    def apply(self, rest: HeadMotion, positions: Tensor, times_s: NDArray[np.float64]) -> None:
        """Change the gaze of a motion in place; see `NaturalBlinks.apply`."""
        turned = torch.from_numpy(head_angles_deg(rest.world_to_camera)) - self._head
        yaw, pitch = (self._target - turned).float().unbind(1)
        wanted = {
            "OutLeft": yaw, "InLeft": -yaw, "InRight": yaw, "OutRight": -yaw,
            "UpLeft": pitch, "UpRight": pitch, "DownLeft": -pitch, "DownRight": -pitch,
        }  # fmt: skip
        for name, degrees in wanted.items():
            index = self._looks[name]
            value = degrees.clamp_min(0) / _degrees(name)
            rest.expression[:, index] = value.clamp_max(float(self._range[index, 1]))


def _degrees(look: str) -> float:
    """How far one unit of "InLeft" and the like turns an eye."""
    return GAZE_DEGREES[look.removesuffix("Left").removesuffix("Right")]


def head_angles_deg(world_to_camera: Tensor) -> NDArray[np.float64]:
    """[T, 2] how far the face is turned to the subject's left and up."""
    ahead = world_to_camera[:, :3, 2].double().numpy()  # the head's z axis in the camera
    yaw = np.degrees(np.arctan2(ahead[:, 0], -ahead[:, 2]))
    pitch = np.degrees(np.arctan2(-ahead[:, 1], -ahead[:, 2]))
    return np.asarray(np.stack([yaw, pitch], axis=1), np.float64)


def eye_tracks(
    tracking: Tracking, head: HeadModel, frame_rate: Fraction, config: SpeakConfig
) -> list[NaturalBlinks | Gaze]:
    """What the settings change about the eyes, in the order in which it is to be applied.

    Args:
        tracking: Of the speaker.
        head: Its head model.
        frame_rate: Of the clip.
        config: How it talks.

    Raises:
        UsageError: the head has no eyelids that could be moved.
    """
    tracks: list[NaturalBlinks | Gaze] = []
    if config.blink == "natural":
        tracks.append(NaturalBlinks(tracking, head, frame_rate, config.seed))
    # After the blinks: they bring along how far the eyes look down in the clip.
    offset_deg = config.gaze_offset_deg()
    if offset_deg is not None:
        tracks.append(Gaze(tracking, head, frame_rate, offset_deg))
    return tracks
