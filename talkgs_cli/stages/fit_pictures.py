"""Real | render | composite, side by side: what the preview, the report and its video show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.avatar import Avatar
from talkgs_cli.compositing import Compositor
from talkgs_cli.runtime import atomic_path
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.types import Crop

PREVIEW_FRAMES = 3
GREY = 0.5  # behind a render that is shown alone

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """One frame three times, crop pixels, each [S, S, 3].

    Attributes:
        index: Frame of the clip.
        real: As filmed.
        render: The Gaussians alone, on grey.
        composite: The render on the training frame of nearest pose, as `speak` would show it.
    """

    index: int
    real: Picture
    render: Picture
    composite: Picture


def comparisons(
    speaker: SpeakerFolder, avatar: Avatar, frames: Sequence[int]
) -> Iterator[Comparison]:
    """Render frames of the clip in their tracked motion, one after the other."""
    train, _ = speaker.splits()
    size = speaker.crop.size
    # On stored crops, so that nothing is decoded; with the Inpainting Generator once it is there.
    compositor = Compositor.load(speaker, crop=Crop(0, 0, size, size))
    motion = avatar.tracking.motion.at(torch.tensor(list(frames), dtype=torch.long))
    for row, (index, (rgb, alpha)) in enumerate(zip(frames, avatar.render(motion), strict=True)):
        under = avatar.reference_for(motion.at(slice(row, row + 1)), train)
        lit = avatar.exposure.laid_on(rgb, under)
        composite = compositor.paste(lit, alpha, speaker.frame(under), speaker.label(under))
        alone = avatar.exposure.laid_on(rgb, index) + GREY * (1 - alpha[..., None])
        render = np.clip(alone * 255 + 0.5, 0, 255).astype(np.uint8)
        yield Comparison(index, speaker.frame(index), render, composite)


def side_by_side(comparison: Comparison, side: int) -> Picture:
    """[side, 3 * side, 3]."""
    pictures = (comparison.real, comparison.render, comparison.composite)
    shrunk = [
        cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        if picture.shape[0] > side
        else picture
        for picture in pictures
    ]
    return np.asarray(np.hstack(shrunk), np.uint8)


def write_preview(path: Path, speaker: SpeakerFolder, avatar: Avatar) -> None:
    """A picture of how far a running fit is: frames of the training part, real above render."""
    train, _ = speaker.splits()
    usable = [index for index in train if avatar.tracking.valid[index]]
    frames = usable[:: max(1, len(usable) // PREVIEW_FRAMES)][:PREVIEW_FRAMES]
    shown = list(comparisons(speaker, avatar, frames))
    rows = [np.hstack([c.real for c in shown]), np.hstack([c.render for c in shown])]
    image = np.vstack(rows)
    with atomic_path(path) as partial:
        cv2.imwrite(str(partial), np.ascontiguousarray(image[..., ::-1]))
