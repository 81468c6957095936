"""Scores one video against another, whoever made them, or says why they can't be compared.

The generated video is brought to the reference's size and frame rate, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.assets import fetch_file
from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import read_audio
from talkgs_cli.media.probe import picture_duration_s, probe
from talkgs_cli.media.video import frame_count, read_frames
from talkgs_cli.metrics.lips import silent_frames
from talkgs_cli.runtime import Progress, peak_rss_mb
from talkgs_cli.stages.score_evidence import Evidence, Witness, openings_over_time
from talkgs_cli.stages.score_lag import Lag
from talkgs_cli.stages.score_lips import Faces, behaviour, no_behaviour
from talkgs_cli.stages.score_meter import Meter, single_threaded
from talkgs_cli.stages.score_regions import Regions, choose_runs
from talkgs_cli.types import VideoInfo

PROTOCOL = "talkgs-score-2"
ROWS = ("generated", "real")
MAX_ASPECT_RATIO = 1.02  # between the two pictures' proportions
SAMPLE_RATE_HZ = 16_000

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class PairScore:
    """An answer and what stands behind it."""

    answer: dict[str, Any]
    evidence: Evidence


def score_videos(
    generated: Path, reference: Path, config: ScoreConfig, progress: Progress
) -> PairScore:
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
    faces = Faces.of(config, fetch_file("face_landmarker"))
    with progress.stage("Finding the face", None):
        shown = picked(read_frames(reference, frame_rate=rate), runs, faces)
        landmarks = [faces.see("real", frame) for _, frame in shown]
    found = [face for face in landmarks if face is not None]
    if not found:
        notes.append(f"No face in {reference}: only the full frame is measured.")
    regions = Regions.of(np.stack(found), real.size) if found else None
    meter = Meter(config, regions, real.size)
    witness, lag = Witness("generated", rate, regions), Lag()
    pairs = zip(
        read_frames(generated, size=real.size, frame_rate=rate),
        read_frames(reference, frame_rate=rate),
        strict=False,
    )
    frames = []
    with single_threaded(), progress.stage("Scoring", len(landmarks)) as advance:
        for (index, (frame, target)), face in zip(
            picked(pairs, runs, faces), landmarks, strict=False
        ):
            meter.target(index, target, face)
            witness.target(index, target, face)
            measure(meter, faces, frame, target, face)
            witness.add("generated", frame)
            witness.finish_frame()
            lag.add(index, frame, target)
            frames.append(index)
            advance(1)
    if lag.note:
        notes.append(f"{generated} {lag.note}")
    for note in notes:
        progress.note(note)
    evidence = witness.evidence()
    evidence.series = meter.series(ROWS)
    evidence.openings = {
        row: openings_over_time(faces.openings(row)[: len(frames)], frames)
        for row in ("real", "generated")
    }
    answer = {
        "protocol": PROTOCOL,
        "speaker": None,
        "generated": str(generated),
        "reference": str(reference),
        "frames": len(frames),
        "frame_rate": str(rate),
        "shift_frames": lag.frames,
        "ground_truth_share": meter.shares(ROWS),
        "rows": meter.results(ROWS),
        "behaviour": _behaviour(reference, real, faces, runs, rate, count),
        "speed": None,
        "settings": settings(config, regions, runs, faces),
        "notes": notes,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    return PairScore(answer, evidence)


def settings(
    config: ScoreConfig, regions: Regions | None, runs: list[range], faces: Faces
) -> dict[str, Any]:
    """What a reader needs to know to compare these numbers with others."""
    return {
        "frames": [[run.start, run.stop] for run in runs],
        "face_side_px": regions.face_side if regions else None,
        "mouth_size_px": list(regions.mouth_size) if regions else None,
        "psnr": "mean of per-frame PSNR, RGB, at most 100 dB; real against itself has none",
        "ssim": "scikit-image, 11x11 Gaussian window, sigma 1.5, population statistics, mean of "
        "RGB, mirrored borders",
        "lpips": "v0.1, mouth at 104x128, larger images shrunk to a shorter side of "
        f"{config.lpips_short_side}; VGG on every {config.vgg_every}. frame",
        "lmd": f"20 lip points, centred; {faces.lmd_detector}; px as if the shorter side had 512; "
        "iod: by the outer eye corners' distance",
        "behaviour": faces.detector,
        "interval": "95 %, moving blocks of 10 frames",
    }


def common_frames(
    generated: Path, made: VideoInfo, reference: Path, real: VideoInfo
) -> tuple[int, list[str]]:
    """How many frames both videos have at the reference's rate, and what had to be adapted.

    Raises:
        BadInput: the pictures have different proportions, or there is no common frame.
    """
    proportions = [info.size[1] / info.size[0] for info in (made, real)]
    if _ratio(*proportions) > MAX_ASPECT_RATIO:
        on_its_side = _ratio(proportions[0], 1 / proportions[1]) < MAX_ASPECT_RATIO
        raise BadInput(
            f"{generated} is {_size(made)} and {reference} is {_size(real)}: "
            "pictures of different proportions can't be compared.",
            hint="One of them lies on its side: turn it."
            if on_its_side
            else "Crop one of them to what the other shows.",
        )
    lengths_s = [picture_duration_s(path) for path in (generated, reference)]
    counts = [frame_count(Fraction(length_s), real.frame_rate) for length_s in lengths_s]
    if min(counts) < 1:
        raise BadInput(
            f"{generated} and {reference} have no frame in common "
            f"({lengths_s[0]:.2f} s and {lengths_s[1]:.2f} s).",
            hint="Give two videos of at least one frame.",
        )
    notes = []
    if made.size != real.size:
        notes.append(f"{generated} was resized from {_size(made)} to {_size(real)}.")
    for path, info in ((generated, made), (reference, real)):
        if not info.constant_rate:
            notes.append(f"{path} has a variable frame rate: resampled to {real.frame_rate} fps.")
    if made.constant_rate and made.frame_rate != real.frame_rate:
        notes.append(f"{generated} was resampled from {made.frame_rate} to {real.frame_rate} fps.")
    if abs(counts[0] - counts[1]) > 1:
        notes.append(
            f"Only the common beginning is compared: {min(counts)} of {counts[0]} and "
            f"{counts[1]} frames."
        )
    if not real.has_audio:
        notes.append(f"{reference} has no sound: what the mouth does in silence can't be told.")
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
    real = faces.lips_in(target, face)
    meter.add_real()
    meter.add_lips("real", faces.mirrored_lips(target), real)
    meter.add("generated", frame, np.all(frame == target, axis=-1).astype(np.float32))
    meter.add_lips("generated", faces.lips("generated", frame), real)


def _behaviour(
    reference: Path, real: VideoInfo, faces: Faces, runs: list[range], rate: Fraction, count: int
) -> dict[str, float | None]:
    glances = faces.seen["real"][: len(faces.seen["generated"])]
    own = np.array([glance.opening for glance in glances if glance is not None])
    if not len(own):
        return no_behaviour()
    silent = None
    if real.has_audio:
        samples = read_audio(reference, SAMPLE_RATE_HZ)
        everywhere = silent_frames(samples, SAMPLE_RATE_HZ, count, rate)
        silent = everywhere[[index for run in runs for index in run]][: len(glances)]
    return behaviour(faces.seen["generated"], glances, runs, own, silent)


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)


def _size(info: VideoInfo) -> str:
    return f"{info.size[1]}x{info.size[0]}"
