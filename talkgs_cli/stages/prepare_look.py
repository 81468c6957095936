"""A first look at a video: is there a face at all, and which way up is the picture?

Twelve frames, so that a video is refused, or turned, before the long work. It follows no face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.assets import fetch_file
from talkgs_cli.errors import BadInput
from talkgs_cli.media.video import read_frames
from talkgs_cli.stages.prepare_verdict import refuse_without_face
from talkgs_cli.tracking.landmarks import FaceLandmarker
from talkgs_cli.types import VideoInfo

LOOKS = 12
SURE = 0.85  # a detector's score that only faces that stand upright reach
SURE_LOOKS = 3  # so many looks settle it
CLEARLY = 0.1  # a turned picture must show faces by so much better, on average
ORDER = (6, 2, 10, 0, 4, 8, 1, 3, 5, 7, 9, 11)  # the middle first: titles are at the ends


def quarter_turns(video: Path, info: VideoInfo) -> int:
    """How often the picture must be turned by 90 degrees, anticlockwise, to stand upright.

    Phones and cutting programs lose rotation flags; a face on its side, or upside down, would be
    tracked as something else.

    Raises:
        BadInput: no face in any frame looked at, whichever way they are turned.
    """
    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    scores: list[NDArray[np.float64]] = []  # of each frame looked at: [4], one for each turn
    damage: BadInput | None = None
    for look in ORDER:
        try:
            frames = list(
                read_frames(video, start_s=info.duration_s * (look + 0.5) / LOOKS, frames=1)
            )
        except BadInput as error:  # one place is damaged: others may do
            damage = error
            continue
        doubted = any(score.argmax() for score in scores)
        scores += [_scores(landmarker, frame, all_turns=doubted) for frame in frames]
        sure = np.sum([score >= SURE for score in scores], axis=0)
        if np.max(sure, initial=0) >= SURE_LOOKS:
            break
    if not scores and damage is not None:
        raise damage
    if not scores or np.max(scores) == 0:
        refuse_without_face(video, 0, len(scores))
    mean = np.mean(scores, axis=0)
    best = int(mean.argmax())
    return best if mean[best] > mean[0] + CLEARLY else 0


def _scores(
    landmarker: FaceLandmarker, frame: NDArray[np.uint8], *, all_turns: bool
) -> NDArray[np.float64]:
    """[4] how well a face stands upright after each turn; 0 where one that does needs no other."""
    scores = np.zeros(4)
    scores[0] = landmarker.upright_score(frame)
    if all_turns or scores[0] < SURE:
        for turns in (1, 2, 3):
            scores[turns] = landmarker.upright_score(np.ascontiguousarray(np.rot90(frame, turns)))
    return scores
