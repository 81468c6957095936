"""What the Inpainting Generator sees of a render and the frame underneath, in training and in use.

A window at a lower resolution, with the hole and the band in which it may correct.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.compositing.feather import FEATHER, SOLID, blend_mask
from talkgs_cli.networks.inpainting import STRIDE
from talkgs_cli.types import LABELS

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

WORKING_SIDE = 256  # crops larger than this are worked on at a fraction of their resolution
CHIN_REACH = 0.035  # of the crop's side: so far below a face lies the contour of its chin
SHADOW_REACH = 0.12  # and so far the shadow that it throws on the neck
INSIDE = 0.05  # of the crop's side: how far corrections reach into the rendered face
EDGE_PX = 8  # corrections fade out over these last pixels of the window


@dataclass(frozen=True)
class SeamGrid:
    """Where and how finely the seam is worked on.

    Attributes:
        crop_size: Side of the crop, pixels.
        factor: Crop pixels per working pixel.
        window: (height, width) in working pixels, multiples of STRIDE.
    """

    crop_size: int
    factor: int
    window: tuple[int, int]

    @classmethod
    def around(cls, crop_size: int, box: tuple[int, int]) -> SeamGrid:
        """A grid for faces whose holes are at most `box` (height, width) working pixels large."""
        factor = working_factor(crop_size)
        limit = crop_size // factor // STRIDE * STRIDE
        height, width = (min(-(-side // STRIDE) * STRIDE, limit) for side in box)
        return cls(crop_size, factor, (height, width))

    def corner(self, alpha: Floats) -> tuple[int, int]:
        """(top, left) of the window round a render, working pixels.

        Args:
            alpha: [s, s] at working resolution.
        """
        left, top, width, height = cv2.boundingRect((alpha > SOLID).astype(np.uint8))
        corner = []
        for first, count, side in zip((top, left), (height, width), self.window, strict=True):
            centre = first + count / 2 if count else len(alpha) / 2
            # In steps: the network is the same at every place only for multiples of its stride.
            start = round((centre - side / 2) / STRIDE) * STRIDE
            corner.append(int(np.clip(start, 0, (len(alpha) - side) // STRIDE * STRIDE)))
        return corner[0], corner[1]


@dataclass
class SeamView:
    """One window, at working resolution.

    Attributes:
        render: [h, w, 3] straight colours in [0, 1].
        alpha: [h, w].
        reference: [h, w, 3] frame underneath in [0, 1].
        label: [h, w] label image of that frame.
    """

    render: Floats
    alpha: Floats
    reference: Floats
    label: Bytes

    def hole(self, reach_px: float) -> Floats:
        """[h, w] 1 where the render or the frame's own face may be seen, fading over `reach_px`."""
        face = (self.alpha > SOLID) | (self.label >= LABELS["neck"])
        outside = cv2.distanceTransform((~face).astype(np.uint8), cv2.DIST_L2, 3)
        return np.clip(2 - outside / reach_px, 0, 1).astype(np.float32)

    def band(self, hole: Floats, inside_px: float) -> Floats:
        """[h, w] where corrections are allowed: the hole without the middle of the render."""
        solid = (self.alpha > SOLID).astype(np.uint8)
        inside = cv2.distanceTransform(solid, cv2.DIST_L2, 3)
        return np.asarray(
            hole * np.clip(2 - inside / inside_px, 0, 1) * edge_ramp(hole.shape), np.float32
        )

    def below_face(self, side: int) -> Floats:
        """[h, w] 1 where the frame shows the contour of its own face, falling to 0 with its shadow.

        A face's label stops short of its jaw line. Under another mouth what lies there on the neck
        is the old chin, and must not be shown.

        Args:
            side: Side of the whole crop, working pixels.
        """
        beside = (self.label < LABELS["skin"]).astype(np.uint8)
        distance = cv2.distanceTransform(beside, cv2.DIST_L2, 3) / side
        near = np.clip((SHADOW_REACH - distance) / (SHADOW_REACH - CHIN_REACH), 0, 1)
        near[self.label < LABELS["neck"]] = 0
        return np.asarray(cv2.GaussianBlur(near, (0, 0), 1), np.float32)

    def inputs(self, hole_reach: float, side: int) -> SeamInputs:
        """What the network is given.

        Args:
            hole_reach: How far the hole reaches beyond the face, share of the crop's side.
            side: Side of the whole crop, working pixels.
        """
        weight = blend_mask(self.alpha, self.label, max(1.0, side * FEATHER))
        hole = self.hole(hole_reach * side)
        band = self.band(hole, INSIDE * side)
        face = (self.label >= LABELS["neck"]).astype(np.float32)
        # Channels lie last in memory, as the network likes them.
        channels = np.empty((*weight.shape, 10), np.float32)
        np.multiply(self.render, weight[..., None], out=channels[..., :3])
        channels[..., 3] = self.alpha
        channels[..., 4:7] = self.reference
        channels[..., 7] = face
        channels[..., 8] = hole
        channels[..., 9] = weight
        least = weight * self.below_face(side)
        return SeamInputs(channels.transpose(2, 0, 1), weight, band, least)


@dataclass
class SeamInputs:
    """What the network is given, and the feathered composite that it corrects.

    Attributes:
        channels: [10, h, w] as in `networks.inpainting.INPUTS`.
        weight: [h, w] feathered weight of the render.
        band: [h, w] where corrections are allowed.
        least: [h, w] smallest weight of the render, so that the frame's own chin stays hidden.
    """

    channels: Floats
    weight: Floats
    band: Floats
    least: Floats


def working_factor(crop_size: int) -> int:
    """Crop pixels per working pixel: a power of two.

    >>> [working_factor(size) for size in (240, 256, 464, 512, 1024)]
    [1, 1, 2, 2, 4]
    """
    factor = 1
    while crop_size > WORKING_SIDE * factor:
        factor *= 2
    return factor


def shrink(image: Floats, factor: int) -> Floats:
    """An image at working resolution: the mean of each block of pixels."""
    if factor == 1:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def shrink_bytes(image: Bytes, factor: int) -> Floats:
    """A uint8 image at working resolution, in [0, 1]."""
    if factor > 1:
        size = (image.shape[1] // factor, image.shape[0] // factor)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)


@cache
def edge_ramp(size: tuple[int, ...]) -> Floats:
    """[h, w] 1 inside, falling to 0 at the window's edge."""
    ramps = []
    for side in size:
        place = np.arange(side) + 0.5
        ramps.append(np.clip(np.minimum(place, side - place) / EDGE_PX, 0, 1))
    return np.outer(ramps[0], ramps[1]).astype(np.float32)
