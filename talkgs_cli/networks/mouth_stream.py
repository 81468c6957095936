"""`MouthStream`: mouths come out a fixed time after the sound came in."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from talkgs_cli.networks.base_translator import PRIOR_SAMPLES
from talkgs_cli.networks.timing import FEATURE_RATE_HZ, sample_at

if TYPE_CHECKING:
    from talkgs_cli.networks.motion_translator import MotionTranslator


class MouthStream:
    """The state of one stream: the last components heard, and which frame comes next."""

    def __init__(
        self,
        translator: MotionTranslator,
        frame_rate: Fraction,
        gain: float,
        voice_mean: Tensor | None,
    ) -> None:
        self.translator = translator
        self.frame_rate = frame_rate
        self.gain = gain
        self.fixed_mean = voice_mean
        self.mean = translator.feature_mean if voice_mean is None else voice_mean
        self.weight = PRIOR_SAMPLES
        self.heard = 0  # samples so far
        self.kept = torch.zeros(0, translator.about.components)  # the last of them
        self.next_frame = 0

    @torch.no_grad()
    def hear(self, features: Tensor) -> Tensor:
        """[t, M] frames that [k, D] more features decide."""
        if self.fixed_mean is None and self.translator.base is not None:
            self._learn_voice(features)
        components = self.translator.project(features, self.mean)
        self.kept = torch.cat([self.kept, components])
        self.heard += len(components)
        return self._frames(self.heard - self.translator.look_ahead_samples)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """[t, M] the frames left when the sound has ended."""
        return self._frames(self.heard, ended=True)

    def _learn_voice(self, features: Tensor) -> None:
        base = self.translator.base
        assert base is not None
        active = base.curves(base.components(features, self.mean))[:, 2] > 0.5
        count = float(active.sum())
        total = self.mean * self.weight + features[active].sum(0)
        self.weight += count
        self.mean = total / self.weight

    def _frames(self, decided: int, ended: bool = False) -> Tensor:
        """Frames that read codes before sample `decided`."""
        translator = self.translator
        rate = float(self.frame_rate)
        lag_s = translator.played_lag_s()
        last_s = self.heard / FEATURE_RATE_HZ if ended else (decided - 2) / FEATURE_RATE_HZ - lag_s
        stop = int(np.floor(last_s * rate + (0.5 if ended else -0.5))) + (0 if ended else 1)
        if stop <= self.next_frame or not len(self.kept):
            return torch.zeros(0, translator.about.mouth_size)
        first = self.heard - len(self.kept)
        codes = translator.codes(self.kept, self.gain).numpy()
        times_s = (np.arange(self.next_frame, stop) + 0.5) / rate + lag_s
        mouth = translator.decode(
            torch.from_numpy(sample_at(codes, times_s - first / FEATURE_RATE_HZ))
        )
        self.next_frame = stop
        needed = int((stop + 0.5) / rate * FEATURE_RATE_HZ + lag_s * FEATURE_RATE_HZ)
        drop = needed - translator.look_ahead_samples - 1 - first
        if drop > 0:
            self.kept = self.kept[drop:].clone()
        return mouth
