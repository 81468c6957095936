"""`fit`: a prepared speaker becomes Gaussians that render the face and a voice-to-mouth model."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from talkgs_cli.avatar import Avatar, DrivingCode, speaker_head
from talkgs_cli.config import FitConfig, TranslatorConfig, to_json
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.media.audio import read_audio
from talkgs_cli.networks.audio_encoder import load_encoder
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.rendering.warm_up import compile_kernels
from talkgs_cli.runtime import (
    Progress,
    disk_errors,
    peak_rss_mb,
    require_writable,
    seed_everything,
    write_json,
)
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LIPS_INNER,
    LIPS_OUTER,
)
from talkgs_cli.training.frames import FrameWindows
from talkgs_cli.training.gaussian_start import Start
from talkgs_cli.training.gaussians import GaussianTrainer, landmark_weights
from talkgs_cli.training.translator import train_translator
from talkgs_cli.training.translator_data import silence_features
from talkgs_cli.types import HeadMotion, Tracking, pack_mouth, unpack_mouth

LIP_POINTS = (*LIPS_OUTER, *LIPS_INNER)
MIN_TRAINING_FRAMES = 25


def fit(
    speaker: SpeakerFolder, config: FitConfig, progress: Progress, *, force: bool = False
) -> dict[str, Any]:
    """Fit a speaker; continues an interrupted fit with the same config.

    Raises:
        UsageError: another config was fitted here before and `force` is not given.
        BadInput: too few usable frames.
        MachineLacks: the device asked for is not usable.
    """
    require_writable(speaker.fit)
    device = choose_device(config.device)
    whole = {"renderer": to_json(config), "translator": to_json(TranslatorConfig())}
    if (done := _already_done(speaker, whole, force)) is not None:
        return done
    write_json(speaker.fit_config, whole)
    started = time.monotonic()
    seed_everything(config.seed)
    torch.set_num_threads(1)  # torch's own threads fight the rasteriser's (docs/rendering.md)
    compile_kernels(progress)
    tracking = speaker.load_tracking()
    train = training_frames(speaker, tracking)
    translator = _fit_translator(speaker, tracking, progress)
    resumed, iterations, avatar = _fit_gaussians(speaker, tracking, train, config, progress)
    avatar.save(speaker.gaussians)
    shutil.rmtree(speaker.checkpoints, ignore_errors=True)
    result = {
        "speaker": str(speaker.path),
        "preset": config.preset,
        "device": device,
        "backend": "gsplat" if device == "cuda" else "numba",
        "gaussians": len(avatar.gaussians),
        "iterations": iterations,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "resumed": resumed,
        "translator": translator,
    }
    speaker.finish_stage("fit", {"config": whole, "result": result})
    return result


def choose_device(wanted: str) -> str:
    """Resolve `auto`, and refuse a CUDA device that can't be used, with the reason."""
    from talkgs_cli.rendering.gsplat_backend import gsplat_status

    status = gsplat_status()
    if wanted == "cuda" and not status.usable:
        raise MachineLacks(
            f"--device cuda can't be used here: {status.reason}",
            hint="Use --device cpu, or see: talkgs doctor",
        )
    return "cuda" if wanted != "cpu" and status.usable else "cpu"


def training_frames(speaker: SpeakerFolder, tracking: Tracking) -> torch.Tensor:
    """[T'] valid frames before the held-out block."""
    train, _ = speaker.splits()
    frames = torch.arange(train.start, train.stop)
    frames = frames[tracking.valid[train.start : train.stop]]
    if len(frames) < MIN_TRAINING_FRAMES:
        raise BadInput(
            f"Only {len(frames)} frames of {speaker.path} can be learnt from; "
            f"at least {MIN_TRAINING_FRAMES} are needed.",
            hint="Use a longer clip in which the face is visible.",
        )
    return frames


def _already_done(
    speaker: SpeakerFolder, whole: dict[str, Any], force: bool
) -> dict[str, Any] | None:
    """The stored answer if this very config is finished; clears or refuses other ones."""
    record = speaker.stage("fit")
    if record is None and speaker.fit_config.is_file():
        record = {"config": json.loads(speaker.fit_config.read_text(encoding="utf-8"))}
    if record is None or (record["config"] == whole and "result" not in record and not force):
        return None
    if not force and record["config"] != whole:
        raise UsageError(
            f"{speaker.path} was fitted with another configuration "
            f"(preset {record['config']['renderer']['preset']}).",
            hint="Add --force to fit again; the old fit is kept as fit.old.",
        )
    if not force and speaker.gaussians.is_file():
        return {**record["result"], "already_done": True}
    if speaker.gaussians.is_file():
        old = speaker.path / "fit.old"
        with disk_errors(old):
            shutil.rmtree(old, ignore_errors=True)
            speaker.fit.rename(old)
    else:
        shutil.rmtree(speaker.fit, ignore_errors=True)
    speaker.manifest["stages"].pop("fit", None)
    speaker.save_manifest()
    require_writable(speaker.fit)
    return None


def _fit_gaussians(
    speaker: SpeakerFolder,
    tracking: Tracking,
    train: torch.Tensor,
    config: FitConfig,
    progress: Progress,
) -> tuple[bool, int, Avatar]:
    """Train the renderer; returns (whether it continued, steps taken, the avatar)."""
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
    resumed = _resume(trainer, speaker.checkpoints, progress)
    speaker.fit.mkdir(parents=True, exist_ok=True)
    with speaker.fit_log.open("a", encoding="utf-8") as log:

        def write(entry: dict[str, float]) -> None:
            log.write(json.dumps(entry) + "\n")
            log.flush()

        steps = None if config.minutes else config.iterations
        with progress.stage("Fitting Gaussians", steps) as advance:
            advance(trainer.step)
            saved = time.monotonic()
            for step in trainer.run(write):
                advance(1)
                if time.monotonic() - saved > config.checkpoint_every_s:
                    _checkpoint(trainer, speaker.checkpoints / f"{step:06d}")
                    saved = time.monotonic()
    return resumed, trainer.step, avatar


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


def _fit_translator(
    speaker: SpeakerFolder, tracking: Tracking, progress: Progress
) -> dict[str, Any] | None:
    """Train the voice-to-mouth model on the clip's own sound; None for a silent clip."""
    if not speaker.has_audio:
        progress.note("The clip has no sound: this speaker can't be driven by audio yet.")
        return None
    if speaker.translator.is_file():  # an interrupted fit got this far
        translator = MotionTranslator.load(speaker.translator)
        return {"encoder": translator.about.encoder, **translator.about.figures}
    config = TranslatorConfig()
    samples = read_audio(speaker.audio)
    encoder = load_encoder(config.encoder)
    stored = speaker.load_audio_features()
    features = stored.values if stored.encoder == encoder.name else encoder.encode(samples)
    head = speaker_head(tracking)
    chosen = tracking.valid.clone()
    chosen[speaker.splits()[0].stop :] = False
    translator = train_translator(
        features,
        pack_mouth(tracking.motion, head.head.mouth_expression, tracking.mouth_correctives),
        lip_basis(head, tracking.motion.at(chosen), tracking.mouth_correctives),
        (LIP_POINTS.index(INNER_LIP_UPPER), LIP_POINTS.index(INNER_LIP_LOWER)),
        chosen,
        speaker.frame_rate,
        config,
        progress,
        silence=silence_features(encoder, samples),
    )
    translator.save(speaker.translator)
    return {"encoder": encoder.name, **translator.about.figures}


def lip_basis(head: SpeakerHead, motion: HeadMotion, mouth_correctives: int) -> torch.Tensor:
    """[M, P, 3] metres that each number of the mouth vector moves each lip point, at the mean."""
    mouth = pack_mouth(motion, head.head.mouth_expression, mouth_correctives).mean(0)
    count = len(mouth)
    rest = motion.at(torch.zeros(count + 1, dtype=torch.long))
    nudged = mouth.repeat(count + 1, 1)
    nudge = 0.1  # of a unit: the jaw's arc is nearly straight over it
    nudged[1:] += nudge * torch.eye(count)
    moved = unpack_mouth(nudged, rest, head.head.mouth_expression, mouth_correctives)
    points = head.landmarks(moved.expression, moved.jaw, moved.corrective)  # [M + 1, L, 3]
    row = {int(index): k for k, index in enumerate(head.head.landmark_index)}
    lips = points[:, [row[index] for index in LIP_POINTS]]
    return (lips[1:] - lips[0]) / nudge
