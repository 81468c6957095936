"""Says whether a video will make a good speaker, and what to do if not; it measures nothing.

Refusals are raised as early as they are certain, before the long work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from talkgs_cli.errors import BadInput

LEAST_USABLE_S = 2.0
SHORT_S = 20.0
SMALL_FACE_PX = 120
TINY_FACE_PX = 64
FULL_VALID_SHARE = 0.98
GOOD_VALID_SHARE = 0.9
OTHER_FACE_SHARE = 0.1
LATE_S = 0.2  # speech itself leads by a few hundredths
POOR_FIT_IOD = 0.03
SLOW_RATE = 20

Verdict = Literal["good", "usable"]


@dataclass(frozen=True)
class Evidence:
    """What `prepare` measured.

    Attributes:
        frames: Frames of the video.
        valid_frames: Frames with a face.
        frame_rate: Frames per second.
        face_height_px: Median, hairline to chin.
        other_faces_share: Share of frames that show another face of like size.
        jumps: How often the face jumps from one frame to the next, as at a cut.
        has_audio: Whether there is sound that isn't silence.
        av_offset_s: Lag of the sound, or None.
        landmark_error_iod: Mean distance of the fitted head's landmarks, or None before the fit.
    """

    frames: int
    valid_frames: int
    frame_rate: float
    face_height_px: float
    other_faces_share: float
    jumps: int
    has_audio: bool
    av_offset_s: float | None
    landmark_error_iod: float | None = None

    @property
    def valid_share(self) -> float:
        """Share of the frames with a face."""
        return self.valid_frames / self.frames


@dataclass(frozen=True)
class Judgement:
    """The verdict and one sentence per thing that could be better."""

    verdict: Verdict
    advice: list[str]


def refuse_too_short(path: Path, duration_s: float) -> None:
    """Raise `BadInput` for a clip that can't hold enough of a face."""
    if duration_s < LEAST_USABLE_S:
        raise BadInput(
            f"{path} is {duration_s:.1f} s long; at least {LEAST_USABLE_S:.0f} s are needed.",
            hint="Use a clip of 20 seconds or more, best a minute.",
        )


def refuse_without_face(path: Path, faces: int, looked_at: int) -> None:
    """Raise `BadInput` if no frame looked at shows a face."""
    if faces == 0:
        raise BadInput(
            f"No face in any of {looked_at} frames of {path}.",
            hint="Use a clip with one face that is clearly visible and not too small.",
        )


def refuse_too_little_face(path: Path, valid_frames: int, frames: int, frame_rate: float) -> None:
    """Raise `BadInput` if the face is there for too short a time in all."""
    seconds = valid_frames / frame_rate
    if seconds < LEAST_USABLE_S:
        raise BadInput(
            f"A face is visible in {valid_frames} of {frames} frames of {path}: {seconds:.1f} s; "
            f"at least {LEAST_USABLE_S:.0f} s are needed.",
            hint="Use a clip of 20 seconds or more in which the face stays visible.",
        )


def judge(evidence: Evidence) -> Judgement:
    """Weigh what was measured."""
    serious, minor = _serious(evidence), _minor(evidence)
    return Judgement("usable" if serious else "good", serious + minor)


def _serious(evidence: Evidence) -> list[str]:
    """What will show in the result."""
    found = []
    seconds = evidence.valid_frames / evidence.frame_rate
    if not evidence.has_audio:
        found.append(
            "The video has no sound: the face can be fitted, but not learn to speak. "
            "Use a video with the person's voice."
        )
    if evidence.face_height_px < SMALL_FACE_PX:
        size = "tiny" if evidence.face_height_px < TINY_FACE_PX else "small"
        found.append(
            f"The face is {size} ({evidence.face_height_px:.0f} px high): the result will be soft. "
            f"Film closer, so that it is {SMALL_FACE_PX} px or more."
        )
    if evidence.valid_share < GOOD_VALID_SHARE:
        found.append(
            f"The face is hidden or out of the picture in {1 - evidence.valid_share:.0%} of the "
            "frames. Use a part in which it stays visible."
        )
    if seconds < SHORT_S / 2:
        found.append(
            f"Only {seconds:.0f} s of face: the mouth learns little from it. "
            f"Use {SHORT_S:.0f} s or more, best a minute."
        )
    if evidence.other_faces_share > OTHER_FACE_SHARE:
        found.append(
            f"Another face is in the picture in {evidence.other_faces_share:.0%} of the frames; "
            "the larger one was followed. Use a clip with one person, or cut it out."
        )
    if evidence.jumps:
        found.append(
            f"The face jumps {evidence.jumps} time(s), as at a cut: the camera should stand still. "
            "Use one uncut take."
        )
    if evidence.landmark_error_iod is not None and evidence.landmark_error_iod > POOR_FIT_IOD:
        found.append(
            f"The head fits the face only to {evidence.landmark_error_iod:.1%} of the eyes' "
            "distance. Use a clip with less turning of the head and even light."
        )
    return found


def _minor(evidence: Evidence) -> list[str]:
    """What could be better."""
    found = []
    seconds = evidence.valid_frames / evidence.frame_rate
    if SHORT_S / 2 <= seconds < SHORT_S:
        found.append(f"{seconds:.0f} s of face is little; a minute gives a better mouth.")
    if GOOD_VALID_SHARE <= evidence.valid_share < FULL_VALID_SHARE:
        found.append(f"No face in {1 - evidence.valid_share:.1%} of the frames: they are left out.")
    if evidence.frame_rate < SLOW_RATE:
        found.append(
            f"{evidence.frame_rate:.3g} frames a second miss fast mouth movements; 25 are better."
        )
    if evidence.av_offset_s is not None and abs(evidence.av_offset_s) > LATE_S:
        where = "after" if evidence.av_offset_s > 0 else "before"
        found.append(
            f"The sound seems to come {abs(evidence.av_offset_s):.2f} s {where} the mouth. "
            "Check that the video is in sync."
        )
    return found
