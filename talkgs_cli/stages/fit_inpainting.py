"""The step of `fit` that trains the Inpainting Generator and keeps it where it helps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import InpaintingConfig
from talkgs_cli.metrics.lips import opening
from talkgs_cli.runtime import disk_errors
from talkgs_cli.stages.fit_folder import FitJob, forget_after
from talkgs_cli.stages.fit_gaussians import without_block
from talkgs_cli.training.inpainting import InpaintingTrainer
from talkgs_cli.training.inpainting_choice import PairChooser
from talkgs_cli.training.inpainting_pairs import PackedPair, PairMaker

JUDGED_SHARE = 0.1  # of a short clip's training frames, the last ones
JUDGED_PAIRS = 20
LEAST_GAIN = 0.02  # share of the feathered edge's LPIPS


def fit_inpainting(
    job: FitJob, avatar: Avatar, config: InpaintingConfig | None
) -> dict[str, Any] | None:
    """Train the network and write `fit/inpainting.safetensors`.

    Args:
        job: What every step knows.
        avatar: The fitted Gaussians.
        config: The network's settings; None: no network.

    Returns:
        What was measured on frames that were not learnt from, and whether the network is `used`;
        None where there is no network.
    """
    speaker = job.speaker
    speaker.inpainting.unlink(missing_ok=True)  # of a fit that was interrupted right here
    if config is None:
        job.progress.note("No Inpainting Generator: the edge of the face is feathered.")
        return None
    trainer, judged = _prepare(job, avatar, config)
    # Beside those of the Gaussians, which stay until the whole fit is finished.
    checkpoint = speaker.checkpoints / "inpainting.safetensors"
    if checkpoint.is_file():
        trainer.load_checkpoint(checkpoint)
        job.progress.note(f"Continuing the Inpainting Generator at step {trainer.step}.")
    forget_after(speaker.fit_log, "inpainting_step", trainer.step)
    with (
        job.progress.stage("Learning to join face and frame", config.iterations) as advance,
        speaker.fit_log.open("a", encoding="utf-8") as log,
    ):
        advance(trainer.step)
        smooth, saved = float("nan"), time.monotonic()
        for value in trainer.run():
            smooth = value if smooth != smooth else 0.98 * smooth + 0.02 * value
            advance(1)
            if trainer.step % 100 == 0:
                entry = {"inpainting_step": trainer.step, "loss": round(smooth, 5)}
                log.write(json.dumps(entry) + "\n")
                log.flush()
            if time.monotonic() - saved > config.checkpoint_every_s:
                _save(trainer, checkpoint)
                saved = time.monotonic()
    _save(trainer, checkpoint)
    figures = trainer.measure(judged)
    used = helps(figures)
    if used:
        with disk_errors(speaker.inpainting):
            trainer.deployable(figures).save(speaker.inpainting)
    else:
        job.progress.note(
            "The Inpainting Generator does not help this clip: the edge is feathered."
        )
    return {"used": used, **figures}


def helps(figures: dict[str, float]) -> bool:
    """Whether the network looks clearly better than feathering, and no pixel figure pays for it.

    LPIPS has to fall by `LEAST_GAIN`: a gain within the noise of a few frames turned into a loss
    on other frames of the same clip. Where LPIPS was not measured, PSNR decides alone.

    >>> helps({"seam_psnr": 25.0, "seam_psnr_feathered": 24.0})
    True
    >>> seen = {"seam_psnr": 25.0, "seam_psnr_feathered": 24.0, "seam_lpips_feathered": 0.0125}
    >>> helps({**seen, "seam_lpips": 0.0124}), helps({**seen, "seam_lpips": 0.0110})
    (False, True)
    """
    gain = figures["seam_psnr"] - figures["seam_psnr_feathered"]
    if "seam_lpips" not in figures:
        return gain > 0
    allowed = (1 - LEAST_GAIN) * figures["seam_lpips_feathered"]
    return gain >= 0 and figures["seam_lpips"] <= allowed


def _prepare(
    job: FitJob, avatar: Avatar, config: InpaintingConfig
) -> tuple[InpaintingTrainer, list[PackedPair]]:
    """Pairs to learn from, pairs to judge by."""
    learnt, judged = _frames(job)
    maker = PairMaker(avatar, job.speaker, config, learnt)
    openings = opening(avatar.tracking.landmarks)
    chooser = PairChooser(job.speaker, maker.alignment, openings, learnt, avatar.exposure)

    def pairs(targets: list[int], count: int, seed: int) -> list[PackedPair]:
        places = np.linspace(0, len(targets) - 1, min(count, len(targets))).astype(int)
        chosen = chooser.choose([targets[k] for k in places], seed)
        made = []
        for pair in maker.make(chosen):
            made.append(pair)
            advance(1)
        return made

    total = min(config.pairs, len(learnt)) + min(JUDGED_PAIRS, len(judged))
    with job.progress.stage("Rendering faces to join", total) as advance:
        learnt_pairs = pairs(learnt, config.pairs, config.seed)
        judged_pairs = pairs(judged, JUDGED_PAIRS, config.seed + 1)
    return InpaintingTrainer(learnt_pairs, maker.grid, config), judged_pairs


def _frames(job: FitJob) -> tuple[list[int], list[int]]:
    """Frames to learn from, and those that judge, where possible those no Gaussian has learnt."""
    learnt, judged = without_block(job.train, job.config.validation_share)
    if len(judged) == 0:  # a short clip has no such block
        count = max(1, round(len(learnt) * JUDGED_SHARE))
        learnt, judged = learnt[:-count], learnt[-count:]
    return learnt.tolist(), judged.tolist()


def _save(trainer: InpaintingTrainer, path: Path) -> None:
    with disk_errors(path):
        trainer.save_checkpoint(path)
