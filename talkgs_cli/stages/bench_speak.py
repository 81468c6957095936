"""The part of `bench` that speaks from end to end: decode, render, composite, encode, overlapping.

It uses speak's own steps on a made-up scene: no sound is listened to, no speaker is needed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.compositing import Compositor
from talkgs_cli.config import SpeakConfig
from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.video import read_frames
from talkgs_cli.rendering import numba_jit
from talkgs_cli.stages.ahead import ahead
from talkgs_cli.stages.bench import Timer
from talkgs_cli.stages.bench_parts import GAUSSIANS, Step
from talkgs_cli.stages.clock import Clock
from talkgs_cli.stages.speak_frames import FRAMES_AHEAD
from talkgs_cli.types import LABELS, Crop

SIDE = 512
FRAMES = 100
RATE = Fraction(25)


def speak(timer: Timer) -> None:
    """Frames a second of everything after the sound, at 512 x 512."""
    with tempfile.TemporaryDirectory(prefix="talkgs-bench-") as folder:
        source, target = Path(folder) / "source.mp4", Path(folder) / "target.mp4"
        _make_source(source)
        step = Step(SIDE, fast=True)
        list(islice(_renders(step), 2))
        clock, config = Clock(), SpeakConfig()
        started, cpu = time.perf_counter(), time.process_time()
        with (
            timer.progress.stage("Timing speak", FRAMES) as advance,
            VideoWriter(target, (SIDE, SIDE), RATE, crf=config.crf, preset=config.preset) as writer,
            ExitStack() as threads,
        ):

            def beside(items: Iterator[Any], name: str) -> Iterator[Any]:
                return threads.enter_context(closing(ahead(items, FRAMES_AHEAD, name)))

            under = beside(clock.over("read", read_frames(source)), "read")
            rendered = beside(clock.over("render", _renders(step)), "render")
            for frame in beside(_composited(rendered, under, clock), "composite"):
                with clock.part("encode"):
                    writer.write(frame)
                advance(1)
        wall_ms = (time.perf_counter() - started) * 1e3
        timer.rows.append(
            {
                "name": f"speak {GAUSSIANS // 1000}k @{SIDE} end to end",
                "median_ms": round(wall_ms / FRAMES, 2),
                "best_ms": round(wall_ms / FRAMES, 2),
                "cpu_ms": round((time.process_time() - cpu) * 1e3 / FRAMES, 2),
                "rounds": 1,
                "frames_per_s": round(1e3 * FRAMES / wall_ms, 1),
                "threads": numba_jit.threads(),
                "parts_ms": {k: round(v * 1e3 / FRAMES, 2) for k, v in clock.parts().items()},
            }
        )


def _make_source(path: Path) -> None:
    """A still picture with grain: as hard to decode and encode as a person before a wall."""
    dice = np.random.default_rng(0)
    ramp = np.linspace(40, 200, SIDE, dtype=np.float32)
    still = np.stack([np.broadcast_to(ramp, (SIDE, SIDE)), ramp[:, None] + 0 * ramp], axis=-1)
    still = np.concatenate([still, still[..., :1]], axis=-1)
    with VideoWriter(path, (SIDE, SIDE), RATE, crf=12) as writer:
        for _ in range(FRAMES):
            grain = dice.normal(0, 2, (SIDE, SIDE, 1)).astype(np.float32)
            writer.write(np.clip(still + grain, 0, 255).astype(np.uint8))


def _renders(step: Step) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    while True:
        with torch.no_grad():
            image, alpha = step.render()
        yield image.numpy(), alpha[..., 0].numpy()


def _composited(
    rendered: Iterator[Any], under: Iterator[Any], clock: Clock
) -> Iterator[NDArray[np.uint8]]:
    compositor = Compositor(Crop(0, 0, SIDE, SIDE))
    label = np.full((SIDE, SIDE), LABELS["skin"], np.uint8)
    for frame, (rgb, alpha) in zip(under, rendered, strict=False):
        with clock.part("composite"):
            made = compositor.paste(rgb, alpha, frame, label)
        yield made
