"""Claims about the loops over pixels of a composite: a plain twin says the same."""

import cv2
import numpy as np
import pytest

from talkgs_cli.compositing.feather import ALPHA_GAIN
from talkgs_cli.compositing.numba_join import join

SIZE = (20, 26)


def scene(seed: int) -> tuple[np.ndarray, ...]:
    """Render, alpha and frame of one size, and maps at half of it."""
    dice = np.random.default_rng(seed)
    alpha = np.clip(dice.normal(0.6, 0.5, SIZE), 0, 1).astype(np.float32)
    rgb = dice.random((*SIZE, 3), np.float32) * alpha[..., None]
    frame = dice.integers(0, 256, (*SIZE, 3), np.uint8)
    maps = np.zeros((6, SIZE[0] // 2, SIZE[1] // 2), np.float32)
    maps[0] = np.clip(dice.normal(0.5, 0.7, maps.shape[1:]), 0, 1)
    maps[1:3] = dice.normal(0, 3, maps[1:3].shape)
    maps[3:] = dice.normal(0, 20, maps[3:].shape)
    return rgb, alpha, frame, maps


def cubic(frame: np.ndarray, y: float, x: float) -> np.ndarray:
    """Catmull-Rom by its definition: a sum over four by four neighbours, the edge going on."""

    def weight(distance: float) -> float:
        t = abs(distance)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    total = np.zeros(3)
    for row in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
        for column in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            near = frame[np.clip(row, 0, SIZE[0] - 1), np.clip(column, 0, SIZE[1] - 1)]
            total += weight(y - row) * weight(x - column) * near
    return total


@pytest.mark.parametrize("seed", [0, 1])
def test_joining_is_what_its_definition_says(seed: int) -> None:
    rgb, alpha, frame, maps = scene(seed)
    made = np.zeros((*SIZE, 3), np.uint8)
    join(rgb, alpha, frame, maps, (0, 0), (-0.25, -0.25), 0.5, made)
    # cv2.resize puts pixel centres where `join` does: bilinear, the edge going on.
    fine = np.stack([cv2.resize(m, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])
    expected = np.zeros((*SIZE, 3))
    for y, x in np.ndindex(*SIZE):
        share = min(fine[0, y, x], ALPHA_GAIN * alpha[y, x])
        under = cubic(frame, y + fine[2, y, x], x + fine[1, y, x])
        render = np.clip(255 * rgb[y, x] / max(alpha[y, x], 1e-3), 0, 255)
        expected[y, x] = share * render + (1 - share) * under + fine[3:, y, x]
    assert np.abs(made - np.clip(expected, 0, 255)).max() <= 0.51


def test_maps_of_nothing_leave_the_frame() -> None:
    rgb, alpha, frame, maps = scene(2)
    made = np.zeros((*SIZE, 3), np.uint8)
    join(rgb, alpha, frame, 0 * maps, (0, 0), (-0.25, -0.25), 0.5, made)
    np.testing.assert_array_equal(made, frame)
