"""Which of the speaker's own frames lie under the rendered ones, so that nothing ever jumps.

The clip is played forwards and backwards between moments in which the head is still. It chooses
frame numbers and reads no pixels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput
from talkgs_cli.types import Tracking

# Points of a head (metres, head frame) whose mean travel in the picture is the head's speed.
PROBE = np.array([[0.0, 0.0, 0.08], [0.07, 0.0, 0.0], [-0.07, 0.0, 0.0], [0.0, 0.1, 0.04]])
SPEED_SIGMA_S = 0.1  # a turn takes about this long, so speed is judged over it
TURN_WINDOW = Fraction(1, 4)  # turns lie in the first and last quarter of the walk
TURN_WINDOW_S = 8  # but never further inside: a long clip is to be used whole
TURNS = 4  # places to turn at either end, so that a long video does not repeat itself exactly
TURNS_APART_S = 0.4
CALM = 1.5  # a place is as good as the best one if the head is at most this much faster there
EASE_S = Fraction(6, 25)  # playing slows down and speeds up over this long at a turn
SHORTEST_RUN_S = 0.4
AVOIDED = ("covered", "turned", "blurred", "other_faces", "no_face")
LOOP_S = 4  # what `--pose loop` plays


def usable_runs(
    train: range, valid: NDArray[np.bool_], seen: dict[str, Any], frame_rate: Fraction
) -> list[range]:
    """Stretches of the training part with a good view of the face, longest first.

    Args:
        train: Frames that may be used.
        valid: [T] whether a face is seen.
        seen: What `prepare` noted under `at`: spans and cuts, in seconds.
        frame_rate: Of the clip.
    """
    good = valid.copy()
    for name in AVOIDED:
        for start_s, end_s in seen.get(name) or ():
            good[int(start_s * frame_rate) : int(np.ceil(end_s * frame_rate))] = False
    cuts = [round(cut_s * frame_rate) for cut_s in seen.get("cuts_s") or ()]
    edges = sorted({train.start, train.stop, *(c for c in cuts if train.start < c < train.stop)})
    runs = []
    for start, stop in pairwise(edges):
        inside = np.concatenate([[False], good[start:stop], [False]]).astype(np.int8)
        turns = np.flatnonzero(np.diff(inside)) + start
        runs += [
            range(a, b) for a, b in zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)
        ]
    return sorted(runs, key=len, reverse=True)


def head_speed(tracking: Tracking, frame_rate: Fraction) -> NDArray[np.float64]:
    """[T] how fast the head moves in the picture, pixels a frame."""
    poses = tracking.motion.world_to_camera.double().numpy()
    camera = np.einsum("tij,pj->tpi", poses[:, :3, :3], PROBE) + poses[:, None, :3, 3]
    places = camera[..., :2] / camera[..., 2:] * float(tracking.intrinsics[0, 0])  # [T, P, 2]
    travel = np.gradient(places, axis=0) if len(places) > 1 else np.zeros_like(places)
    # The velocity is smoothed, not the place: a place held at the clip's ends would seem still.
    steady = smoothed(travel.reshape(len(travel), -1), SPEED_SIGMA_S * float(frame_rate))
    steady = steady.reshape(travel.shape)
    return np.asarray(np.linalg.norm(steady, axis=-1).mean(1), np.float64)


def smoothed(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """[T, n] smoothed over time, the ends going on; OpenCV is here anyway, SciPy's filters not."""
    side = 2 * int(4 * sigma + 0.5) + 1
    smooth = cv2.GaussianBlur(values, (1, side), 1, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, np.float64).reshape(values.shape)


@dataclass(frozen=True)
class Walk:
    """To and fro over a stretch of the clip.

    Attributes:
        low: Frames where playing backwards may turn, best first.
        high: Frames where playing forwards may turn, best first.
        ease: Source frames over which playing slows down or speeds up at a turn.
        seed: Of the order in which the places to turn are used.
    """

    low: Sequence[int]
    high: Sequence[int]
    ease: int
    seed: int = 0

    def positions(self, step: Fraction) -> Iterator[int]:
        """Frame number under each frame of the output, without end.

        Args:
            step: Source frames per output frame.
        """
        dice = random.Random(self.seed)
        here, ends = self.low[0], (self.high, self.low)
        passed, leg = Fraction(0), 0
        while True:
            there = ends[leg % 2][dice.randrange(len(ends[leg % 2]))]
            distance = abs(there - here)
            ease = min(self.ease, distance)
            length = max(distance + ease, 1)
            while passed < length:
                walked = eased(passed, distance, ease) if distance else 0.0
                way = int(walked + 0.5)
                yield here + way if there >= here else here - way
                passed += step
            passed -= length
            here, leg = there, leg + 1


def eased(passed: Fraction, distance: int, ease: int) -> float:
    """How far one is after `passed` frames of a way that starts and ends standing.

    >>> [round(eased(Fraction(t), 8, 4), 2) for t in (0, 2, 4, 8, 10, 12)]
    [0.0, 0.5, 2.0, 6.0, 7.5, 8.0]
    """
    if ease and passed < ease:
        return float(passed * passed / (2 * ease))
    if passed <= distance:
        return float(passed - Fraction(ease, 2))
    left = distance + ease - passed
    return float(distance - left * left / (2 * ease)) if ease else float(distance)


def plan_walk(
    speed: NDArray[np.float64],
    runs: Sequence[range],
    frame_rate: Fraction,
    pose: str,
    seed: int = 0,
) -> Walk:
    """Choose the stretch and the places to turn.

    Args:
        speed: [T] of `head_speed`.
        runs: Of `usable_runs`.
        frame_rate: Of the clip.
        pose: "source", "loop" or "still".
        seed: Of the order of turns.

    Raises:
        BadInput: there is no stretch at all.
    """
    if not runs:
        raise BadInput(
            "No frame of the speaker shows a face that isn't covered, turned away or blurred.",
            hint="Prepare another clip; its report.html says what is wrong with this one.",
        )
    run = runs[0]
    ease = 2 * round(EASE_S * frame_rate / 2)  # even: whole frames between two turns
    if pose == "still":
        still = min((calmest(speed, each, 1) for each in runs), key=lambda r: speed[r.start])
        return Walk([still.start], [still.start], 0, seed)
    if pose == "loop":
        run = calmest(speed, run, min(len(run), int(LOOP_S * frame_rate)))
    if len(run) < SHORTEST_RUN_S * frame_rate:
        return Walk([run.start], [run.stop - 1], 0, seed)
    window = max(1, min(int(len(run) * TURN_WINDOW), int(TURN_WINDOW_S * frame_rate)))
    apart = max(1, int(TURNS_APART_S * frame_rate))
    low = still_places(speed, range(run.start, run.start + window), apart)
    high = still_places(speed, range(run.stop - window, run.stop), apart)
    if pose == "loop":
        low, high = low[:1], high[:1]
    return Walk(low, high, ease, seed)


def still_places(speed: NDArray[np.float64], window: range, apart: int) -> list[int]:
    """The frames of a window in which the head is most still, best first."""
    found: list[int] = []
    for t in sorted(window, key=lambda t: (speed[t], t)):
        if found and speed[t] > CALM * speed[found[0]]:
            break
        if all(abs(t - other) >= apart for other in found):
            found.append(t)
        if len(found) == TURNS:
            break
    return found


def calmest(speed: NDArray[np.float64], run: range, length: int) -> range:
    """The part of a run of that length in which the head moves least."""
    total = np.concatenate([[0.0], np.cumsum(speed[run.start : run.stop])])
    sums = total[length:] - total[: len(total) - length]
    start = run.start + int(sums.argmin())
    return range(start, start + length)
