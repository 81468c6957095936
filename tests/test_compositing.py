"""Compositing: a rendered face in a real frame."""

from __future__ import annotations

import numpy as np
import pytest

from talkgs_cli.compositing import Compositor
from talkgs_cli.types import LABELS, Crop

SIZE = (96, 120)
CROPS = (Crop(20, 10, 64, 64), Crop(-16, -8, 96, 64), Crop(70, 40, 64, 128))


def disc(side: int, radius: float) -> np.ndarray:
    """[S, S] alpha of a round face in the middle."""
    y, x = np.indices((side, side)) + 0.5 - side / 2
    return (np.hypot(y, x) < radius * side).astype(np.float32)


@pytest.mark.parametrize("crop", CROPS)
def test_share_is_the_share_of_the_render_in_what_paste_makes(crop: Crop) -> None:
    alpha = disc(crop.size, 0.35)
    white = np.ones((crop.size, crop.size, 3), np.float32)
    compositor = Compositor(crop)
    pasted = compositor.paste(white, alpha, np.zeros((*SIZE, 3), np.uint8))
    share = compositor.share(alpha, SIZE)
    assert 0.05 < share.mean() < 0.9
    np.testing.assert_allclose(pasted[..., 0] / 255, np.clip(share, 0, 1), atol=0.51 / 255)


def test_a_frame_outside_the_face_is_not_touched() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    kept, alpha = frame.copy(), disc(64, 0.3)
    pasted = Compositor(CROPS[0]).paste(np.zeros((64, 64, 3), np.float32), alpha, frame)
    np.testing.assert_array_equal(frame, kept)
    outside = np.ones(SIZE, bool)
    outside[10:74, 20:84] = disc(64, 0.32) == 0
    np.testing.assert_array_equal(pasted[outside], frame[outside])
    assert (pasted[42, 52] == 0).all()


def test_a_collar_is_not_painted_over() -> None:
    label = np.full((64, 64), LABELS["skin"], np.uint8)
    label[40:] = LABELS["person"]
    alpha = disc(64, 0.4)
    share = Compositor(CROPS[0]).share(alpha, SIZE, label)
    assert share[10 + 30, 52] == 1
    assert share[10 + 44 :].max() == 0
