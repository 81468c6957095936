"""`Compositor`: puts a rendered face into a frame of the speaker.

It knows pixels only: nothing of heads, Gaussians or which frame lies underneath.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.compositing.feather import blend_mask, feather_px
from talkgs_cli.compositing.inpainter import Inpainter, SeamMaps
from talkgs_cli.compositing.numba_join import blend, join
from talkgs_cli.networks.inpainting import InpaintingGenerator
from talkgs_cli.types import Crop

if TYPE_CHECKING:
    from talkgs_cli.speaker import SpeakerFolder

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Compositor:
    """Pastes rendered crops into original frames.

    Args:
        crop: Where the rendered square lies in the original frame.
        inpainter: Joins face and frame where they meet; without one the edge is feathered.
    """

    def __init__(self, crop: Crop, inpainter: Inpainter | None = None) -> None:
        self.crop = crop
        self.inpainter = inpainter

    @classmethod
    def load(
        cls, speaker: SpeakerFolder, *, inpaint: bool = True, crop: Crop | None = None
    ) -> Compositor:
        """The compositor of a fitted speaker, with its Inpainting Generator if it has one.

        Args:
            speaker: A fitted speaker.
            inpaint: False: the edge is feathered.
            crop: Where the rendered square lies in the frames, if not where `prepare` cut it.
        """
        if inpaint and speaker.inpainting.is_file():
            generator = InpaintingGenerator.load(speaker.inpainting)
            return cls(crop or speaker.crop, Inpainter(generator))
        return cls(crop or speaker.crop)

    def paste(self, rgb: Floats, alpha: Floats, frame: Bytes, label: Bytes | None = None) -> Bytes:
        """Put a rendered face over an *original* frame, at that frame's own resolution.

        Args:
            rgb: [S, S, 3] premultiplied by alpha, as `Avatar.render` yields it.
            alpha: [S, S].
            frame: [H, W, 3] uint8 original frame; not changed.
            label: [S, S] label image of that frame: cloth and hair are not painted over. Without
                it the edge is feathered.

        Returns:
            [H, W, 3] uint8.
        """
        there, here = self._overlap(frame.shape)
        rgb_there = self._at_frame_scale(rgb, cv2.INTER_CUBIC)
        alpha_there = self._at_frame_scale(alpha, cv2.INTER_LINEAR)
        frame = np.ascontiguousarray(frame)  # for a cut-out the kernels would be compiled again
        pasted = frame.copy()
        if self.inpainter is not None and label is not None:
            maps = self.inpainter.correct(rgb, alpha, self._crop_of(frame), label)
            self._join(rgb_there, alpha_there, frame, maps, pasted)
        else:
            mask = blend_mask(alpha, label, feather_px(self.crop.size))
            weight = self._at_frame_scale(mask, cv2.INTER_LINEAR)
            blend(rgb_there[here], alpha_there[here], weight[here], pasted[there])
        return pasted

    def share(self, alpha: Floats, size: tuple[int, int], label: Bytes | None = None) -> Floats:
        """[H, W] share of the render in each pixel of a feathered composite of `size`."""
        mask = blend_mask(alpha, label, feather_px(self.crop.size))
        weight = self._at_frame_scale(mask, cv2.INTER_LINEAR)
        there, here = self._overlap(size)
        share = np.zeros(size, np.float32)
        share[there] = weight[here]
        return share

    def _join(
        self, rgb: Floats, alpha: Floats, frame: Bytes, maps: SeamMaps, pasted: Bytes
    ) -> None:
        """Put render and frame together as the network says, inside its window.

        Args:
            rgb: [S', S', 3] premultiplied render at the frame's scale.
            alpha: [S', S'].
            frame: [H, W, 3].
            maps: What the network says.
            pasted: [H, W, 3] copy of the frame; changed.
        """
        crop, step = self.crop, self.crop.scale / maps.factor
        corner = (crop.top, crop.left)
        there, starts = [], []
        for axis, origin in enumerate(corner):
            first = origin + maps.corner[axis] / step
            last = first + maps.values.shape[axis + 1] / step
            low, high = max(int(first), 0), min(int(np.ceil(last)), frame.shape[axis])
            there.append(slice(low, min(high, origin + crop.side)))
            starts.append((low + 0.5 - origin) * step - 0.5 - maps.corner[axis])
        rows, columns = there
        here = np.s_[
            rows.start - crop.top : rows.stop - crop.top,
            columns.start - crop.left : columns.stop - crop.left,
        ]
        values = maps.in_frame_pixels(1 / crop.scale)
        join(
            rgb[here],
            alpha[here],
            frame,
            values,
            (rows.start, columns.start),
            (starts[0], starts[1]),
            step,
            pasted[rows, columns],
        )

    def _crop_of(self, frame: Bytes) -> Bytes:
        """[S, S, 3] the crop of an original frame; beyond the frame its edge goes on."""
        crop = self.crop
        there, here = self._overlap(frame.shape)
        square = frame[there]
        if square.shape[:2] != (crop.side, crop.side):
            rows, columns = here
            above, left = rows.start, columns.start
            below, right = crop.side - rows.stop, crop.side - columns.stop
            square = np.pad(square, ((above, below), (left, right), (0, 0)), mode="edge")
        if crop.side == crop.size:
            return square
        method = cv2.INTER_AREA if crop.side > crop.size else cv2.INTER_LINEAR
        return np.asarray(
            cv2.resize(square, (crop.size, crop.size), interpolation=method), np.uint8
        )

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
