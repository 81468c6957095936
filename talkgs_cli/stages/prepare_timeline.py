"""What happens over the course of a prepared video: turns of the head, mouth, sharpness, cuts.

It measures; `prepare_verdict` judges and `prepare_report` draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkgs_cli.metrics.lips import opening
from talkgs_cli.stages.prepare_sync import EnergyCurve
from talkgs_cli.stages.prepare_tracking import Observations
from talkgs_cli.stages.spans import Span, spans_where
from talkgs_cli.tracking.head_fitting import projected_landmarks
from talkgs_cli.types import HeadModel, Tracking

TURNED_DEG = 40.0  # beyond it the far half of the face is guessed
CLOSED_OPENING = 0.025  # of the eyes' distance: two millimetres on a grown-up
BLURRED_SHARE = 0.5  # of the clip's median sharpness
LEAST_SPAN_S = 0.2  # shorter turns and blurs teach nobody anything
BRIDGE_S = 0.3
CHUNK = 512


@dataclass(frozen=True)
class Timeline:
    """Curves over the T frames of a video; nan where no face is seen, `opening` where no mouth is.

    Attributes:
        frame_rate: Frames per second.
        angles_deg: [T, 3] yaw (to the subject's left is positive), pitch (up), roll (the
            subject's left side up), against a face that looks along the camera's axis.
        opening: [T] distance of the inner lips over that of the outer eye corners.
        sharpness: [T] spread of the Laplacian over the face of the crop, 8-bit units.
        jitter_px: [T] mean second difference of the fitted head's landmarks.
        raw_jitter_px: [T] the same of the tracker's own.
        loudness_db: [T] full scale is 0; None without a sound.
        valid: [T] whether a face is seen.
        others: [T] whether there is another face of like size.
        covered: [T] whether something covers the mouth.
        cuts: Frames that begin a new take, ascending.
    """

    frame_rate: Fraction
    angles_deg: NDArray[np.float64]
    opening: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    jitter_px: NDArray[np.float64]
    raw_jitter_px: NDArray[np.float64]
    loudness_db: NDArray[np.float64] | None
    valid: NDArray[np.bool_]
    others: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    cuts: NDArray[np.intp]

    @property
    def duration_s(self) -> float:
        """Length of the video."""
        return len(self.valid) / float(self.frame_rate)

    @property
    def cuts_s(self) -> tuple[float, ...]:
        """When the picture jumps."""
        return tuple(float(cut / self.frame_rate) for cut in self.cuts.tolist())

    @property
    def gaps(self) -> tuple[Span, ...]:
        """Where no face is seen."""
        return spans_where(~self.valid, float(self.frame_rate))

    @property
    def other_faces(self) -> tuple[Span, ...]:
        """Where another face is seen."""
        return self._lasting(self.others)

    @property
    def hidden_mouth(self) -> tuple[Span, ...]:
        """Where something, such as a hand, covers the mouth."""
        return self._lasting(self.covered)

    @property
    def turned(self) -> tuple[Span, ...]:
        """Where the face looks more than `TURNED_DEG` away from the camera's axis."""
        yaw, pitch = np.radians(self.angles_deg[:, 0]), np.radians(self.angles_deg[:, 1])
        return self._lasting(np.cos(yaw) * np.cos(pitch) < np.cos(np.radians(TURNED_DEG)))

    @property
    def blurred(self) -> tuple[Span, ...]:
        """Where the face is much less sharp than in most of the video."""
        return self._lasting(self.sharpness < BLURRED_SHARE * np.nanmedian(self.sharpness))

    @property
    def closed_s(self) -> float:
        """How long the lips are together."""
        return float((self.opening < CLOSED_OPENING).sum() / self.frame_rate)

    @property
    def open_s(self) -> float:
        """How long they are apart."""
        return float((self.opening >= CLOSED_OPENING).sum() / self.frame_rate)

    def _lasting(self, flags: NDArray[np.bool_]) -> tuple[Span, ...]:
        return spans_where(flags, float(self.frame_rate), least_s=LEAST_SPAN_S, bridge_s=BRIDGE_S)


def measure_timeline(
    head: HeadModel,
    tracking: Tracking,
    observations: Observations,
    sharpness: NDArray[np.float32],
    energy: EnergyCurve | None,
    frame_rate: Fraction,
) -> Timeline:
    """Measure a tracked video.

    Args:
        head: The head model of the tracking.
        tracking: T frames.
        observations: What the landmarker saw.
        sharpness: [T] of `write_crops`.
        energy: Of the stored sound, or None.
        frame_rate: Frames per second.
    """
    valid = observations.valid
    covered = valid & ~tracking.valid.numpy()
    steady = valid.copy()
    steady[1:-1] &= valid[2:] & valid[:-2]
    jitter, raw_jitter = _jitter_px(head, tracking)
    return Timeline(
        frame_rate=frame_rate,
        angles_deg=_only(valid, head_angles_deg(tracking.motion.world_to_camera)),
        opening=_only(valid & ~covered, opening(tracking.landmarks)),
        sharpness=_only(valid, sharpness),
        jitter_px=_only(steady, jitter),
        raw_jitter_px=_only(steady, raw_jitter),
        loudness_db=None if energy is None else energy.loudness_db(len(valid), frame_rate),
        valid=valid,
        others=observations.faces_seen > 1,
        covered=covered,
        cuts=observations.cuts(),
    )


def head_angles_deg(world_to_camera: Tensor) -> NDArray[np.float64]:
    """Yaw, pitch and roll of a head against one that faces the camera: [T, 3] degrees.

    >>> import torch
    >>> head_angles_deg(torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))[None]).round(6) + 0.0
    array([[0., 0., 0.]])
    """
    facing = np.diag([1.0, -1.0, -1.0])  # x right, y up, z to the camera, seen from it
    turned = facing @ world_to_camera[:, :3, :3].double().numpy()
    angles = Rotation.from_matrix(turned).as_euler("YXZ", degrees=True)
    return np.asarray(angles * [1.0, -1.0, 1.0], np.float64)


def _jitter_px(
    head: HeadModel, tracking: Tracking
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean second difference of the landmarks, of the head and of the tracker: [T] pixels each."""
    count = len(tracking)
    both = np.full((2, count), np.nan)
    for start in range(1, count - 1, CHUNK):
        stop = min(start + CHUNK, count - 1)
        around = slice(start - 1, stop + 1)
        part = Tracking(
            **{
                **vars(tracking),
                "landmarks": tracking.landmarks[around],
                "motion": tracking.motion.at(around),
            }
        )
        theirs = torch.from_numpy(part.landmarks[:, head.landmark_index.numpy(), :2])
        for row, points in enumerate((projected_landmarks(head, part), theirs)):
            bend = points[2:] - 2 * points[1:-1] + points[:-2]  # [<= CHUNK, L, 2]
            both[row, start:stop] = bend.norm(dim=-1).mean(dim=1).numpy()
    return both[0], both[1]


def _only(flags: NDArray[np.bool_], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """`values` [T, ...], nan where not flagged."""
    kept = np.array(values, np.float64)
    kept[~flags] = np.nan
    return kept
