"""Gaussian smoothing of a curve over time, and how far it sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkgs_cli.networks.timing import FEATURE_RATE_HZ


def reach_of(sigma_s: float) -> int:
    """Samples to each side that `smooth` sees."""
    return max(1, int(np.ceil(3 * sigma_s * FEATURE_RATE_HZ)))


def smooth(curve: Tensor, sigma_s: float) -> Tensor:
    """Gaussian over time of a [n, Z] curve at 50 Hz, ends held."""
    sigma = sigma_s * FEATURE_RATE_HZ
    if sigma <= 0:
        return curve
    reach = reach_of(sigma_s)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    padded = F.pad(curve.T[:, None], (reach, reach), mode="replicate")  # [Z, 1, n + 2 reach]
    return F.conv1d(padded, (kernel / kernel.sum()).to(curve)[None, None])[:, 0].T
