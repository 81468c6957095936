"""The pairs that the Inpainting Generator learns from: a rendered frame over another real frame.

The frame underneath is brought to the head pose of the rendered one first, because `speak` renders
every face in the pose of the frame underneath; mostly only its face is taken, and what lies round
it is the rendered frame's own. What is left between them is what the network is for: another mouth
and jaw, sometimes a neck and a collar that moved, colours that are not quite the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.avatar import Avatar
from talkgs_cli.compositing.feather import feather_px
from talkgs_cli.compositing.inpainter import seam_view
from talkgs_cli.compositing.seam import (
    SHADOW_REACH,
    STRIDE,
    SeamGrid,
    SeamView,
    shrink,
    shrink_bytes,
    working_factor,
)
from talkgs_cli.config import InpaintingConfig
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.training.inpainting_choice import Alignment, Pair
from talkgs_cli.types import LABELS

Bytes = NDArray[np.uint8]

JAW_ROOM = 0.05  # of the crop's side: room in the window for a jaw lower than any seen
SAMPLED = 48  # label images that tell the window's size


@dataclass
class PackedPair:
    """A pair at working resolution, cut to the window; all uint8.

    Attributes:
        render: [h, w, 3] straight colours.
        alpha: [h, w].
        reference: [h, w, 3].
        label: [h, w] of the reference.
        target: [h, w, 3] the real frame.
    """

    render: Bytes
    alpha: Bytes
    reference: Bytes
    label: Bytes
    target: Bytes

    def view(self) -> SeamView:
        """The window as the network sees it."""
        return SeamView(
            shrink_bytes(self.render, 1),
            shrink_bytes(self.alpha, 1),
            shrink_bytes(self.reference, 1),
            self.label,
        )


class PairMaker:
    """Renders targets, aligns references and packs both.

    Args:
        avatar: The fitted speaker.
        speaker: Where its frames are.
        config: How large the hole is.
        frames: Frames whose label images tell the window's size.
    """

    def __init__(
        self,
        avatar: Avatar,
        speaker: SpeakerFolder,
        config: InpaintingConfig,
        frames: Sequence[int],
    ) -> None:
        self.avatar, self.speaker = avatar, speaker
        self.grid = SeamGrid.around(speaker.crop.size, self._box(config, frames))
        self.alignment = Alignment(avatar.head, avatar.tracking, avatar.intrinsics)

    def _box(self, config: InpaintingConfig, frames: Sequence[int]) -> tuple[int, int]:
        """(height, width) of the largest hole, working pixels."""
        factor = working_factor(self.speaker.crop.size)
        side = self.speaker.crop.size // factor
        largest = np.zeros(2)
        for index in frames[:: max(1, len(frames) // SAMPLED)]:
            filled = np.nonzero(self.speaker.label(index)[::factor, ::factor] >= LABELS["neck"])
            if len(filled[0]):
                largest = np.maximum(largest, [np.ptp(axis) + 1 for axis in filled])
        margin = 4 * config.hole * side + STRIDE
        height, width = np.ceil(largest + margin + [JAW_ROOM * side, 0]).astype(int)
        return int(height), int(width)

    def make(self, pairs: Sequence[Pair]) -> Iterator[PackedPair]:
        """Render and pack, one after the other."""
        targets = torch.tensor([pair.target for pair in pairs])
        renders = self.avatar.render(self.avatar.tracking.motion.at(targets))
        for pair, (rgb, alpha) in zip(pairs, renders, strict=True):
            real = self.speaker.frame(pair.target)
            rgb = self.avatar.exposure.laid_on(rgb, pair.target)
            reference, label = self._underneath(pair, real)
            small_alpha = shrink(alpha, self.grid.factor)
            corner = self.grid.corner(small_alpha)
            view = seam_view(self.grid, corner, rgb, small_alpha, reference, label)
            target = seam_view(self.grid, corner, rgb, small_alpha, real, label).reference
            yield PackedPair(
                _bytes(view.render),
                _bytes(view.alpha),
                _bytes(view.reference),
                view.label,
                _bytes(target),
            )

    def _underneath(self, pair: Pair, real: Bytes) -> tuple[Bytes, Bytes]:
        """What lies under the render, and its labels."""
        matrix = self.alignment(pair)
        other = self.speaker.frame(pair.reference)
        # In `speak` face and surroundings are in one light.
        other = self.avatar.exposure.moved(other, pair.reference, pair.target)
        other = _warped(other, matrix, cv2.INTER_CUBIC)
        other_label = _warped(self.speaker.label(pair.reference), matrix, cv2.INTER_NEAREST)
        if not pair.face_only:
            return other, other_label
        return with_face_of(real, self.speaker.label(pair.target), other, other_label)


def with_face_of(
    frame: Bytes, label: Bytes, other: Bytes, other_label: Bytes
) -> tuple[Bytes, Bytes]:
    """A frame with the face of another one that was brought to its pose, and its labels.

    Args:
        frame: [S, S, 3].
        label: [S, S] its labels.
        other: [S, S, 3].
        other_label: [S, S] its labels.
    """
    face = (np.maximum(label, other_label) >= LABELS["skin"]).astype(np.uint8)
    wide = cv2.dilate(face, np.ones((3, 3), np.uint8)).astype(np.float32)
    # With it comes the shadow that it throws on the neck, as it does in `speak`.
    below = cv2.distanceTransform(1 - face, cv2.DIST_L2, 3) <= SHADOW_REACH * len(frame)
    wide[below & (np.minimum(label, other_label) >= LABELS["neck"])] = 1
    share = cv2.GaussianBlur(wide, (0, 0), feather_px(len(frame)))[..., None]
    mixed = _bytes((other * share + frame * (1 - share)) / 255)
    return mixed, np.where(share[..., 0] > 0.5, other_label, label)


def _bytes(image: NDArray[np.floating]) -> Bytes:
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _warped(image: Bytes, matrix: NDArray[np.float64], method: int) -> Bytes:
    size = (image.shape[1], image.shape[0])
    warped = cv2.warpAffine(image, matrix, size, flags=method, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)
