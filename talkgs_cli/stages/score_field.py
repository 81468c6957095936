"""The meters that the ER-NeRF family of papers prints: PSNR, LPIPS and LMD of two video files.

Kept as they are, flaws included, so that figures can stand beside published ones: every frame from
the start, decoded as OpenCV does, whole frames, no regions, no intervals beside the means. It is
no judgement of quality: see docs/scoring.md for what these figures hide.

Source: the evaluation practice of ER-NeRF (Li et al., ICCV 2023) and those who followed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.assets import fetch_file
from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.media.probe import probe
from talkgs_cli.metrics.intervals import mean_interval
from talkgs_cli.metrics.landmarks import lmd
from talkgs_cli.runtime import Progress, peak_rss_mb
from talkgs_cli.stages.score_lips import Faces
from talkgs_cli.stages.score_meter import METRICS, single_threaded
from talkgs_cli.stages.score_regions import REGIONS

PROTOCOL = "er-nerf-compatible-1"
MEASURED = ("psnr", "lpips_alex", "lmd_px")

Frame = NDArray[np.uint8]


def score_as_field(
    generated: Path, reference: Path, config: ScoreConfig, progress: Progress
) -> dict[str, Any]:
    """Compare two videos as the field's scripts do.

    Returns:
        The JSON contract of docs/design.md; only `generated`, `full` and three metrics are filled.

    Raises:
        BadInput: one of them is no video, or their frames differ in size.
    """
    started = time.monotonic()
    notes = _comparable(generated, reference)
    faces = Faces.of(config, fetch_file("face_landmarker"))
    values: dict[str, list[float]] = {metric: [] for metric in MEASURED}
    count = without_face = 0
    with single_threaded(), progress.stage("Scoring", None) as advance:
        distance = _Perceptual()
        for made, real in _pairs(generated, reference):
            values["psnr"].append(psnr_db(made, real))
            values["lpips_alex"].append(distance(made, real))
            lips = [
                faces.lips_in(frame, faces.find(row, frame))
                for row, frame in (("generated", made), ("real", real))
            ]
            if any(points is None for points in lips):
                without_face += 1
            else:
                values["lmd_px"].append(float(lmd(lips[0][None], lips[1][None])[0]))  # type: ignore[index]
            count += 1
            advance(1)
    if without_face:
        notes.append(f"LMD leaves out {without_face} of {count} frames without a face.")
    for note in notes:
        progress.note(note)
    full = {metric: mean_interval(values.get(metric, [])) for metric in METRICS}
    nothing = dict.fromkeys(METRICS)
    return {
        "protocol": PROTOCOL,
        "speaker": None,
        "generated": str(generated),
        "reference": str(reference),
        "frames": count,
        "ground_truth_share": {},
        "rows": {
            "generated": {region: full if region == "full" else nothing for region in REGIONS}
        },
        "behaviour": {},
        "speed": None,
        "settings": {
            "frames": [[0, count]],
            "psnr": "-10 log10 of the mean squared error of a frame, RGB, mean over frames",
            "lpips": "v0.1, AlexNet, whole frame at its own size",
            "lmd": f"20 lip points, centred, pixels of the video; {faces.lmd_detector}",
        },
        "notes": notes,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def psnr_db(made: Frame, real: Frame) -> float:
    """PSNR as those scripts compute it; equal frames, infinite there, count 100 dB."""
    error = np.square(made / np.float32(255) - real / np.float32(255)).mean(dtype=np.float64)
    return float(-10 * np.log10(max(float(error), 1e-10)))


class _Perceptual:
    """LPIPS of whole frames, never resized."""

    def __init__(self) -> None:
        from talkgs_cli.metrics.lpips import LPIPS

        self._network = LPIPS("alex")

    def __call__(self, made: Frame, real: Frame) -> float:
        import torch

        pair = [
            torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None].float() / 255
            for frame in (made, real)
        ]
        with torch.inference_mode():
            return float(self._network(*pair))


def _comparable(generated: Path, reference: Path) -> list[str]:
    made, real = probe(generated), probe(reference)
    if made.size != real.size:
        raise BadInput(
            f"{generated} is {made.size[1]}x{made.size[0]} and {reference} is "
            f"{real.size[1]}x{real.size[0]}: this protocol compares frames of equal size.",
            hint="Leave --protocol out: talkgs' own protocol resizes, and says so.",
        )
    notes = []
    if made.frame_rate != real.frame_rate:
        notes.append(
            f"Frame rates differ ({made.frame_rate} and {real.frame_rate} fps); this protocol "
            "pairs frames by number, not by time."
        )
    return notes


def _pairs(generated: Path, reference: Path) -> Iterator[tuple[Frame, Frame]]:
    """Frames with the same number; the shorter video ends it."""
    made, real = _frames(generated), _frames(reference)
    first = next(zip(made, real, strict=False), None)
    if first is None:
        raise BadInput(
            f"{generated} or {reference} has no frame that OpenCV can decode.",
            hint="Convert it to H.264 in mp4.",
        )
    return chain([first], zip(made, real, strict=False))


def _frames(path: Path) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        while True:
            read, frame = capture.read()
            if not read:
                return
            yield np.asarray(frame[..., ::-1], np.uint8)
    finally:
        capture.release()
