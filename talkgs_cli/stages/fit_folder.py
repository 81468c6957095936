"""What a fit finds and leaves on disk: is it done already, which frames, which device.

It trains nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.runtime import disk_errors, require_writable

if TYPE_CHECKING:
    import torch

    from talkgs_cli.config import FitConfig
    from talkgs_cli.runtime import Progress
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.types import Tracking

MIN_TRAINING_FRAMES = 25


@dataclass(frozen=True)
class FitJob:
    """What every step of a fit needs to know.

    Attributes:
        speaker: The prepared speaker; steps write into its `fit` folder.
        tracking: What `prepare` found.
        train: [T'] frames that may be learnt from.
        config: The renderer's settings.
        device: "cpu" or "cuda", resolved.
        progress: Tells the user.
    """

    speaker: SpeakerFolder
    tracking: Tracking
    train: torch.Tensor
    config: FitConfig
    device: str
    progress: Progress


def choose_device(wanted: str) -> str:
    """Resolve `auto`, and refuse a CUDA device that can't be used, with the reason."""
    from talkgs_cli.rendering.gsplat_backend import gsplat_status

    status = gsplat_status()
    if wanted == "cuda" and not status.usable:
        raise MachineLacks(
            f"A CUDA card can't be used here: {status.reason}",
            hint="Use --device cpu, with --preset standard or fine, or see: talkgs doctor",
        )
    return "cuda" if wanted != "cpu" and status.usable else "cpu"


def training_frames(speaker: SpeakerFolder, tracking: Tracking) -> torch.Tensor:
    """[T'] valid frames before the held-out block."""
    import torch

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


def already_done(
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
