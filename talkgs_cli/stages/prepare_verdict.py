"""Says whether a video will make a good speaker, and what to do if not; it measures nothing.

Refusals are raised as early as they are certain, before the long work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from talkgs_cli.errors import BadInput
from talkgs_cli.stages.spans import Span, at_times, described, total_s

LEAST_USABLE_S = 2.0
SHORT_S = 20.0
SMALL_FACE_PX = 120
TINY_FACE_PX = 64
FULL_VALID_SHARE = 0.98
GOOD_VALID_SHARE = 0.9
OTHER_FACE_SHARE = 0.1
LATE_S = 0.2  # speech itself leads by a few hundredths
POOR_FIT_IOD = 0.03
OTHER_LIPS_IOD = 0.08  # two trackers mean slightly different points; this is a lip's height
SLOW_RATE = 20
LEAST_GAP_S = 0.2  # a frame or two without a face is no news
LEAST_CLOSED_S, LEAST_OPEN_S = 3.0, 4.0
TURNED_SHARE = 0.1  # of the video, from which turns of the head show in the result

Verdict = Literal["good", "usable"]


@dataclass(frozen=True)
class Evidence:
    """What `prepare` measured.

    Attributes:
        frames: Frames of the video.
        valid_frames: Frames that are used: with a face and nothing before its mouth.
        frame_rate: Frames per second.
        face_height_px: Median, hairline to chin.
        other_faces_share: Share of frames that show another face of like size.
        covered_frames: Frames with a face that something covers.
        has_audio: Whether there is sound that isn't silence.
        av_offset_s: Lag of the sound, or None.
        fix_offset: Whether the sound was to be moved by that.
        picture_turned_deg: By how much the picture was turned to stand upright, anticlockwise.
        other_lips_iod: How far a second tracker's lips are from the fitted head's, or None.
        landmark_error_iod: Mean distance of the fitted head's landmarks, or None before the fit.
        cuts_s: When the picture is cut, or the face jumps as at a cut.
        gaps: Where no face is seen.
        other_faces: Where another face of like size is seen.
        covered: Where something covers the mouth.
        turned: Where the head is turned far (`prepare_timeline.TURNED_DEG`).
        blurred: Where the face is much less sharp than elsewhere.
        closed_s: How long the lips are together, or None if not measured.
        open_s: How long they are apart, or None.
    """

    frames: int
    valid_frames: int
    frame_rate: float
    face_height_px: float
    other_faces_share: float
    has_audio: bool
    av_offset_s: float | None
    covered_frames: int = 0
    fix_offset: bool = False
    picture_turned_deg: int = 0
    other_lips_iod: float | None = None
    landmark_error_iod: float | None = None
    cuts_s: tuple[float, ...] = ()
    gaps: tuple[Span, ...] = ()
    other_faces: tuple[Span, ...] = ()
    covered: tuple[Span, ...] = ()
    turned: tuple[Span, ...] = ()
    blurred: tuple[Span, ...] = ()
    closed_s: float | None = None
    open_s: float | None = None

    @property
    def valid_share(self) -> float:
        """Share of the frames that are used."""
        return self.valid_frames / self.frames

    @property
    def seen_share(self) -> float:
        """Share of the frames with a face, covered or not."""
        return (self.valid_frames + self.covered_frames) / self.frames

    @property
    def turned_share(self) -> float:
        """Share of the time in which the head is turned far."""
        return total_s(self.turned) * self.frame_rate / self.frames


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


def refuse_too_little_face(
    path: Path, valid_frames: int, frames: int, frame_rate: float, covered_frames: int = 0
) -> None:
    """Raise `BadInput` if the face is there for too short a time in all."""
    seconds = valid_frames / frame_rate
    if seconds < LEAST_USABLE_S:
        left_out = (
            f" {covered_frames} more, in which something covers the mouth, don't count."
            if covered_frames
            else ""
        )
        raise BadInput(
            f"A face is visible in {valid_frames} of {frames} frames of {path}: {seconds:.1f} s; "
            f"at least {LEAST_USABLE_S:.0f} s are needed.{left_out}",
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
            "The video has no sound, or a silent one: the face can be fitted, but not learn to "
            "speak. "
            "Use a video with the person's voice."
        )
    if evidence.face_height_px < SMALL_FACE_PX:
        size = "tiny" if evidence.face_height_px < TINY_FACE_PX else "small"
        found.append(
            f"The face is {size} ({evidence.face_height_px:.0f} px high): the result will be soft. "
            f"Film closer, so that it is {SMALL_FACE_PX} px or more."
        )
    if evidence.seen_share < GOOD_VALID_SHARE:
        found.append(
            f"The face is hidden or out of the picture in {1 - evidence.seen_share:.0%} of the "
            f"frames{_where(evidence.gaps)}. Use a part in which it stays visible."
        )
    if _often_covered(evidence):
        found.append(
            f"Something covers the mouth in {evidence.seen_share - evidence.valid_share:.0%} of "
            f"the frames{_where(evidence.covered)}: they are left out. Use a part in which it "
            "stays visible."
        )
    if seconds < SHORT_S / 2:
        found.append(
            f"Only {seconds:.0f} s of face: the mouth learns little from it. "
            f"Use {SHORT_S:.0f} s or more, best a minute."
        )
    if evidence.other_faces_share > OTHER_FACE_SHARE:
        found.append(
            f"Another face is in the picture in {evidence.other_faces_share:.0%} of the frames"
            f"{_where(evidence.other_faces)}; the larger one was followed. "
            "Use a clip with one person, or cut it out."
        )
    if evidence.cuts_s:
        found.append(
            f"The picture jumps, as at a cut, {at_times(evidence.cuts_s)}: the camera should stand "
            "still. Use one uncut take."
        )
    if evidence.turned_share > TURNED_SHARE:
        found.append(
            f"The head turns past 40 degrees {described(evidence.turned)}: the far side of the "
            "face is guessed. Use a part that looks towards the camera."
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
    if evidence.picture_turned_deg:
        way = {90: "on its side", 180: "upside down", 270: "on its side"}
        found.append(
            f"The face was {way[evidence.picture_turned_deg]}, and no flag in the file says so: "
            "the picture was turned upright."
        )
    seconds = evidence.valid_frames / evidence.frame_rate
    if SHORT_S / 2 <= seconds < SHORT_S:
        found.append(f"{seconds:.0f} s of face is little; a minute gives a better mouth.")
    if evidence.seen_share >= GOOD_VALID_SHARE and _has_gaps(evidence):
        where = (
            described(evidence.gaps)
            if evidence.gaps
            else f"in {1 - evidence.seen_share:.1%} of the video"
        )
        found.append(f"No face is seen {where}: these frames are left out.")
    if evidence.covered and not _often_covered(evidence):
        found.append(
            f"Something covers the mouth {described(evidence.covered)}: these frames are left out."
        )
    if evidence.turned and evidence.turned_share <= TURNED_SHARE:
        found.append(
            f"The head turns past 40 degrees {described(evidence.turned)}: it may be soft there."
        )
    if evidence.blurred:
        found.append(f"The face is blurred {described(evidence.blurred)}: movement, or focus.")
    if evidence.other_lips_iod is not None and evidence.other_lips_iod > OTHER_LIPS_IOD:
        found.append(
            f"A second tracker (FAN) puts the lips {evidence.other_lips_iod:.0%} of the eyes' "
            "distance elsewhere: look at the lips in the report."
        )
    found += _about_the_mouth(evidence)
    if evidence.frame_rate < SLOW_RATE:
        found.append(
            f"{evidence.frame_rate:.3g} frames a second miss fast mouth movements; 25 are better."
        )
    found += _about_sync(evidence)
    return found


def _about_the_mouth(evidence: Evidence) -> list[str]:
    found = []
    if evidence.closed_s is not None and evidence.closed_s < LEAST_CLOSED_S:
        found.append(
            f"Only {evidence.closed_s:.1f} s of closed mouth: lips may not close fully. "
            "Use a video with pauses."
        )
    if evidence.open_s is not None and evidence.open_s < LEAST_OPEN_S:
        found.append(
            f"Only {evidence.open_s:.1f} s of open mouth: there is little to learn speaking from. "
            "Use a video in which the person talks."
        )
    return found


def _about_sync(evidence: Evidence) -> list[str]:
    offset_s = evidence.av_offset_s
    if evidence.fix_offset and evidence.has_audio:
        if offset_s is None:
            return ["No offset of sound and mouth stands out: --fix-offset left the sound alone."]
        if offset_s == 0:
            return ["Sound and mouth are together: --fix-offset left the sound alone."]
        way = "earlier" if offset_s > 0 else "later"
        return [f"The sound was moved {abs(offset_s) * 1000:.0f} ms {way}, to meet the mouth."]
    if offset_s is None or abs(offset_s) < LATE_S:
        return []
    late = "late" if offset_s > 0 else "early"
    return [f"The sound is {abs(offset_s) * 1000:.0f} ms {late}: --fix-offset shifts it."]


def _often_covered(evidence: Evidence) -> bool:
    """Whether covered frames, alone or with those that show no face, are too many."""
    share = evidence.seen_share - evidence.valid_share
    too_few = evidence.valid_share < GOOD_VALID_SHARE
    return too_few and (share > 1 - GOOD_VALID_SHARE or evidence.seen_share >= GOOD_VALID_SHARE)


def _has_gaps(evidence: Evidence) -> bool:
    return evidence.seen_share < FULL_VALID_SHARE or total_s(evidence.gaps) >= LEAST_GAP_S


def _where(spans: tuple[Span, ...]) -> str:
    return f", {described(spans)}" if spans else ""
