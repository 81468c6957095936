"""`Compositor`: puts a rendered face into a frame of the speaker.

It knows pixels only: nothing of heads, Gaussians or which frame lies underneath.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.types import LABELS, Crop

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

FEATHER = 0.006  # of the crop's side: width of the soft edge
SOLID = 0.7  # alpha from which the render counts as there


class Compositor:
    """Pastes rendered crops into original frames, with a feathered edge.

    Args:
        crop: Where the rendered square lies in the original frame.
    """

    def __init__(self, crop: Crop) -> None:
        self.crop = crop

    def paste(self, rgb: Floats, alpha: Floats, frame: Bytes, label: Bytes | None = None) -> Bytes:
        """Put a rendered face over an *original* frame, at that frame's own resolution.

        Args:
            rgb: [S, S, 3] premultiplied by alpha, as `Avatar.render` yields it.
            alpha: [S, S].
            frame: [H, W, 3] uint8 original frame; not changed.
            label: [S, S] label image of that frame: cloth and hair are not painted over.

        Returns:
            [H, W, 3] uint8.
        """
        colour = self._at_frame_scale(straight(rgb, alpha), cv2.INTER_CUBIC)
        weight = self._at_frame_scale(blend_mask(alpha, label), cv2.INTER_LINEAR)
        there, here = self._overlap(frame.shape)
        pasted = frame.copy()
        pasted[there] = _blend(colour[here], weight[here], frame[there])
        return pasted

    def share(self, alpha: Floats, size: tuple[int, int], label: Bytes | None = None) -> Floats:
        """[H, W] share of the render in each pixel of what `paste` makes of a frame of `size`."""
        weight = self._at_frame_scale(blend_mask(alpha, label), cv2.INTER_LINEAR)
        there, here = self._overlap(size)
        share = np.zeros(size, np.float32)
        share[there] = weight[here]
        return share

    def _at_frame_scale(self, image: Floats, interpolation: int) -> Floats:
        if self.crop.side == self.crop.size:
            return image
        side = (self.crop.side, self.crop.side)
        return np.asarray(cv2.resize(image, side, interpolation=interpolation), np.float32)

    def _overlap(self, size: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the crop lies in the frame, and that part in the crop: it may reach over the edge.

        Args:
            size: (height, width, ...) of the frame.
        """
        crop = self.crop
        y0, y1 = max(crop.top, 0), min(crop.top + crop.side, size[0])
        x0, x1 = max(crop.left, 0), min(crop.left + crop.side, size[1])
        here = np.s_[y0 - crop.top : y1 - crop.top, x0 - crop.left : x1 - crop.left]
        return np.s_[y0:y1, x0:x1], here


def blend_mask(alpha: Floats, label: Bytes | None = None) -> Floats:
    """[S, S] weight of the render: its solid part, shrunk and feathered.

    A jaw that opens pushes the rendered neck down; where the frame underneath shows a collar
    (`label`), the collar stays.
    """
    feather = max(1.0, alpha.shape[1] * FEATHER)
    shrink = 2 * round(2 * feather) + 1
    solid = (alpha > SOLID).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (shrink, shrink))
    # Closing first: a pinhole in the middle of the face must not become a feathered hole.
    closed = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, kernel)
    if label is not None:
        bare = (label >= LABELS["neck"]).astype(np.uint8)
        closed = cv2.bitwise_and(closed, cv2.dilate(bare, kernel))
    inner = cv2.erode(closed, kernel).astype(np.float32)
    return np.minimum(cv2.GaussianBlur(inner, (0, 0), feather), np.clip(alpha * 1.4, 0, 1))


def straight(rgb: Floats, alpha: Floats) -> Floats:
    """Undo the premultiplication, where there is anything to undo."""
    return np.clip(rgb / np.maximum(alpha, 1e-3)[..., None], 0, 1)


def _blend(colour: Floats, weight: Floats, under: Bytes) -> Bytes:
    share = weight[..., None]
    mixed = colour * 255 * share + under.astype(np.float32) * (1 - share)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
