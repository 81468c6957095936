"""The figures of a prepared video, gathered here and judged in `prepare_verdict`."""

from __future__ import annotations

from typing import Any

from talkgs_cli.stages.prepare_sound import Sound
from talkgs_cli.stages.prepare_timeline import Timeline
from talkgs_cli.stages.prepare_tracking import Observations
from talkgs_cli.stages.prepare_verdict import Evidence, judge
from talkgs_cli.tracking.crop import face_height_px
from talkgs_cli.tracking.track_error import reprojection_error
from talkgs_cli.types import HeadModel, Tracking


def assess(
    head: HeadModel,
    tracking: Tracking,
    observations: Observations,
    sound: Sound | None,
    timeline: Timeline,
    *,
    fix_offset: bool,
    picture_turned_deg: int,
    fan: dict[str, Any] | None,
) -> dict[str, Any]:
    """The part of the JSON answer that says how good the video is.

    Args:
        head: The head model of the tracking.
        tracking: T frames.
        observations: What the landmarker saw.
        sound: What is heard.
        timeline: The curves.
        fix_offset: Whether the sound was to be moved.
        picture_turned_deg: By how much the picture was turned, anticlockwise.
        fan: What a second tracker says (`prepare_second_opinion`).
    """
    valid = observations.valid
    error = reprojection_error(head, tracking)
    landmark_error = {name: round(error[name] / 100, 5) for name in ("mean", "p95", "lips", "eyes")}
    used = tracking.valid.numpy()
    evidence = Evidence(
        frames=len(valid),
        valid_frames=int(used.sum()),
        covered_frames=int((valid & ~used).sum()),
        frame_rate=float(timeline.frame_rate),
        face_height_px=face_height_px(observations.landmarks, valid),
        other_faces_share=float((observations.faces_seen > 1).mean()),
        has_audio=sound is not None,
        av_offset_s=None if sound is None else sound.offset_s,
        fix_offset=fix_offset,
        picture_turned_deg=picture_turned_deg,
        other_lips_iod=None if fan is None else fan["lips_iod"],
        landmark_error_iod=landmark_error["mean"],
        cuts_s=timeline.cuts_s,
        gaps=timeline.gaps,
        other_faces=timeline.other_faces,
        covered=timeline.hidden_mouth,
        turned=timeline.turned,
        blurred=timeline.blurred,
        closed_s=timeline.closed_s,
        open_s=timeline.open_s,
    )
    judgement = judge(evidence)
    return {
        "valid_share": round(evidence.valid_share, 4),
        "face_height_px": round(evidence.face_height_px, 1),
        "other_faces_share": round(evidence.other_faces_share, 4),
        "picture_turned_deg": picture_turned_deg,
        "fan": fan,
        "jumps": len(evidence.cuts_s),
        "landmark_error_iod": landmark_error,
        "jitter_px": round(error["jitter_px"], 4),
        "raw_jitter_px": round(error["raw_jitter_px"], 4),
        "pose_jitter_deg": round(error["pose_jitter_deg"], 4),
        "raw_pose_jitter_deg": round(error["raw_pose_jitter_deg"], 4),
        "av_offset_s": evidence.av_offset_s,
        "sound_moved_earlier_s": None if sound is None else sound.earlier_s,
        "closed_mouth_s": round(timeline.closed_s, 2),
        "open_mouth_s": round(timeline.open_s, 2),
        "at": {
            "cuts_s": [round(cut_s, 3) for cut_s in evidence.cuts_s],
            "no_face": [span.to_json() for span in evidence.gaps],
            "other_faces": [span.to_json() for span in evidence.other_faces],
            "covered": [span.to_json() for span in evidence.covered],
            "turned": [span.to_json() for span in evidence.turned],
            "blurred": [span.to_json() for span in evidence.blurred],
        },
        "verdict": judgement.verdict,
        "advice": judgement.advice,
    }
