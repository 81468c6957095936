"""What a fit needs to continue exactly where it was: a dictionary of tensors and a few numbers.

On disk: `state.safetensors` and `step.json` in a folder that appears whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from talkgs_cli.avatar import DrivingCode
from talkgs_cli.rendering.gaussian_head import GaussianHead

if TYPE_CHECKING:
    from talkgs_cli.training.gaussians import GaussianTrainer

NUMBERS = ("step", "spent_s", "smooth", "lowest", "bad_steps", "rollbacks", "best_value")


def tensors_of(trainer: GaussianTrainer) -> dict[str, Tensor]:
    """Everything that changes from step to step, not copied."""
    state = {f"model.{k}": v for k, v in trainer.gaussians.state_dict().items()}
    if trainer.embedding is not None:
        state |= {f"embedding.{k}": v for k, v in trainer.embedding.state_dict().items()}
    for kind, optimizer in trainer.optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            # SparseAdam counts its steps in a plain number.
            state |= {f"{kind}.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()}
    state |= {f"mean.{name}": value for name, value in trainer.mean_weights.items()}
    state |= {f"best.{name}": value for name, value in trainer.best.items()}
    state |= {"pull": trainer.density.pull, "visits": trainer.density.visits}
    return state


def restore_tensors(trainer: GaussianTrainer, state: dict[str, Tensor]) -> None:
    """Put back what `tensors_of` gave."""
    trainer.use(GaussianHead.from_state(part(state, "model.")).to(trainer.device))
    if trainer.embedding is not None:
        trainer.embedding.load_state_dict(part(state, "embedding."))
    for kind, optimizer in trainer.optimizers.items():
        entries: dict[int, dict[str, Any]] = {}
        for name, value in part(state, f"{kind}.").items():
            index, field = name.split(".")
            counted = kind == "rows" and field == "step"
            entries.setdefault(int(index), {})[field] = int(value) if counted else value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    mean = part(state, "mean.")
    trainer.mean_weights = {name: value.to(trainer.device) for name, value in mean.items()}
    trainer.best = part(state, "best.")
    trainer.density.pull, trainer.density.visits = state["pull"], state["visits"]


def save_checkpoint(trainer: GaussianTrainer, folder: Path) -> None:
    """Write everything a continued fit needs (atomically, by renaming the folder)."""
    from safetensors.torch import save_file

    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    state = tensors_of(trainer)
    state |= {f"code.{k}": v for k, v in vars(trainer.avatar.code).items()}
    state |= {f"safe.{k}": v for k, v in trainer.safe.items()}
    save_file({k: v.contiguous() for k, v in state.items()}, partial / "state.safetensors")
    numbers: dict[str, Any] = {name: getattr(trainer, name) for name in NUMBERS}
    (partial / "step.json").write_text(json.dumps(numbers), encoding="utf-8")
    partial.replace(folder)


def load_checkpoint(trainer: GaussianTrainer, folder: Path) -> None:
    """Continue where `save_checkpoint` stopped."""
    from safetensors.torch import load_file

    state = load_file(folder / "state.safetensors")
    trainer.avatar.code = DrivingCode(**part(state, "code."))
    trainer.objective.codes = trainer.avatar.codes(trainer.avatar.tracking.motion)
    restore_tensors(trainer, state)
    numbers = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    for name in NUMBERS:
        setattr(trainer, name, numbers[name])
    trainer.safe = part(state, "safe.")


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
