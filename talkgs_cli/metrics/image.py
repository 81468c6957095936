"""PSNR and SSIM of two images, whole or over a mask; it reads no files and knows no faces.

Images are RGB in [0, 1], [H, W, 3]. SSIM is scikit-image's with the settings of Wang et al. 2004:
11 x 11 Gaussian window of sigma 1.5, population statistics, mean over the three channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PSNR_CAP_DB = 100.0
"""Equal images have no finite PSNR: it stops here, so that means stay finite."""

SSIM_RADIUS_PX = 5  # half of the 11-pixel window

Image = NDArray[np.floating]


def psnr(image: Image, target: Image) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB, at most `PSNR_CAP_DB`.

    >>> grey = np.full((4, 4, 3), 0.5)
    >>> round(psnr(grey + 0.1, grey), 4)
    20.0
    >>> psnr(grey, grey)
    100.0
    """
    return _decibels(float(np.mean(_squared_error(image, target))))


def masked_psnr(image: Image, target: Image, mask: NDArray[np.bool_]) -> float | None:
    """PSNR over the pixels of a mask only; None when the mask is empty.

    Args:
        image: [H, W, 3].
        target: [H, W, 3].
        mask: [H, W].

    >>> target = np.zeros((4, 4, 3))
    >>> image = target.copy()
    >>> image[:2] = 0.01  # wrong in the upper half only
    >>> upper = np.arange(4)[:, None] < np.full(4, 2)
    >>> round(masked_psnr(image, target, upper), 6), masked_psnr(image, target, ~upper)
    (40.0, 100.0)
    """
    if not mask.any():
        return None
    return _decibels(float(np.mean(_squared_error(image, target)[mask])))


def ssim_map(image: Image, target: Image) -> NDArray[np.float32]:
    """Structural similarity around every pixel, mean over the channels.

    Pixels whose window sees no difference are 1 by definition, so only the part of the images that
    differs is computed. Borders are mirrored.

    Returns:
        [H, W], 1 where the images agree.

    >>> dim, bright = np.full((16, 16, 3), 0.25), np.full((16, 16, 3), 0.5)
    >>> float(ssim_map(dim, dim).min())
    1.0
    >>> round(float(ssim_map(dim, bright).mean()), 4)  # (2 ab + 1e-4) / (a^2 + b^2 + 1e-4)
    0.8001
    """
    from skimage.metrics import structural_similarity

    result = np.ones(image.shape[:2], np.float32)
    box = _differing_box(image, target, margin=2 * SSIM_RADIUS_PX)
    if box is None:
        return result
    _, found = structural_similarity(
        np.asarray(image[box], np.float32),
        np.asarray(target[box], np.float32),
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    result[box] = found.mean(-1)
    return result


def ssim(image: Image, target: Image) -> float:
    """Mean of `ssim_map` over all pixels, borders included.

    >>> checks = (np.indices((32, 32)).sum(0) % 2).astype(np.float32)[..., None].repeat(3, 2)
    >>> ssim(checks, checks)
    1.0
    >>> ssim(1 - checks, checks) < -0.9
    True
    """
    return float(ssim_map(image, target).mean(dtype=np.float64))


def masked_ssim(similarity: NDArray[np.floating], mask: NDArray[np.bool_]) -> float | None:
    """Mean of an SSIM map over a mask; None when the mask is empty.

    The windows of pixels at the mask's edge look beyond it.

    >>> masked_ssim(np.array([[1.0, 0.5]]), np.array([[False, True]]))
    0.5
    """
    return float(similarity[mask].mean(dtype=np.float64)) if mask.any() else None


def _squared_error(image: Image, target: Image) -> Image:
    if image.shape != target.shape:
        raise ValueError(f"images of different shapes: {image.shape} and {target.shape}")
    return np.square(np.asarray(image, np.float32) - np.asarray(target, np.float32))


def _decibels(mean_squared_error: float) -> float:
    return float(-10 * np.log10(max(mean_squared_error, 10 ** (-PSNR_CAP_DB / 10))))


def _differing_box(image: Image, target: Image, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns that contain every difference, with a margin; None for equal images."""
    differs = np.any(image != target, axis=-1)
    if not differs.any():
        return None
    box = []
    for axis, length in ((1, image.shape[0]), (0, image.shape[1])):
        where = np.flatnonzero(differs.any(axis))
        low, high = max(0, int(where[0]) - margin), min(length, int(where[-1]) + 1 + margin)
        short = max(
            0, min(length, 2 * SSIM_RADIUS_PX + 1) - (high - low)
        )  # a whole window must fit
        low = max(0, low - short)
        box.append(slice(low, min(length, max(high, low + 2 * SSIM_RADIUS_PX + 1))))
    return box[0], box[1]
