"""`score`: how good a speaker is on frames it never saw, beside rows that put the figures in place.

The definitions are in docs/scoring.md; `score_videos` compares any two videos the same way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli import __version__
from talkgs_cli.assets import fetch_file
from talkgs_cli.avatar import Avatar
from talkgs_cli.config import ScoreConfig, to_json
from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import read_audio
from talkgs_cli.media.video import read_frames
from talkgs_cli.metrics.lips import opening, silent_frames
from talkgs_cli.runtime import Progress, peak_rss_mb, write_json
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.score_evidence import Evidence, Witness, openings_over_time
from talkgs_cli.stages.score_lips import Faces, behaviour, no_behaviour
from talkgs_cli.stages.score_meter import Meter, single_threaded
from talkgs_cli.stages.score_pair import PROTOCOL, score_videos, settings
from talkgs_cli.stages.score_regions import Regions, choose_runs
from talkgs_cli.stages.score_report import System, write_score_report
from talkgs_cli.stages.score_rows import ROWS, SpeakerRows
from talkgs_cli.stages.speak_record import read_record
from talkgs_cli.types import Tracking

__all__ = ["PROTOCOL", "evidence_of", "score", "score_videos"]

RESULT_NAME = "held-out"
REPORT_NAME = "report.html"
SAMPLE_RATE_HZ = 16_000


def score(speaker: SpeakerFolder, config: ScoreConfig, progress: Progress) -> dict[str, Any]:
    """Score a fitted speaker on its held-out frames; writes scores/held-out.json and report.html.

    Returns:
        The JSON contract of docs/design.md; what was not measured is None.

    Raises:
        BadInput: not fitted, or no held-out frame shows a face.
    """
    speaker.require_fit()
    result_file = speaker.scores / f"{RESULT_NAME}.json"
    request = {
        "protocol": PROTOCOL,
        "talkgs": __version__,
        "config": to_json(config),
        "fit": (speaker.stage("fit") or {}).get("finished"),
    }
    if (done := _already_done(speaker, result_file, request)) is not None:
        return {**done, "speed": speed(speaker)}
    started = time.monotonic()
    avatar = Avatar.load(speaker)
    tracking = avatar.tracking
    runs = held_out_runs(speaker, tracking, config)
    frames = [index for run in runs for index in run]
    regions = Regions.of(tracking.landmarks, speaker.size, tracking.valid.numpy())
    meter = Meter(config, regions, speaker.size)
    faces = Faces.of(config, fetch_file("face_landmarker"))
    with progress.stage("Listening", None):
        rows = SpeakerRows(speaker, avatar, regions, frames)
    lead = "audio" if "audio" in rows.rendered else "tracked"
    witness = Witness(lead, speaker.frame_rate, regions)
    with single_threaded(), progress.stage("Scoring", len(frames)) as advance:
        for run in runs:
            faces.start_run()
            for index, original in zip(run, _originals(speaker, run), strict=True):
                landmarks = tracking.landmarks[index]
                meter.target(index, original, landmarks)
                witness.target(index, original, landmarks)
                measure(meter, faces, witness, rows, index, original)
                advance(1)
    result = {
        "protocol": PROTOCOL,
        "speaker": str(speaker.path),
        "frames": len(frames),
        "ground_truth_share": meter.shares(ROWS),
        "rows": meter.results(ROWS),
        **_behaviours(speaker, tracking, faces, runs),
        "settings": settings(config, regions, runs, faces),
        "report": str(speaker.scores / REPORT_NAME),
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    evidence = witness.evidence()
    evidence.series = meter.series(ROWS)
    evidence.openings = {
        row: openings_over_time(faces.openings(row), frames)
        for row in faces.seen
        if row != "mirrored"
    }
    evidence.save(_evidence_file(speaker))
    answer = {**result, "speed": speed(speaker)}
    write_score_report(speaker.scores / REPORT_NAME, [System(speaker.path.name, answer, evidence)])
    write_json(result_file, {"request": request, "result": result})
    return answer


def evidence_of(speaker: SpeakerFolder) -> Evidence:
    """What stands behind the speaker's last score."""
    return Evidence.load(_evidence_file(speaker))


def _evidence_file(speaker: SpeakerFolder) -> Path:
    return speaker.scores / f"{RESULT_NAME}-evidence.json"


def speed(speaker: SpeakerFolder) -> dict[str, Any] | None:
    """How fast `speak` was the last time, sound in to encoded frame out; None: it never ran."""
    files = sorted(speaker.renders.glob("*/render.json"), key=lambda file: file.stat().st_mtime)
    records = (read_record(file) for file in reversed(files))
    result = next((record["result"] for record in records if record and record["result"]), None)
    if result is None:
        return None
    keys = ("fps_end_to_end", "frames", "duration_s", "parts_s")
    size = f"{speaker.size[1]}x{speaker.size[0]}"
    return {**{key: result.get(key) for key in keys}, "size": size, "render": result.get("video")}


def measure(
    meter: Meter,
    faces: Faces,
    witness: Witness,
    rows: SpeakerRows,
    index: int,
    original: NDArray[np.uint8],
) -> None:
    """Measure every row of one held-out frame."""
    real = faces.lips("real", original)
    meter.add_real()
    meter.add_lips("real", faces.mirrored_lips(original), real)
    for made in rows.of(index, original):
        meter.add(made.row, made.frame, made.true_share)
        meter.add_lips(made.row, faces.lips(made.row, made.frame), real)
        witness.add(made.row, made.frame)
    witness.finish_frame()


def held_out_runs(speaker: SpeakerFolder, tracking: Tracking, config: ScoreConfig) -> list[range]:
    """The held-out frames to measure.

    Raises:
        BadInput: none of them shows a face.
    """
    _, test = speaker.splits()
    usable = [index for index in test if tracking.valid[index]]
    if not usable:
        raise BadInput(
            f"None of the {len(test)} held-out frames of {speaker.path} shows a face.",
            hint="Prepare a clip that shows the face to its end.",
        )
    return choose_runs(usable, config.max_frames, config.run_frames)


def _originals(speaker: SpeakerFolder, run: range) -> Iterator[NDArray[np.uint8]]:
    start_s = float(Fraction(run.start) / speaker.frame_rate)
    return read_frames(speaker.video, start_s=start_s, frames=len(run))


def _behaviours(
    speaker: SpeakerFolder, tracking: Tracking, faces: Faces, runs: list[range]
) -> dict[str, Any]:
    """The lips of the audio row (the contract's key), and of the other rendered rows beside it."""
    train, _ = speaker.splits()
    part = slice(train.start, train.stop)
    own = opening(tracking.landmarks)[part][tracking.valid[part].numpy()]
    silent = None
    if speaker.has_audio:
        samples = read_audio(speaker.audio, SAMPLE_RATE_HZ)
        everywhere = silent_frames(samples, SAMPLE_RATE_HZ, speaker.frame_count, speaker.frame_rate)
        silent = everywhere[[index for run in runs for index in run]]
    rows = {
        row: behaviour(faces.seen[row], faces.seen["real"], runs, own, silent)
        for row in ROWS
        if row in faces.seen
    }
    return {"behaviour": rows.get("audio", no_behaviour()), "behaviour_rows": rows}


def _already_done(
    speaker: SpeakerFolder, file: Path, request: dict[str, Any]
) -> dict[str, Any] | None:
    if not (file.is_file() and _evidence_file(speaker).is_file()):
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["request"] != request:
        return None
    # Where it is now: the folder may have been moved since.
    here = {"speaker": str(speaker.path), "report": str(speaker.scores / REPORT_NAME)}
    return {**record["result"], **here, "already_done": True}
