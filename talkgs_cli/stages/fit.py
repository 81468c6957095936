"""`fit`: a prepared speaker becomes Gaussians that render the face and a voice-to-mouth model.

Each step is a file of its own, takes a `FitJob` and writes its part of the `fit` folder.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import torch

from talkgs_cli.config import FitConfig, InpaintingConfig, TranslatorConfig, to_json
from talkgs_cli.rendering.warm_up import compile_kernels
from talkgs_cli.runtime import (
    Progress,
    peak_rss_mb,
    require_writable,
    seed_everything,
    write_json,
)
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob, already_done, choose_device, training_frames
from talkgs_cli.stages.fit_gaussians import fit_gaussians
from talkgs_cli.stages.fit_inpainting import fit_inpainting
from talkgs_cli.stages.fit_report import write_fit_report
from talkgs_cli.stages.fit_translator import fit_translator
from talkgs_cli.stages.translator_choice import settled


def fit(
    speaker: SpeakerFolder,
    config: FitConfig,
    progress: Progress,
    *,
    translator_config: TranslatorConfig | None = None,
    inpainting_config: InpaintingConfig | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Fit a speaker; continues an interrupted fit with the same config.

    Args:
        speaker: A prepared speaker.
        config: The renderer's settings.
        progress: Tells the user.
        translator_config: The lip model's settings; None: the usual ones.
        inpainting_config: The Inpainting Generator's settings; None: the face's edge is feathered.
        force: Fit again whatever is there.

    Raises:
        UsageError: another config was fitted here before and `force` is not given.
        BadInput: too few usable frames.
        MachineLacks: the device asked for is not usable.
    """
    require_writable(speaker.fit)
    device = choose_device(config.device)
    translator_config = settled(speaker, translator_config or TranslatorConfig(), progress)
    whole = {
        "renderer": to_json(config),
        "translator": to_json(translator_config),
        "inpainting": to_json(inpainting_config) if inpainting_config else None,
    }
    if (done := already_done(speaker, whole, force)) is not None:
        return done
    write_json(speaker.fit_config, whole)
    started = time.monotonic()
    seed_everything(config.seed)
    torch.set_num_threads(1)  # torch's own threads fight the rasteriser's (docs/rendering.md)
    compile_kernels(progress)
    tracking = speaker.load_tracking()
    job = FitJob(speaker, tracking, training_frames(speaker, tracking), config, device, progress)
    translator = fit_translator(job, translator_config)
    gaussians = fit_gaussians(job)
    inpainting = fit_inpainting(job, gaussians.avatar, inpainting_config)
    result = {
        "speaker": str(speaker.path),
        "preset": config.preset,
        "device": device,
        "backend": "gsplat" if device == "cuda" else "numba",
        "gaussians": len(gaussians.avatar.gaussians),
        "iterations": gaussians.iterations,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "resumed": gaussians.resumed,
        "validation_loss": gaussians.validation_loss,
        "translator": translator,
        "inpainting": inpainting,
    }
    write_fit_report(speaker, gaussians.avatar, result, progress)
    speaker.finish_stage("fit", {"config": whole, "result": result})
    shutil.rmtree(
        speaker.checkpoints, ignore_errors=True
    )  # not before: all else may be interrupted
    return result
