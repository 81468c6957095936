"""Claims about grain: what a render lacks is measured, and laid over the face only."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.rendering.grain import Grain, finest
from talkgs_cli.training.grain import SHARE, measure_grain
from talkgs_cli.types import LABELS

SIZE = 128


def test_grain_lies_on_the_face_only_and_has_the_strength_it_says():
    rgb, alpha = np.zeros((SIZE, SIZE, 3), np.float32), np.zeros((SIZE, SIZE), np.float32)
    alpha[:, :64] = 1
    Grain(0.002, SIZE).lay(rgb, alpha, b"one")
    assert not rgb[:, 64:].any()
    assert finest(rgb[..., 0])[:, 4:60].std() == pytest.approx(0.002, rel=0.1)
    assert np.array_equal(rgb[..., 0], rgb[..., 2])


def test_a_frame_always_has_the_same_grain_and_another_frame_another():
    def laid(frame: bytes) -> np.ndarray:
        rgb = np.zeros((SIZE, SIZE, 3), np.float32)
        Grain(0.002, SIZE).lay(rgb, np.ones((SIZE, SIZE), np.float32), frame)
        return rgb

    assert np.array_equal(laid(b"one"), laid(b"one"))
    assert abs(np.corrcoef(laid(b"one").ravel(), laid(b"two").ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_what_renders_lack_is_measured_on_skin(noise: float):
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((SIZE, SIZE, 3), np.float32), (0, 0), 4)
    frames = [smooth + rng.standard_normal((SIZE, SIZE, 1)) * noise / 255 for _ in range(4)]
    frames = [frame * 255 for frame in frames]
    label = np.full((SIZE, SIZE), LABELS["skin"], np.uint8)
    label[:, :40] = LABELS["neck"]
    for frame in frames:
        frame[:, :36] = rng.random((SIZE, 36, 3)) * 255  # not skin: may be anything
    speaker = SimpleNamespace(frame=lambda t: frames[t], label=lambda t: label)
    avatar = SimpleNamespace(
        tracking=SimpleNamespace(motion=SimpleNamespace(at=lambda rows: rows)),
        exposure=Exposure(),
        render=lambda rows: ((smooth, np.ones((SIZE, SIZE), np.float32)) for _ in rows),
    )
    found = measure_grain(avatar, speaker, range(4)) * 255  # type: ignore[arg-type]
    lacking = SHARE * noise * finest(rng.standard_normal((SIZE, SIZE)).astype(np.float32)).std()
    assert found == pytest.approx(lacking, abs=0.1)


def test_a_sharper_render_gets_none():
    flat = np.full((SIZE, SIZE, 3), 128, np.uint8)
    label = np.full((SIZE, SIZE), LABELS["skin"], np.uint8)
    sharp = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    avatar = SimpleNamespace(
        tracking=SimpleNamespace(motion=SimpleNamespace(at=lambda rows: rows)),
        exposure=Exposure(),
        render=lambda rows: ((sharp, np.ones((SIZE, SIZE), np.float32)) for _ in rows),
    )
    speaker = SimpleNamespace(frame=lambda t: flat, label=lambda t: label)
    assert measure_grain(avatar, speaker, [0]) == 0.0  # type: ignore[arg-type]
