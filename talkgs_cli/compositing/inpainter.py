"""`Inpainter`: the fitted Inpainting Generator at work on one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.compositing.feather import ALPHA_GAIN, straight
from talkgs_cli.compositing.seam import SeamGrid, SeamView, shrink, shrink_bytes
from talkgs_cli.networks.inpainting import InpaintingGenerator, channels_last

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass
class SeamMaps:
    """How to join a render and a frame inside a window, at working resolution.

    Attributes:
        corner: (top, left) of the window in the crop, working pixels.
        factor: Crop pixels per working pixel.
        values: [6, h, w] share of the render; from how much further on the frame's pixel is
            fetched, (x, y) crop pixels; what is added to each colour, full range 1.
    """

    corner: tuple[int, int]
    factor: int
    values: Floats

    def in_frame_pixels(self, frame_pixels: float) -> Floats:
        """[6, h, w] with shifts in pixels of a frame and colours on the scale of 255.

        Args:
            frame_pixels: Frame pixels per crop pixel.
        """
        units = np.array([1, frame_pixels, frame_pixels, 255, 255, 255], np.float32)
        return self.values * units[:, None, None]


class Inpainter:
    """Runs the network on what lies round the seam."""

    def __init__(self, generator: InpaintingGenerator) -> None:
        self.generator = channels_last(generator.eval())
        about = generator.about
        self.grid = SeamGrid(about.crop_size, about.factor, about.window)
        self.side = about.crop_size // about.factor  # working pixels

    @torch.no_grad()
    def correct(self, rgb: Floats, alpha: Floats, reference: Bytes, label: Bytes) -> SeamMaps:
        """Find out how a render and the frame underneath are to be joined.

        Args:
            rgb: [S, S, 3] premultiplied render.
            alpha: [S, S].
            reference: [S, S, 3] crop of the frame underneath.
            label: [S, S] its label image.
        """
        factor = self.grid.factor
        small_alpha = shrink(alpha, factor)
        corner = self.grid.corner(small_alpha)
        view = seam_view(self.grid, corner, rgb, small_alpha, reference, label)
        given = view.inputs(self.generator.about.hole, self.side)
        seen = channels_last(torch.from_numpy(given.channels)[None])
        band = torch.from_numpy(given.band)[None, None]
        answer = self.generator(seen, band)
        values = torch.cat(list(answer.values()), dim=1)[0].contiguous().numpy()  # [6, h, w]
        share, shift = values[0], values[1:3]
        share += given.weight
        most = np.minimum(view.alpha * ALPHA_GAIN, np.float32(1))
        np.clip(share, np.minimum(given.least, most), most, out=share)
        shift *= factor
        return SeamMaps(corner, factor, values)


def seam_view(
    grid: SeamGrid,
    corner: tuple[int, int],
    rgb: Floats,
    small_alpha: Floats,
    reference: Bytes,
    label: Bytes,
) -> SeamView:
    """Cut the window out of a crop and bring it to working resolution.

    Args:
        grid: Resolution and size of the window.
        corner: Its (top, left), working pixels.
        rgb: [S, S, 3] premultiplied render.
        small_alpha: [s, s] its alpha, at working resolution already.
        reference: [S, S, 3] crop of the frame underneath.
        label: [S, S] its label image.
    """
    factor = grid.factor
    (top, left), (height, width) = corner, grid.window
    small = np.s_[top : top + height, left : left + width]
    large = np.s_[top * factor : (top + height) * factor, left * factor : (left + width) * factor]
    alpha = np.ascontiguousarray(small_alpha[small])
    centre = factor // 2
    return SeamView(
        straight(shrink(rgb[large], factor), alpha),
        alpha,
        shrink_bytes(reference[large], factor),
        np.ascontiguousarray(label[large][centre::factor, centre::factor]),
    )
