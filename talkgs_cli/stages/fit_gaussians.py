"""The step of `fit` that optimises the Gaussians, with its checkpoints, preview and log."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from talkgs_cli.avatar import Avatar, DrivingCode, posed_landmarks, speaker_head
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.rendering.grain import Grain
from talkgs_cli.runtime import Progress, disk_errors, seed_everything
from talkgs_cli.stages.fit_folder import FitJob, forget_after
from talkgs_cli.stages.fit_pictures import write_preview
from talkgs_cli.training.checkpoint import load_checkpoint, save_checkpoint
from talkgs_cli.training.exposure import measure_exposure
from talkgs_cli.training.frames import FrameWindows
from talkgs_cli.training.gaussian_start import Start
from talkgs_cli.training.gaussians import GaussianTrainer, landmark_weights
from talkgs_cli.training.grain import measure_grain
from talkgs_cli.training.lower_teeth import find_lower_teeth

LEAST_JUDGED = 40  # a shorter validation block says little, and a short clip needs every frame
CODE_FRAMES = 2000  # that the driving code is made from at most
BLOCK_AT = 0.6  # where in the training part the validation block lies


@dataclass(frozen=True)
class FittedGaussians:
    """What the step made.

    Attributes:
        avatar: The fitted speaker, ready to be rendered.
        resumed: Whether an interrupted fit was continued.
        iterations: Steps taken in all.
        validation_loss: Of the weights that were chosen; None without a validation block.
    """

    avatar: Avatar
    resumed: bool
    iterations: int
    validation_loss: float | None


def fit_gaussians(job: FitJob) -> FittedGaussians:
    """Train the renderer and write `fit/gaussians.safetensors`.

    The last checkpoint stays, so that a fit interrupted in a later step need not do this again.
    """
    speaker, config, progress = job.speaker, job.config, job.progress
    trainer = new_trainer(job)
    resumed = _resume(trainer, speaker.checkpoints, progress)
    speaker.fit.mkdir(parents=True, exist_ok=True)
    forget_after(speaker.fit_log, "step", trainer.step)
    if config.minutes:  # seconds are what can be counted down
        what, total = "Fitting Gaussians, seconds", round(60 * config.minutes)
    else:
        what, total = "Fitting Gaussians", config.iterations
    with (
        speaker.fit_log.open("a", encoding="utf-8") as log,
        progress.stage(what, total) as advance,
    ):
        shown = 0
        saved = time.monotonic()
        for step in trainer.run(lambda entry: _write(log, entry)):
            now = min(int(trainer.spent_s), total) if config.minutes else step
            advance(now - shown)
            shown = now
            if trainer.spent_s > config.preview_after_s and not speaker.fit_preview.is_file():
                write_preview(speaker.fit_preview, speaker, trainer.avatar)
                progress.note(f"A first look: {speaker.fit_preview}")
            if time.monotonic() - saved > config.checkpoint_every_s:
                _checkpoint(trainer, speaker.checkpoints / f"{step:06d}")
                saved = time.monotonic()
    last = speaker.checkpoints / f"{trainer.step:06d}"
    if not last.is_dir():
        _checkpoint(trainer, last)
    trainer.finish()
    if config.grain:
        strength = measure_grain(trainer.avatar, speaker, trainer.train.tolist())
        trainer.avatar.grain = Grain(strength, speaker.crop.size)
    trainer.avatar.save(speaker.gaussians)
    chosen = round(trainer.best_value, 5) if trainer.best else None
    return FittedGaussians(trainer.avatar, resumed, trainer.step, chosen)


def new_trainer(job: FitJob) -> GaussianTrainer:
    """A trainer before its first step; the same seed gives the same one."""
    speaker, tracking, config, progress = job.speaker, job.tracking, job.config, job.progress
    seed_everything(config.seed)  # again: a continued fit skips what came before
    learnt, judged = without_block(job.train, config.validation_share)
    exposure = Exposure()
    if config.follow_light:
        exposure = measure_exposure(speaker, tracking, learnt.tolist(), progress)
    head = speaker_head(tracking)
    if config.place_teeth:
        height_m = find_lower_teeth(speaker, tracking, head, learnt.tolist(), exposure)
        head = speaker_head(tracking, height_m)
    gaussians = Start(speaker, tracking, head, learnt.tolist(), config).build()
    motion = tracking.motion.at(learnt[:: -(-len(learnt) // CODE_FRAMES)])
    points = posed_landmarks(head, motion)
    weights = landmark_weights(head.head.landmark_index)
    code = DrivingCode.fit(points, motion.world_to_camera, weights)
    avatar = Avatar(head, gaussians, code, tracking, speaker.crop, exposure=exposure)
    windows = FrameWindows(speaker, tracking, learnt.tolist(), config.mouth_weight)
    device = torch.device(job.device)
    return GaussianTrainer(avatar, windows, learnt, config, judged.tolist(), device)


def without_block(train: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(frames to learn from, one block of frames that choose the best weights, maybe empty).

    Args:
        train: [T'] training frames.
        share: Of them in the block.
    """
    count = int(len(train) * share)
    if count < LEAST_JUDGED:
        return train, train[:0]
    start = int(len(train) * BLOCK_AT)
    block = torch.arange(start, start + count)
    learnt = torch.ones(len(train), dtype=torch.bool)
    learnt[block] = False
    return train[learnt], train[block]


def _write(log: IO[str], entry: dict[str, float | None]) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()


def _resume(trainer: GaussianTrainer, folder: Path, progress: Progress) -> bool:
    found = sorted(folder.glob("[0-9]*[0-9]"))
    if not found:
        return False
    load_checkpoint(trainer, found[-1])
    progress.note(f"Continuing the fit at step {trainer.step}.")
    return True


def _checkpoint(trainer: GaussianTrainer, folder: Path) -> None:
    with disk_errors(folder):
        older = list(folder.parent.glob("*")) if folder.parent.is_dir() else []
        save_checkpoint(trainer, folder)
        for old in older:
            # One that was cut off in this very place has just been renamed.
            shutil.rmtree(old, ignore_errors=True)
