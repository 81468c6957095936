"""What lies behind a head that is rendered alone: nothing, a colour, a picture or a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.types import Crop

ALPHA = "alpha"
PLAIN = "#808080"  # where a head has to be alone and nobody said before what
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


def colour_of(name: str) -> tuple[int, int, int] | None:
    """RGB of a colour's name or `#rrggbb`; None if it is neither."""
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        return None


def require_background(name: str) -> None:
    """Raise `UsageError` unless it is "alpha", a colour or a file."""
    if name == ALPHA or colour_of(name) is not None or Path(name).is_file():
        return
    raise UsageError(
        f"The background {name!r} is neither a file nor a colour.",
        hint="Give a picture, a video, a colour such as white or #00b140, or alpha.",
    )


def backgrounds(
    name: str, size: tuple[int, int], frame_rate: Fraction
) -> Iterator[NDArray[np.uint8]]:
    """Pictures of that size without end; a video starts again when it is over.

    Args:
        name: A colour or a file.
        size: (height, width).
        frame_rate: Of the output.
    """
    colour = colour_of(name)
    if colour is not None:
        plain = np.full((*size, 3), colour, np.uint8)
        while True:
            yield plain
    path = Path(name)
    if path.suffix.lower() in PICTURES:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if picture is None:
            raise BadInput(f"{path} can't be read as a picture.", hint="Give a .png or .jpg file.")
        fitted = covering(np.asarray(picture, np.uint8), size)
        while True:
            yield fitted
    from talkgs_cli.media.video import read_frames

    while True:
        with closing(read_frames(path, frame_rate=frame_rate)) as frames:
            for frame in frames:
                yield covering(frame, size)


def covering(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a [h, w, 3] picture until it covers `size`, and cut off what is too much."""
    scale = max(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(round(n * scale), m) for n, m in zip(picture.shape[:2], size, strict=True))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, (width, height), interpolation=kind)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return np.ascontiguousarray(scaled[top : top + size[0], left : left + size[1]])


def over(
    rgb: NDArray[np.float32], alpha: NDArray[np.float32], under: NDArray[np.uint8], crop: Crop
) -> NDArray[np.uint8]:
    """A rendered head before a background.

    Args:
        rgb: [S, S, 3] premultiplied by alpha.
        alpha: [S, S].
        under: [H, W, 3] frame, not changed.
        crop: Where the rendered square lies in it.
    """
    there, here = overlap(under.shape, crop)
    rgb, alpha = at_frame_scale(rgb, crop)[here], at_frame_scale(alpha, crop)[here]
    made = under.copy()
    mixed = rgb * 255 + under[there] * (1 - alpha)[..., None]
    made[there] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return made


def alone(
    rgb: NDArray[np.float32], alpha: NDArray[np.float32], size: tuple[int, int], crop: Crop
) -> NDArray[np.uint8]:
    """[H, W, 4] uint8 RGBA of a rendered head, colours not premultiplied; see `over`."""
    there, here = overlap(size, crop)
    rgb, alpha = at_frame_scale(rgb, crop)[here], at_frame_scale(alpha, crop)[here]
    made = np.zeros((*size, 4), np.uint8)
    pixels = np.dstack([rgb / np.maximum(alpha, 1e-3)[..., None], alpha])
    made[there] = np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8)
    return made


def at_frame_scale(image: NDArray[np.float32], crop: Crop) -> NDArray[np.float32]:
    """A [S, S, ...] image of the crop, as large as the crop is in the frame."""
    if crop.side == crop.size:
        return image
    side = (crop.side, crop.side)
    return np.asarray(cv2.resize(image, side, interpolation=cv2.INTER_LINEAR), np.float32)


def overlap(size: tuple[int, ...], crop: Crop) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the crop lies in a frame of `size`, and that part in the crop."""
    y0, y1 = max(crop.top, 0), min(crop.top + crop.side, size[0])
    x0, x1 = max(crop.left, 0), min(crop.left + crop.side, size[1])
    here = np.s_[y0 - crop.top : y1 - crop.top, x0 - crop.left : x1 - crop.left]
    return np.s_[y0:y1, x0:x1], here
