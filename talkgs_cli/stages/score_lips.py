"""Finds the face in real and generated frames for `score`, and says how the lips behaved.

One detector, the same for both sides; its own noise is measured on mirrored real frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import MachineLacks
from talkgs_cli.metrics import lips
from talkgs_cli.metrics.landmarks import STEADY, jitter, lip_points, unmirrored
from talkgs_cli.tracking.landmarks import FaceLandmarker

if TYPE_CHECKING:
    from talkgs_cli.tracking.fan import Fan

DETECTOR = "MediaPipe face landmarker (478 points)"
FAN_DETECTOR = "FAN 2-D (68 points)"
BEHAVIOUR = (
    "opening_r",
    "opening_spread",
    "closure_recall",
    "closure_precision",
    "silence_open_share",
    "over_open_share",
    "jitter_ratio",
)
MIN_FRAMES = 10  # fewer say nothing about behaviour

Frame = NDArray[np.uint8]
Landmarks = NDArray[np.float32]
Points = NDArray[np.floating]


@dataclass(frozen=True)
class Glance:
    """What the behaviour of lips needs of a face: a fiftieth of its points.

    Attributes:
        opening: Of the mouth, share of the eyes' distance.
        steady: [10, 2] points that move with the head and not with speech, pixels.
    """

    opening: float
    steady: Landmarks

    @classmethod
    def of(cls, face: Landmarks) -> Glance:
        """Of a face's [478, 3] landmarks, pixels."""
        return cls(float(lips.opening(face[None])[0]), face[STEADY, :2])


class Faces:
    """The faces seen in each row's frames, in order.

    Args:
        task_file: The landmarker's file.
        fan: Finds the 68 points that lips are compared by; None: the landmarker's own.

    Attributes:
        seen: By row, what is remembered of each frame; None without a face.
    """

    detector = DETECTOR

    def __init__(self, task_file: Path, fan: Fan | None = None) -> None:
        self._task_file = task_file
        self._fan = fan
        self._landmarkers: dict[str, FaceLandmarker] = {}
        self.seen: dict[str, list[Glance | None]] = {}

    @classmethod
    def of(cls, config: ScoreConfig, task_file: Path) -> Faces:
        """With the detector that the config names.

        Raises:
            MachineLacks: FAN is asked for and its weights are not there.
        """
        return cls(task_file, _load_fan() if config.lmd_detector == "fan" else None)

    @property
    def lmd_detector(self) -> str:
        """Name of what finds the lip points."""
        return DETECTOR if self._fan is None else FAN_DETECTOR

    def start_run(self) -> None:
        """The next frames do not follow the last ones."""
        for landmarker in self._landmarkers.values():
            landmarker.reset()

    def find(self, row: str, frame: Frame) -> Landmarks | None:
        """Find the face in the next frame of a row: [478, 3] pixels. It is not remembered."""
        if row not in self._landmarkers:
            self._landmarkers[row] = FaceLandmarker(self._task_file)
        found = self._landmarkers[row].track(frame)
        return None if found is None else found.landmarks

    def see(self, row: str, frame: Frame) -> Landmarks | None:
        """Find the face in the next frame of a row, as `find`; a glance is kept in `seen`."""
        face = self.find(row, frame)
        self.seen.setdefault(row, []).append(None if face is None else Glance.of(face))
        return face

    def openings(self, row: str) -> list[float | None]:
        """Mouth openings of a row, one a frame."""
        return [None if glance is None else glance.opening for glance in self.seen[row]]

    def lips(self, row: str, frame: Frame) -> Points | None:
        """See the next frame of a row: its [20, 2] lip points, or None without a face."""
        return self.lips_in(frame, self.see(row, frame))

    def lips_in(self, frame: Frame, face: Landmarks | None) -> Points | None:
        """[20, 2] lip points of a frame whose face was seen already."""
        if face is None or self._fan is None:
            return None if face is None else lip_points(face)
        from talkgs_cli.tracking.fan import LIPS

        return self._fan.detect(frame, face)[LIPS]

    def mirrored_lips(self, frame: Frame) -> Points | None:
        """[20, 2] lip points as found in the mirrored frame: a second, independent look."""
        found = self.lips("mirrored", np.ascontiguousarray(frame[:, ::-1]))
        return None if found is None else unmirrored(found, frame.shape[1])


def _load_fan() -> Fan:
    from talkgs_cli.tracking.fan import find_weights, load_fan, weights_folder

    weights = find_weights()
    if weights is None:
        raise MachineLacks(
            f"There are no FAN weights in {weights_folder()}.",
            hint="Put your own 2DFAN4-HASH.zip there, or leave --lmd-detector out.",
        )
    return load_fan(weights)


def no_behaviour() -> dict[str, float | None]:
    """The keys with nothing to say."""
    return dict.fromkeys(BEHAVIOUR)


def behaviour(
    generated: Sequence[Glance | None],
    real: Sequence[Glance | None],
    runs: Sequence[range],
    own_openings: NDArray[np.floating],
    silent: NDArray[np.bool_] | None,
) -> dict[str, float | None]:
    """How the generated lips behave beside the real ones.

    Args:
        generated: Faces of the generated frames, all runs in a row.
        real: Faces of the real frames.
        runs: Which of them are neighbours, as frame numbers.
        own_openings: [K] openings of the speaker that set what is closed and what is too wide.
        silent: [T] which frames are silent; None without sound.

    Returns:
        One number for each of `BEHAVIOUR`, None where it can't be said.
    """
    result = no_behaviour()
    both = [
        (k, one, other)
        for k, (one, other) in enumerate(zip(generated, real, strict=True))
        if one is not None and other is not None
    ]
    if len(both) < MIN_FRAMES or len(own_openings) < MIN_FRAMES:
        return result
    made = np.array([one.opening for _, one, _ in both])
    true = np.array([other.opening for _, _, other in both])
    threshold = lips.closed_threshold(own_openings)
    found = {
        "opening_r": lips.opening_r(made, true),
        "opening_spread": lips.opening_spread(made, true),
        "closure_recall": lips.closure_recall(made, true, threshold),
        "closure_precision": lips.closure_precision(made, true, threshold),
        "over_open_share": lips.over_open_share(made, lips.over_open_limit(own_openings)),
    }
    if silent is not None:
        found["silence_open_share"] = lips.silence_open_share(
            made, silent[[k for k, _, _ in both]], threshold
        )
    shake, true_shake = (_jitter_of(faces, runs) for faces in (generated, real))
    if shake is not None and true_shake:
        found["jitter_ratio"] = shake / true_shake
    return result | {k: None if v is None else round(v, 4) for k, v in found.items()}


def _jitter_of(faces: Sequence[Glance | None], runs: Sequence[range]) -> float | None:
    """Jitter of the steady points inside unbroken runs, px."""
    found, weights, first = [], [], 0
    for run in runs:
        part = faces[first : first + len(run)]
        first += len(run)
        points = [face.steady for face in part if face is not None]
        if len(part) >= 3 and len(points) == len(part):
            found.append(jitter(np.stack(points)))
            weights.append(len(part) - 2)
    return float(np.average(found, weights=weights)) if found else None  # type: ignore[arg-type]
