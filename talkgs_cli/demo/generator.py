"""Makes the demo's input: a photograph that speaks, as an ordinary mp4, and its true motion.

The portrait is scikit-image's public-domain astronaut, the voice a small offline synthesiser.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from talkgs_cli.demo.articulation import articulate
from talkgs_cli.demo.motion import STYLES, DemoMotion, move
from talkgs_cli.demo.portrait import load_portrait
from talkgs_cli.demo.portrait_head import PortraitHead, fit_portrait, landmarks_of
from talkgs_cli.demo.renderer import PortraitRenderer
from talkgs_cli.demo.speech import SAMPLE_RATE_HZ, monologue
from talkgs_cli.demo.truth import DemoTruth, truth_path
from talkgs_cli.landmark_points import INNER_LIP_LOWER, INNER_LIP_UPPER
from talkgs_cli.types import project

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.config import DemoConfig
    from talkgs_cli.demo.portrait import Portrait
    from talkgs_cli.runtime import Progress

FRAME_RATE = Fraction(25)
CRF = 14
CHUNK = 64  # frames posed at once


@dataclass(frozen=True)
class DemoPlan:
    """Everything a demo video is made of, before a pixel is drawn.

    Attributes:
        sound: [samples] at speech.SAMPLE_RATE_HZ.
        portrait: The photograph's layers.
        fitted: The head laid onto it.
        moved: The true motion.
        truth: The same in the video's pixels.
    """

    sound: NDArray[np.float32]
    portrait: Portrait
    fitted: PortraitHead
    moved: DemoMotion
    truth: DemoTruth


def plan_demo_video(config: DemoConfig) -> DemoPlan:
    """Speak, read the mouth off the speech, lay the head onto the portrait; deterministic."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.heads import load_head
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    sound = monologue(config.duration_s, config.voice, config.seed)
    portrait = load_portrait(FaceLandmarker(fetch_file("face_landmarker")))
    fitted = fit_portrait(load_head("open"), portrait)
    articulation = articulate(sound, SAMPLE_RATE_HZ, FRAME_RATE)
    camera = fitted.world_to_camera[0]
    style = STYLES[config.motion]
    moved = move(articulation, fitted.head, camera, FRAME_RATE, config.seed, style)
    return DemoPlan(sound, portrait, fitted, moved, true_motion(fitted, moved, config.size))


def make_demo_video(path: Path, config: DemoConfig, progress: Progress) -> DemoTruth:
    """Write the demo video and, beside it, its truth.

    Args:
        path: The mp4 to make; the truth goes to `truth_path(path)`.
        config: Length, size, seed, voice.
        progress: Told about the frames.

    Returns:
        The truth, as written.
    """
    from talkgs_cli.media.audio import write_wav

    with progress.stage("Making a portrait speak", None):
        plan = plan_demo_video(config)
    with tempfile.TemporaryDirectory(prefix="talkgs-demo-") as scratch:
        wav = Path(scratch) / "speech.wav"
        write_wav(wav, plan.sound, SAMPLE_RATE_HZ)
        _write_video(path, plan, config.size, wav, progress)
    plan.truth.save(truth_path(path))
    return plan.truth


def true_motion(fitted: PortraitHead, moved: DemoMotion, size: int) -> DemoTruth:
    """What the video will show, in its own pixels."""
    motion, head = moved.motion, fitted.head
    intrinsics = fitted.intrinsics * torch.tensor([[size], [size], [1.0]])
    chunks = []
    for start in range(0, len(motion), CHUNK):
        part = motion.at(slice(start, start + CHUNK))
        points = landmarks_of(head, fitted.vertices(part.expression, part.jaw))
        chunks.append(project(points, part.world_to_camera, intrinsics))
    landmarks = torch.cat(chunks)
    upper, lower = (
        landmarks[:, head.landmark_index.tolist().index(point)]
        for point in (INNER_LIP_UPPER, INNER_LIP_LOWER)
    )
    return DemoTruth(
        expression=motion.expression,
        jaw=motion.jaw,
        world_to_camera=motion.world_to_camera,
        landmarks=landmarks,
        landmark_index=head.landmark_index,
        opening=(upper - lower).norm(dim=1),
        intrinsics=intrinsics,
        frame_rate=FRAME_RATE,
    )


def _write_video(path: Path, plan: DemoPlan, size: int, wav: Path, progress: Progress) -> None:
    from talkgs_cli.media.encoding import VideoWriter
    from talkgs_cli.media.marking import SYNTHETIC

    motion = plan.moved.motion
    renderer = PortraitRenderer(plan.portrait, plan.fitted, size)
    with (
        progress.stage("Drawing the demo video", len(motion)) as advance,
        VideoWriter(path, (size, size), FRAME_RATE, wav, CRF, metadata=SYNTHETIC) as writer,
    ):
        for index in range(len(motion)):
            frame = motion.at(slice(index, index + 1))
            vertices = plan.fitted.vertices(frame.expression, frame.jaw)[0]
            gaze = plan.moved.gaze[index]
            writer.write(renderer.draw(vertices, frame.world_to_camera[0], gaze))
            advance(1)
