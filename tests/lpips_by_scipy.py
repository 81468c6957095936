"""LPIPS-AlexNet with scipy's correlation in float64: an independent computation, weights aside."""

import numpy as np
from scipy.signal import correlate

from talkgs_cli.metrics.lpips import LPIPS


def scipy_lpips(model: LPIPS, a: np.ndarray, b: np.ndarray) -> float:
    """LPIPS-AlexNet of two [3, H, W] images with scipy's correlation, in float64."""
    total = 0.0
    for x, y, head in zip(
        scipy_alexnet(model, a), scipy_alexnet(model, b), model.heads, strict=True
    ):
        weights = head.numpy().astype(float)[0, :, 0, 0]
        total += (weights[:, None, None] * (x - y) ** 2).sum(0).mean()
    return total


def scipy_alexnet(model: LPIPS, image: np.ndarray) -> list[np.ndarray]:
    mean = np.array([-0.030, -0.088, -0.188])[:, None, None]
    std = np.array([0.458, 0.448, 0.450])[:, None, None]
    x = (2 * image.astype(float) - 1 - mean) / std
    normalised = []
    for layer, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        if layer in (1, 2):
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
            x = windows[:, ::2, ::2].max((3, 4))
        kernel = model.kernels[layer].numpy().astype(float)
        padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        full = np.stack([correlate(padded, filters, mode="valid")[0] for filters in kernel])
        bias = model.biases[layer].numpy().astype(float)[:, None, None]
        x = np.maximum(full[:, ::stride, ::stride] + bias, 0)
        normalised.append(x / (np.linalg.norm(x, axis=0, keepdims=True) + 1e-10))
    return normalised
