"""What a fit finds and leaves on disk: is it done already, which frames, which device.

It trains nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.runtime import atomic_path, disk_errors, require_writable

if TYPE_CHECKING:
    from pathlib import Path

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
    """The stored answer if this very config is finished; makes room for it otherwise.

    With `force` a finished fit is kept as fit.old, in the place of the one before it; one that was
    interrupted never takes that place.

    Raises:
        UsageError: something learnt with other settings is there, and `force` is not given.
    """
    record = speaker.stage("fit")
    if record is not None and speaker.gaussians.is_file():
        if asks_for(record["config"], whole) and not force:
            return {**record["result"], "already_done": True}
        if not force:
            raise UsageError(
                f"{speaker.path} was fitted with another configuration "
                f"(preset {record['config']['renderer']['preset']}).",
                hint="Add --force to fit again; the fit that is there is kept as fit.old.",
            )
        old = speaker.path / "fit.old"
        with disk_errors(old):
            shutil.rmtree(old, ignore_errors=True)
            speaker.fit.rename(old)
    elif force:
        shutil.rmtree(speaker.fit, ignore_errors=True)
    elif (begun := _begun(speaker)) is not None and begun != whole:
        if asks_for(begun, whole):
            raise UsageError(
                f"{speaker.path} has an unfinished fit that another version of talkgs began.",
                hint="Add --force to throw it away and fit again.",
            )
        raise UsageError(
            f"{speaker.path} has an unfinished fit with other settings "
            f"(preset {begun['renderer']['preset']}).",
            hint="Finish it with those settings, or add --force to throw it away.",
        )
    if record is not None:
        speaker.manifest["stages"].pop("fit")
        speaker.save_manifest()
    require_writable(speaker.fit)
    return None


def asks_for(earlier: Any, now: Any) -> bool:
    """Whether settings are those of an earlier fit, as far as both have them.

    A version of talkgs with more settings, or fewer, does not make a finished fit another one.

    >>> asks_for({"renderer": {"seed": 0}}, {"renderer": {"seed": 0, "place_teeth": True}})
    True
    >>> asks_for({"renderer": {"seed": 0, "given_up": 1}}, {"renderer": {"seed": 0}})
    True
    >>> asks_for({"renderer": {"seed": 0}}, {"renderer": {"seed": 1}})
    False
    """
    if isinstance(earlier, dict) and isinstance(now, dict):
        return all(asks_for(earlier[name], now[name]) for name in earlier.keys() & now.keys())
    return bool(earlier == now)


def _begun(speaker: SpeakerFolder) -> dict[str, Any] | None:
    """The settings of a fit that has learnt something; None if there is nothing to lose."""
    learnt = [speaker.translator, speaker.gaussians, *speaker.checkpoints.glob("[0-9]*[0-9]")]
    if not speaker.fit_config.is_file() or not any(path.exists() for path in learnt):
        return None
    settings: dict[str, Any] = json.loads(speaker.fit_config.read_text(encoding="utf-8"))
    return settings


def forget_after(log: Path, counter: str, step: int) -> None:
    """Drop from a fit's log what a continued step will say again, and a line cut off by a kill.

    Args:
        log: fit/log.jsonl; it may be missing.
        counter: Field that counts the steps, of the entries that have it.
        step: The last step whose entries stay.
    """
    if not log.is_file():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry.get(counter, 0) <= step:
            kept.append(f"{line}\n")
    with atomic_path(log) as partial:
        partial.write_text("".join(kept), encoding="utf-8")
