"""Asks FAN, where the user has its weights, whether lips and chin are where the fitted head says.

It looks at a few frames and changes nothing: two trackers that disagree are worth a look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput, MachineLacks
from talkgs_cli.landmark_points import inter_ocular_px
from talkgs_cli.metrics.landmarks import LIPS_68
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.fan import LIPS, find_weights, load_fan
from talkgs_cli.tracking.head_fitting import projected_landmarks
from talkgs_cli.types import HeadModel, Tracking

LOOKS = 24
CHIN, FAN_CHIN = 152, 8
UPPER, LOWER = 14, 18  # the middle of the inner lips, among the 20 lip points

Detect = Callable[[NDArray[np.uint8], NDArray[np.floating]], NDArray[np.floating]]


def second_opinion(
    speaker: SpeakerFolder, head: HeadModel, tracking: Tracking, progress: Progress
) -> dict[str, Any] | None:
    """What FAN says of a few frames; None where it can't be asked, which is said if it is amiss.

    Args:
        speaker: Its crop frames are looked at.
        head: The head model of the tracking.
        tracking: T frames.
        progress: Told about one stage.
    """
    path = find_weights()
    if path is None:
        return None
    try:
        fan = load_fan(path)
    except (BadInput, MachineLacks) as error:
        progress.note(f"FAN is not asked: {error.message} {error.hint or ''}".rstrip())
        return None
    with progress.stage("Asking a second tracker", LOOKS) as advance:
        return compare(speaker, head, tracking, fan.detect, advance)


def compare(
    speaker: SpeakerFolder,
    head: HeadModel,
    tracking: Tracking,
    detect: Detect,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """How far another tracker's lips and chin are from the fitted head's.

    Args:
        speaker: Its crop frames are looked at.
        head: The head model of the tracking.
        tracking: T frames.
        detect: A crop frame and its [478, 2] points to the [68, 2] points, crop pixels.
        advance: Told about every frame.

    Returns:
        frames; lips_iod and chin_iod, mean distances as shares of the distance of the outer eye
        corners; opening_r, correlation of the inner lips' distance, None where it never changes.
    """
    row = {int(index): k for k, index in enumerate(head.landmark_index)}
    valid = torch.nonzero(tracking.valid).flatten()
    chosen = valid[torch.linspace(0, len(valid) - 1, min(LOOKS, len(valid))).long()]
    part = Tracking(
        **{
            **vars(tracking),
            "landmarks": tracking.landmarks[chosen.numpy()],
            "motion": tracking.motion.at(chosen),
        }
    )
    fitted = speaker.crop.to_crop(projected_landmarks(head, part).numpy())  # [n, L, 2]
    ours = fitted[:, [*(row[k] for k in LIPS_68), row[CHIN]]]  # [n, 21, 2]
    faces = speaker.crop.to_crop(part.landmarks[..., :2])
    theirs = []
    for index, face in zip(chosen.tolist(), faces, strict=True):
        points = detect(speaker.frame(index), face)
        theirs.append([*points[LIPS], points[FAN_CHIN]])
        advance(1)
    other = np.asarray(theirs)
    apart = np.linalg.norm(ours - other, axis=-1) / inter_ocular_px(faces)[:, None]  # [n, 21]
    openings = [
        np.linalg.norm(points[:, UPPER] - points[:, LOWER], axis=-1) for points in (ours, other)
    ]
    moves = min(np.ptp(opening) for opening in openings) > 0
    return {
        "frames": len(chosen),
        "lips_iod": round(float(apart[:, :-1].mean()), 5),
        "chin_iod": round(float(apart[:, -1].mean()), 5),
        "opening_r": round(float(np.corrcoef(*openings)[0, 1]), 4) if moves else None,
    }
