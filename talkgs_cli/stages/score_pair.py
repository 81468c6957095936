"""Scores one video against another, whoever made them, or says why they can't be compared.

The generated video is brought to the reference's size and frame rate, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.assets import fetch_file
from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import read_audio
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import frame_count, read_frames
from talkgs_cli.metrics.lips import opening, silent_frames
from talkgs_cli.runtime import Progress, peak_rss_mb
from talkgs_cli.stages.score_lips import Faces, behaviour, lips_of, no_behaviour
from talkgs_cli.stages.score_meter import Meter, single_threaded
from talkgs_cli.stages.score_regions import Regions, choose_runs
from talkgs_cli.types import VideoInfo

PROTOCOL = "talkgs-pair-1"
ROWS = ("generated", "real")
MAX_ASPECT_RATIO = 1.02  # between the two pictures' proportions
SAMPLE_RATE_HZ = 16_000

Frame = NDArray[np.uint8]


def score_videos(
    generated: Path, reference: Path, config: ScoreConfig, progress: Progress
) -> dict[str, Any]:
    """Compare a generated video with the real one, frame by frame from the start of both.

    Returns:
        The JSON contract of docs/design.md, with the row `generated`; None for what could not be
        measured (lips and regions where no face is found).

    Raises:
        BadInput: one of them is no video, or they have nothing in common.
    """
    started = time.monotonic()
    made, real = probe(generated), probe(reference)
    rate = real.frame_rate
    count, notes = common_frames(generated, made, reference, real)
    runs = choose_runs(range(count), config.max_frames, config.run_frames)
    faces = Faces(fetch_file("face_landmarker"))
    with progress.stage("Finding the face", None):
        for _, frame in picked(read_frames(reference, frame_rate=rate), runs, faces):
            faces.see("real", frame)
    landmarks = faces.seen["real"]
    found = [face for face in landmarks if face is not None]
    if not found:
        notes.append(f"No face in {reference}: only the full frame is measured.")
    regions = Regions.of(np.stack(found), real.size) if found else None
    meter = Meter(config, regions, real.size)
    pairs = zip(
        read_frames(generated, size=real.size, frame_rate=rate),
        read_frames(reference, frame_rate=rate),
        strict=False,
    )
    with single_threaded(), progress.stage("Scoring", len(landmarks)) as advance:
        for (_, (frame, target)), face in zip(picked(pairs, runs, faces), landmarks, strict=False):
            measure(meter, faces, frame, target, face)
            advance(1)
    for note in notes:
        progress.note(note)
    return {
        "protocol": PROTOCOL,
        "speaker": None,
        "generated": str(generated),
        "reference": str(reference),
        "frames": len(faces.seen["generated"]),
        "frame_rate": str(rate),
        "ground_truth_share": meter.shares(ROWS),
        "rows": meter.results(ROWS),
        "behaviour": _behaviour(reference, real, faces, runs, rate, count),
        "notes": notes,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def common_frames(
    generated: Path, made: VideoInfo, reference: Path, real: VideoInfo
) -> tuple[int, list[str]]:
    """How many frames both videos have at the reference's rate, and what had to be adapted.

    Raises:
        BadInput: the pictures have different proportions, or there is no common frame.
    """
    proportions = [info.size[1] / info.size[0] for info in (made, real)]
    if max(proportions) / min(proportions) > MAX_ASPECT_RATIO:
        raise BadInput(
            f"{generated} is {_size(made)} and {reference} is {_size(real)}: "
            "pictures of different proportions can't be compared.",
            hint="Crop one of them to what the other shows.",
        )
    counts = [frame_count(Fraction(info.duration_s), real.frame_rate) for info in (made, real)]
    if min(counts) < 1:
        raise BadInput(
            f"{generated} and {reference} have no frame in common "
            f"({made.duration_s:.2f} s and {real.duration_s:.2f} s).",
            hint="Give two videos of at least one frame.",
        )
    notes = []
    if made.size != real.size:
        notes.append(f"{generated} was resized from {_size(made)} to {_size(real)}.")
    if made.frame_rate != real.frame_rate:
        notes.append(f"{generated} was resampled from {made.frame_rate} to {real.frame_rate} fps.")
    if abs(counts[0] - counts[1]) > 1:
        notes.append(
            f"Only the common beginning is compared: {min(counts)} of {counts[0]} and "
            f"{counts[1]} frames."
        )
    return min(counts), notes


def picked(frames: Iterator[Any], runs: list[range], faces: Faces) -> Iterator[tuple[int, Any]]:
    """The frames whose numbers are in `runs`; tells `faces` where a run starts."""
    starts = {run.start for run in runs}
    chosen = {index for run in runs for index in run}
    for index, frame in enumerate(frames):
        if index >= runs[-1].stop:
            return
        if index in starts:
            faces.start_run()
        if index in chosen:
            yield index, frame


def measure(
    meter: Meter, faces: Faces, frame: Frame, target: Frame, face: NDArray[np.float32] | None
) -> None:
    """Measure one pair of frames; pixels that are exactly the real ones count as true."""
    meter.target(target, face)
    meter.add_real()
    meter.add_lips("real", faces.see_mirrored(target), lips_of(face))
    meter.add("generated", frame, np.all(frame == target, axis=-1).astype(np.float32))
    meter.add_lips("generated", lips_of(faces.see("generated", frame)), lips_of(face))


def _behaviour(
    reference: Path, real: VideoInfo, faces: Faces, runs: list[range], rate: Fraction, count: int
) -> dict[str, float | None]:
    landmarks = faces.seen["real"][: len(faces.seen["generated"])]
    found = [face for face in landmarks if face is not None]
    if not found:
        return no_behaviour()
    silent = None
    if real.has_audio:
        samples = read_audio(reference, SAMPLE_RATE_HZ)
        everywhere = silent_frames(samples, SAMPLE_RATE_HZ, count, rate)
        silent = everywhere[[index for run in runs for index in run]]
    own = opening(np.stack(found))
    return behaviour(faces.seen["generated"], landmarks, runs, own, silent)


def _size(info: VideoInfo) -> str:
    return f"{info.size[1]}x{info.size[0]}"
