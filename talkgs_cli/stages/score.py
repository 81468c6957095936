"""`score`: how good a speaker is on frames it never saw, beside rows that put the figures in place.

The definitions are in docs/scoring.md; `score_videos` compares any two videos the same way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from fractions import Fraction
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
from talkgs_cli.stages.score_lips import DETECTOR, Faces, behaviour, lips_of, no_behaviour
from talkgs_cli.stages.score_meter import Meter, single_threaded
from talkgs_cli.stages.score_pair import score_videos
from talkgs_cli.stages.score_regions import Regions, choose_runs
from talkgs_cli.stages.score_rows import ROWS, SpeakerRows
from talkgs_cli.types import Tracking

__all__ = ["PROTOCOL", "score", "score_videos"]

PROTOCOL = "talkgs-held-out-1"
RESULT_NAME = "held-out"
SAMPLE_RATE_HZ = 16_000


def score(speaker: SpeakerFolder, config: ScoreConfig, progress: Progress) -> dict[str, Any]:
    """Score a fitted speaker on its held-out frames; writes scores/held-out.json.

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
    if (done := _already_done(result_file, request)) is not None:
        return done
    started = time.monotonic()
    avatar = Avatar.load(speaker)
    tracking = avatar.tracking
    runs = held_out_runs(speaker, tracking, config)
    frames = [index for run in runs for index in run]
    regions = Regions.of(tracking.landmarks[tracking.valid].numpy(), speaker.size)
    meter = Meter(config, regions, speaker.size)
    faces = Faces(fetch_file("face_landmarker"))
    with progress.stage("Listening", None):
        rows = SpeakerRows(speaker, avatar, regions, frames)
    with single_threaded(), progress.stage("Scoring", len(frames)) as advance:
        for run in runs:
            faces.start_run()
            for index, original in zip(run, _originals(speaker, run), strict=True):
                meter.target(original, tracking.landmarks[index].numpy())
                measure(meter, faces, rows, index, original)
                advance(1)
    result = {
        "protocol": PROTOCOL,
        "speaker": str(speaker.path),
        "frames": len(frames),
        "ground_truth_share": meter.shares(ROWS),
        "rows": meter.results(ROWS),
        **_behaviours(speaker, tracking, faces, runs),
        "settings": settings(config, regions, runs),
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    write_json(result_file, {"request": request, "result": result})
    return result


def measure(
    meter: Meter, faces: Faces, rows: SpeakerRows, index: int, original: NDArray[np.uint8]
) -> None:
    """Measure every row of one held-out frame."""
    real = lips_of(faces.see("real", original))
    meter.add_real()
    meter.add_lips("real", faces.see_mirrored(original), real)
    for made in rows.of(index, original):
        meter.add(made.row, made.frame, made.true_share)
        meter.add_lips(made.row, lips_of(faces.see(made.row, made.frame)), real)


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


def settings(config: ScoreConfig, regions: Regions | None, runs: list[range]) -> dict[str, Any]:
    """What a reader needs to know to compare these numbers with others."""
    return {
        "frames": [[run.start, run.stop] for run in runs],
        "face_side_px": regions.face_side if regions else None,
        "mouth_size_px": list(regions.mouth_size) if regions else None,
        "psnr": "mean of per-frame PSNR, at most 100 dB; real against itself has none",
        "ssim": "11x11 Gaussian window, sigma 1.5, mean of RGB, mirrored borders",
        "lpips": "v0.1, mouth at 104x128, larger images shrunk to a shorter side of "
        f"{config.lpips_short_side}; VGG on every {config.vgg_every}. frame",
        "lmd": f"20 lip points, centred; {DETECTOR}; px as if the shorter side had 512",
        "interval": "95 %, moving blocks of 10 frames",
    }


def _originals(speaker: SpeakerFolder, run: range) -> Iterator[NDArray[np.uint8]]:
    start_s = float(Fraction(run.start) / speaker.frame_rate)
    return read_frames(speaker.video, start_s=start_s, frames=len(run))


def _behaviours(
    speaker: SpeakerFolder, tracking: Tracking, faces: Faces, runs: list[range]
) -> dict[str, Any]:
    """The lips of the audio row (the contract's key), and of the other rendered rows beside it."""
    train, _ = speaker.splits()
    seen = tracking.landmarks[train.start : train.stop]
    own = opening(seen[tracking.valid[train.start : train.stop]].numpy())
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


def _already_done(file: Any, request: dict[str, Any]) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    record = json.loads(file.read_text(encoding="utf-8"))
    return {**record["result"], "already_done": True} if record["request"] == request else None
