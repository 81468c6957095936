"""Optimises a speaker's Gaussians, blendshapes and head embedding (paper, section 3.3).

One frame a step. Everything random is drawn from (seed, step), so that a fit continued from a
checkpoint takes exactly the steps an uninterrupted one would have taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.landmark_points import EYES, LIPS_INNER, LIPS_OUTER
from talkgs_cli.metrics.eyes import CLOSED_SHARE, eye_opening
from talkgs_cli.metrics.lips import opening
from talkgs_cli.rendering.gaussian_head import GaussianHead
from talkgs_cli.training.checkpoint import restore_tensors, tensors_of
from talkgs_cli.training.density import DensityControl, carried, grown
from talkgs_cli.training.frames import FrameWindows, TrainingFrame, WantedFrame
from talkgs_cli.training.head_embedding import make_embedding
from talkgs_cli.training.objective import Objective

RATES = {
    "barycentric": "lr_barycentric",
    "offset": "lr_offset",
    "quats": "lr_quats",
    "log_scales": "lr_scales",
    "opacity_logits": "lr_opacities",
    "sh0": "lr_sh0",
    "shN": "lr_sh_rest",
    "position_basis": "lr_position_basis",
    "rotation_basis": "lr_rotation_basis",
    "color_basis": "lr_color_basis",
}
NETWORKS = ("w_gamma", "w_pos", "w_rot", "w_color")
BLENDSHAPES = ("position_basis", "rotation_basis", "color_basis", *NETWORKS)
WIDE = 0.25  # of the training frames
MOST_DRAWS = 8  # of one frame in an epoch: more learns it by heart
# A frame seen more often is no longer corrected: its row would learn it by heart, and unseen
# frames, which have none, suffer. Then the Gaussians get used to the track as it is.
MOST_CORRECTED = 15
MEAN_EVERY = 4  # steps between two updates of the running mean of weights
JUDGED = 12  # frames of the validation block that are looked at
LOG_EVERY = 100
MOST_BAD_STEPS = 20  # without a finite gradient, before the fit goes back
DIVERGED = 6.0  # times the lowest smoothed loss; LPIPS joining may double it
MOST_ROLLBACKS = 4

Log = Callable[[dict[str, float | None]], None]


class GaussianTrainer:
    """State of one fit and its step.

    Args:
        avatar: The avatar to be trained, in place.
        windows: Where the frames come from.
        train: [T'] frame numbers to learn from.
        config: Weights and rates.
        judged: Frame numbers that choose the best weights; none: the last weights are kept.
        device: Where the Gaussians live.
    """

    def __init__(
        self,
        avatar: Avatar,
        windows: FrameWindows,
        train: Tensor,
        config: FitConfig,
        judged: list[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.avatar, self.windows, self.train, self.config = avatar, windows, train, config
        self.device = device or torch.device("cpu")
        row_of = {int(frame): row for row, frame in enumerate(train)}
        self.embedding = make_embedding(avatar, train, config)
        self.objective = Objective(avatar, self.embedding, row_of, config, self.device)
        draws = self._draws()
        self.drawn = train.repeat_interleave(draws)
        self.draws_of = dict(zip(train.tolist(), draws.tolist(), strict=True))  # in an epoch
        judged = judged or []
        self.judged = judged[:: max(1, -(-len(judged) // JUDGED))]
        self.density = DensityControl(len(avatar.gaussians), config)
        self.step, self.spent_s = 0, 0.0
        self.smooth, self.lowest = math.nan, math.inf  # running mean of the loss
        self.bad_steps, self.rollbacks = 0, 0
        self.mean_weights: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_value = math.inf
        self.use(avatar.gaussians.to(self.device))
        self.safe = self.copy_state()

    def _draws(self) -> Tensor:
        """[T'] how often each training frame is drawn in an epoch: what is rare, more often."""
        landmarks, config = self.avatar.tracking.landmarks, self.config
        mouths = torch.from_numpy(opening(landmarks))[self.train]
        eyes = torch.from_numpy(eye_opening(landmarks))[self.train]
        draws = torch.ones(len(self.train), dtype=torch.int64)
        draws[mouths >= mouths.quantile(1 - WIDE)] = config.wide_mouth_draws
        shut = eyes < CLOSED_SHARE * eyes.median()  # or on their way
        if shut.any():
            others = int(draws[~shut].sum())
            share = config.shut_eye_share
            wanted = round(share / (1 - share) * others / int(shut.sum()))
            draws[shut] = draws[shut].clamp_min(min(wanted, MOST_DRAWS))
        return draws

    @property
    def gaussians(self) -> GaussianHead:
        """The Gaussians as they are now."""
        return self.avatar.gaussians

    def use(self, gaussians: GaussianHead) -> None:
        """Train these Gaussians from now on, with an optimiser that remembers nothing."""
        config = self.config
        self.avatar.gaussians = gaussians
        if not config.blendshapes:
            for name in BLENDSHAPES:
                for parameter in _tensors(getattr(gaussians, name)):
                    parameter.requires_grad_(False)
        groups = [
            {"params": _tensors(getattr(gaussians, name)), "name": name, "rate": rate}
            for name, rate in {**RATES, **{n: f"lr_{n}" for n in NETWORKS}}.items()
            if config.blendshapes or name not in BLENDSHAPES
        ]
        rows = [
            {"params": [getattr(self.embedding, tensor)], "name": tensor, "rate": rate}
            for tensor, rate in (self.embedding.rates() if self.embedding else {}).items()
        ]
        self.full_rates = [
            float(getattr(config, str(group.pop("rate")))) for group in (*groups, *rows)
        ]
        dense = torch.optim.Adam(groups, lr=0.0, eps=1e-15, betas=(0.9, 0.99), fused=True)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"optimizer": dense}
        if rows:
            # A row is seen once or thrice an epoch. Ordinary Adam would go on moving it in between,
            # and then jump by ten times the rate: its running mean square has faded by then.
            self.optimizers["rows"] = torch.optim.SparseAdam(rows, lr=1.0, betas=(0.9, 0.99))

    # -- one step --------------------------------------------------------------------------------

    def order(self) -> Iterator[WantedFrame]:
        """Frames of the steps still to come, without end: shuffled epochs from (seed, epoch)."""
        per_epoch = len(self.drawn)
        step = self.step
        while True:
            epoch, at = divmod(step, per_epoch)
            if at == 0 or step == self.step:
                generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
                shuffled = self.drawn[torch.randperm(per_epoch, generator=generator)].tolist()
            coarse = self._done_at(step) < self.config.coarse_until
            yield WantedFrame(shuffled[at], self.windows.halvings if coarse else 0)
            step += 1

    @property
    def done(self) -> float:
        """Share of the fit behind us: of the minutes if they are given, else of the steps."""
        return self._done_at(self.step)

    def _done_at(self, step: int) -> float:
        if self.config.minutes is not None:
            return self.spent_s / (60 * self.config.minutes)
        return step / self.config.iterations

    def take_step(self, frame: TrainingFrame) -> float:
        """One optimiser step; returns the loss. A step without finite gradients changes nothing."""
        done = min(self.done, 1.0)
        self._set_rates(done)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss = self.objective.loss(
            frame, self.step, done, embedded=self._corrected(frame.index, done)
        )
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()
        self.step += 1
        if math.isfinite(value) and self._gradients_are_finite():
            for optimizer in self.optimizers.values():
                optimizer.step()
            self.bad_steps = 0
            self.smooth = value if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * value
        else:  # one broken frame must not spoil the speaker
            self.bad_steps += 1
        return value

    def _corrected(self, frame: int, done: float) -> bool:
        """Whether a frame's own corrections apply in this step."""
        epoch = self.step // len(self.drawn)
        worn = self.config.embedding == "modes" and epoch * self.draws_of[frame] >= MOST_CORRECTED
        return done >= self.config.motion_from and not worn

    def _set_rates(self, done: float) -> None:
        config = self.config
        over = max(0.0, (done - config.decay_from) / (1 - config.decay_from))
        decay = config.decay_to**over
        careful = 0.5**self.rollbacks
        for group, full in zip(self._groups(), self.full_rates, strict=True):
            share = min(1.0, 2 * config.decay_to) ** done if group["name"] == "sh0" else decay
            group["lr"] = full * share * careful

    def _groups(self) -> list[dict[str, Any]]:
        return [group for one in self.optimizers.values() for group in one.param_groups]

    def _gradients_are_finite(self) -> bool:
        total = sum(
            float(p.grad.sum())
            for group in self._groups()
            for p in group["params"]
            if p.grad is not None
        )
        return math.isfinite(total)

    # -- between steps ---------------------------------------------------------------------------

    def run(self, log: Log) -> Iterator[int]:
        """Take all remaining steps; yields the step count after each one.

        Raises:
            BadInput: the loss keeps growing, whatever the rates.
        """
        if self.done >= 1:
            return
        for frame in self.windows.stream(self.order()):
            started = time.monotonic()
            self.take_step(frame.to(self.device))
            self._after_step(frame, log)
            self.spent_s += time.monotonic() - started
            # After the clock, which says whether this was the last step of a fit by the minute.
            if self.step % self.config.validate_every == 0 or self.done >= 1:
                self._validate(log)
            if self.step % LOG_EVERY == 0 or self.done >= 1:
                per_step = round(self.spent_s / self.step, 4)
                loss = None if math.isnan(self.smooth) else round(self.smooth, 5)
                log({"step": self.step, "loss": loss, "s_per_step": per_step})
            yield self.step
            if self.done >= 1:
                return

    def _after_step(self, frame: TrainingFrame, log: Log) -> None:
        means2d = self.objective.means2d
        broken = self.bad_steps > 0  # its gradients may hold a NaN, which a sum would keep
        if means2d is not None and hasattr(means2d, "absgrad") and not broken:
            height, width = frame.mask.shape
            self.density.collect(means2d, (height, width))
        if self.density.due(self.step, self.done):
            self._grow()
        if self.config.mean_of_steps and self.step % MEAN_EVERY == 0:
            self._update_mean()
        if self.bad_steps >= MOST_BAD_STEPS or self.smooth > DIVERGED * self.lowest:
            self._go_back(log)

    def _validate(self, log: Log) -> None:
        """Judge the weights; these are what a fit that diverges goes back to."""
        started = time.monotonic()
        self._judge(log)
        self.lowest = min(self.lowest, self.smooth)
        self.safe = self.copy_state()
        self.spent_s += time.monotonic() - started

    def _grow(self) -> None:
        stay, parents = self.density.rows(self.gaussians)
        remembered = {
            (kind, str(group["name"])): [optimizer.state.get(p, {}) for p in group["params"]]
            for kind, optimizer in self.optimizers.items()
            for group in optimizer.param_groups
        }
        self.use(grown(self.gaussians, stay, parents, self.config.seed * 104_729 + self.step))
        for kind, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                old = remembered[kind, str(group["name"])]
                for parameter, state in zip(group["params"], old, strict=True):
                    if state and group["name"] in RATES:
                        state = carried(state, str(group["name"]), stay, len(parents))
                    if state:
                        optimizer.state[parameter] = state
        self.mean_weights, self.best, self.best_value = {}, {}, math.inf
        self.density.reset(len(self.gaussians))

    def _update_mean(self) -> None:
        weights = {name: p.detach() for name, p in self.gaussians.named_parameters()}
        if not self.mean_weights:
            self.mean_weights = {name: value.clone() for name, value in weights.items()}
            return
        share = min(1.0, MEAN_EVERY / self.config.mean_of_steps)
        names = list(weights)  # a mean that comes from a checkpoint has another order
        mean = [self.mean_weights[name] for name in names]
        torch._foreach_lerp_(mean, [weights[name] for name in names], share)

    def _judge(self, log: Log) -> None:
        """Look at the validation block, and keep these weights if they are the best so far."""
        if not self.judged:
            return
        training = {n: p.detach().clone() for n, p in self.gaussians.named_parameters()}
        self._put(self.mean_weights)
        verdicts = [
            self.objective.judge(self.windows.load(index).to(self.device)) for index in self.judged
        ]
        value = sum(loss for loss, _ in verdicts) / len(verdicts)
        psnr = sum(decibels for _, decibels in verdicts) / len(verdicts)
        log({"step": self.step, "validation": round(value, 5), "validation_psnr": round(psnr, 3)})
        if value <= self.best_value and self.done >= self.config.judged_from:
            self.best_value = value
            self.best = {n: v.detach().clone() for n, v in self.gaussians.state_dict().items()}
        self._put(training)

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.gaussians.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    def copy_state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step."""
        return {name: value.detach().clone() for name, value in tensors_of(self).items()}

    def _go_back(self, log: Log) -> None:
        """Back to the last weights that were good, at half the rates."""
        self.rollbacks += 1
        if self.rollbacks > MOST_ROLLBACKS:
            raise BadInput(
                f"The fit diverged {self.rollbacks} times, the last time at step {self.step}.",
                hint="Look at report.html: is the face tracked well? Try another --seed.",
            )
        log({"step": self.step, "rollback": self.rollbacks})
        restore_tensors(self, {name: value.clone() for name, value in self.safe.items()})
        self.bad_steps, self.smooth, self.lowest = 0, math.nan, math.inf

    def finish(self) -> None:
        """Leave the weights that are deployed in the avatar, on the CPU."""
        if self.best:
            self.avatar.gaussians = GaussianHead.from_state(self.best)
        else:
            self._put(self.mean_weights)
        self.avatar.gaussians.to("cpu")


def _tensors(value: nn.Parameter | nn.Module) -> list[nn.Parameter]:
    return [value] if isinstance(value, nn.Parameter) else list(value.parameters())


def landmark_weights(landmark_index: Tensor) -> Tensor:
    """[L] how much each landmark counts in the driving code: lips 2, eyes 1.5, the rest 0.3."""
    weights = torch.full((len(landmark_index),), 0.3)
    lips = torch.tensor([*LIPS_OUTER, *LIPS_INNER])
    weights[torch.isin(landmark_index, torch.tensor(EYES))] = 1.5
    weights[torch.isin(landmark_index, lips)] = 2.0
    return weights
