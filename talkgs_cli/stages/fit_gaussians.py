"""The step of `fit` that optimises the Gaussians, with its checkpoints and its log."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from talkgs_cli.avatar import Avatar, DrivingCode, speaker_head
from talkgs_cli.runtime import Progress, disk_errors, seed_everything
from talkgs_cli.stages.fit_folder import FitJob
from talkgs_cli.training.frames import FrameWindows
from talkgs_cli.training.gaussian_start import Start
from talkgs_cli.training.gaussians import GaussianTrainer, landmark_weights


@dataclass(frozen=True)
class FittedGaussians:
    """What the step made.

    Attributes:
        avatar: The fitted speaker, ready to be rendered.
        resumed: Whether an interrupted fit was continued.
        iterations: Steps taken in all.
    """

    avatar: Avatar
    resumed: bool
    iterations: int


def fit_gaussians(job: FitJob) -> FittedGaussians:
    """Train the renderer and write `fit/gaussians.safetensors`; the checkpoints go."""
    speaker, tracking, train, config = job.speaker, job.tracking, job.train, job.config
    seed_everything(config.seed)  # again: a continued fit skips what came before
    head = speaker_head(tracking)
    gaussians = Start(speaker, tracking, head, train.tolist(), config).build()
    motion = tracking.motion.at(train)
    points = head.landmarks(motion.expression, motion.jaw, motion.corrective)
    weights = landmark_weights(head.head.landmark_index)
    code = DrivingCode.fit(points, motion.world_to_camera, weights)
    avatar = Avatar(head, gaussians, code, tracking, speaker.crop)
    windows = FrameWindows(speaker, tracking, train.tolist(), config.mouth_weight)
    trainer = GaussianTrainer(avatar, windows, train, config)
    resumed = _resume(trainer, speaker.checkpoints, job.progress)
    speaker.fit.mkdir(parents=True, exist_ok=True)
    with speaker.fit_log.open("a", encoding="utf-8") as log:

        def write(entry: dict[str, float]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()

        steps = None if config.minutes else config.iterations
        with job.progress.stage("Fitting Gaussians", steps) as advance:
            advance(trainer.step)
            saved = time.monotonic()
            for step in trainer.run(write):
                advance(1)
                if time.monotonic() - saved > config.checkpoint_every_s:
                    _checkpoint(trainer, speaker.checkpoints / f"{step:06d}")
                    saved = time.monotonic()
    avatar.save(speaker.gaussians)
    shutil.rmtree(speaker.checkpoints, ignore_errors=True)
    return FittedGaussians(avatar, resumed, trainer.step)


def _resume(trainer: GaussianTrainer, folder: Path, progress: Progress) -> bool:
    found = sorted(folder.glob("[0-9]*[0-9]"))
    if not found:
        return False
    trainer.load_checkpoint(found[-1])
    progress.note(f"Continuing the fit at step {trainer.step}.")
    return True


def _checkpoint(trainer: GaussianTrainer, folder: Path) -> None:
    with disk_errors(folder):
        older = list(folder.parent.glob("*")) if folder.parent.is_dir() else []
        trainer.save_checkpoint(folder)
        for old in older:
            shutil.rmtree(old)
