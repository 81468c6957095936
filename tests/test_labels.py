"""Crop and labels: what must be inside, and what must stay out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from talkgs_cli.assets import fetch_file
from talkgs_cli.landmark_points import JAW_LINE, LEFT_EYE, LIPS_INNER, LIPS_OUTER, OVAL, RIGHT_EYE
from talkgs_cli.tracking.crop import choose_crop, face_height_px
from talkgs_cli.tracking.labels import label_image
from talkgs_cli.tracking.landmarks import FaceLandmarker
from talkgs_cli.tracking.matting import PersonMatting
from talkgs_cli.types import LABELS

SIZE = 256
SKIN_TONE = (205, 150, 120)


def drawn_face(
    centre: tuple[float, float] = (128, 110), width: float = 100, height: float = 120
) -> np.ndarray:
    """[478, 2] an oval face with open eyes and mouth."""
    points = np.tile(np.array(centre, float), (478, 1))

    def ring(indices: tuple[int, ...], x: float, y: float, w: float, h: float, start: float):
        angle = start + np.linspace(0, 2 * np.pi, len(indices), endpoint=False)
        points[list(indices), 0] = centre[0] + x * width + w * width / 2 * np.cos(angle)
        points[list(indices), 1] = centre[1] + y * height + h * height / 2 * np.sin(angle)

    ring(OVAL, 0, 0, 1, 1, -np.pi / 2)  # from the forehead to the subject's left
    ring(LIPS_OUTER, 0, 0.25, 0.4, 0.2, np.pi)
    ring(LIPS_INNER, 0, 0.25, 0.3, 0.12, np.pi)
    ring(RIGHT_EYE, -0.2, -0.1, 0.18, 0.08, np.pi)
    ring(LEFT_EYE, 0.2, -0.1, 0.18, 0.08, 0)
    return points


def painted(colour: tuple[int, int, int] = SKIN_TONE) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def whole_person() -> np.ndarray:
    return np.ones((SIZE, SIZE), np.float32)


def count(labels: np.ndarray, name: str) -> int:
    return int((labels == LABELS[name]).sum())


# -- labels ----------------------------------------------------------------------------------------


def test_each_region_covers_what_its_outline_covers() -> None:
    labels = label_image(painted(), drawn_face(), whole_person())
    assert labels[110, 128] == LABELS["skin"]
    assert labels[140, 128] == LABELS["mouth"]
    assert labels[98, 108] == labels[98, 148] == LABELS["eyes"]
    assert labels[180, 128] == LABELS["neck"]
    assert labels[20, 20] == LABELS["person"]
    # cv2 fills the pixels that an outline touches, too: half a pixel more all around
    assert count(labels, "mouth") == pytest.approx(np.pi * 15.5 * 7.7, rel=0.05)
    assert count(labels, "eyes") == pytest.approx(2 * np.pi * 9.5 * 5.3, rel=0.1)


def test_background_inside_the_oval_is_not_skin() -> None:
    matte = whole_person()
    matte[:, :100] = 0.0
    matte[:, 100:104] = 0.6  # half-sure pixels are no skin either
    labels = label_image(painted(), drawn_face(), matte)
    assert not (labels[:, :105] == LABELS["skin"]).any()
    assert (labels[:, :100] == LABELS["background"]).all()


def test_skin_keeps_a_distance_from_the_outline() -> None:
    labels = label_image(painted(), drawn_face(), whole_person())
    face = np.isin(labels, [LABELS["skin"], LABELS["mouth"], LABELS["eyes"]])
    ring = drawn_face()[list(OVAL)].astype(np.float32)[:, None]
    rows, columns = np.nonzero(face)
    distance = [
        cv2.pointPolygonTest(ring, (float(x) + 0.5, float(y) + 0.5), True)
        for x, y in zip(columns[::37], rows[::37], strict=True)
    ]
    assert min(distance) > 1.0


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_a_collar_is_not_neck_but_a_shadowed_neck_is(grey: bool) -> None:
    frame = painted()
    frame[188:] = (240, 240, 245)  # white collar
    frame[172:180] = tuple(int(c * 0.55) for c in SKIN_TONE)  # the chin's shadow
    if grey:
        frame[:] = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]
    labels = label_image(frame, drawn_face(), whole_person())
    assert (labels[174:178, 118:138] == LABELS["neck"]).all()
    assert not (labels[193:] == LABELS["neck"]).any()


def test_a_closed_mouth_has_no_inside() -> None:
    points = drawn_face()
    points[list(LIPS_INNER), 1] = 140.0
    labels = label_image(painted(), points, whole_person())
    assert count(labels, "mouth") < 50


def test_labels_turn_with_the_head() -> None:
    turn = cv2.getRotationMatrix2D((128, 128), 90, 1.0)
    points = drawn_face()
    turned = label_image(painted(), points @ turn[:, :2].T + turn[:, 2], whole_person())
    upright = label_image(painted(), points, whole_person())
    assert (turned == np.rot90(upright)).mean() > 0.98


def test_a_face_at_the_border_is_drawn_without_failing() -> None:
    labels = label_image(painted(), drawn_face(centre=(20, 250)), whole_person())
    assert count(labels, "skin") > 500


def test_the_portrait_is_labelled_as_seen(require_assets: Callable[..., None]) -> None:
    """The suit's white ring, orange cloth and the flag behind stay out of skin and neck."""
    require_assets("face_landmarker", "selfie_segmenter")
    frame = np.ascontiguousarray(data.astronaut())[:320, 60:380]
    seen = FaceLandmarker(fetch_file("face_landmarker")).track(frame)
    assert seen is not None
    matte = PersonMatting(fetch_file("selfie_segmenter")).matte(frame)
    assert matte.shape == (320, 320)
    labels = label_image(frame, seen.landmarks, matte)
    assert labels[110, 165] == LABELS["skin"]
    assert labels[10, 10] != LABELS["skin"]
    assert matte[120, 165] > 0.9
    assert matte[60, 300] < 0.5
    teeth = labels == LABELS["mouth"]
    assert teeth.sum() > 100
    assert frame[teeth].mean() > 120


# -- crop ------------------------------------------------------------------------------------------


def clip(centres: list[tuple[float, float]], height: float = 120) -> np.ndarray:
    return np.stack([drawn_face(centre, height * 0.8, height) for centre in centres])


def test_the_crop_holds_head_and_neck_in_every_frame() -> None:
    faces = clip([(300 + 20 * np.sin(t / 5), 240 + 10 * np.cos(t / 7)) for t in range(100)])
    crop = choose_crop(faces, (480, 640), 512)
    inside = crop.to_crop(faces)
    assert inside[:, OVAL].min() > 0.15 * 96 * crop.scale
    chin = inside[:, 152, 1].max()
    assert crop.size - chin > 0.3 * 120 * crop.scale
    assert inside[:, JAW_LINE].max() < crop.size


def test_the_crop_is_inside_the_frame_and_a_multiple_of_sixteen() -> None:
    for centre in ((70, 90), (600, 430), (320, 30)):
        crop = choose_crop(clip([centre] * 5), (480, 640), 512)
        assert crop.left >= 0
        assert crop.top >= 0
        assert crop.left + crop.side <= 640
        assert crop.top + crop.side <= 480
        assert crop.size % 16 == 0
        assert crop.side % 2 == 0


def test_a_small_crop_is_not_resampled_and_a_large_one_is_shrunk() -> None:
    small = choose_crop(clip([(320, 240)]), (480, 640), 512)
    assert small.scale == 1
    large = choose_crop(clip([(960, 540)], height=500), (1080, 1920), 512)
    assert large.size == 512
    assert large.side > 512


@pytest.mark.parametrize("short", [360, 486, 500, 512])
def test_a_head_larger_than_a_small_frame_is_still_stored_pixel_for_pixel(short: int) -> None:
    crop = choose_crop(clip([(320, short / 2)], height=short * 0.9), (short, 640), 512)
    assert crop.scale == 1
    assert crop.side == short // 16 * 16


def test_one_stray_frame_does_not_widen_the_crop() -> None:
    usual = [(300.0, 240.0)] * 300
    assert choose_crop(clip([*usual, (100, 240)]), (480, 640), 512) == choose_crop(
        clip(usual), (480, 640), 512
    )


def test_face_height_is_measured_from_hairline_to_chin() -> None:
    assert face_height_px(clip([(300, 240)] * 3)) == pytest.approx(120)


def test_the_clips_faces_are_labelled_stably(
    clips: Path, require_assets: Callable[..., None]
) -> None:
    """From frame to frame the skin changes by its own motion only, not by flicker."""
    require_assets("face_landmarker", "selfie_segmenter")
    from talkgs_cli.media.video import read_frames

    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    matting = PersonMatting(fetch_file("selfie_segmenter"))
    areas = []
    for frame in read_frames(
        clips / "speaker_c_360x288_3s.mpg", frame_rate=Fraction(25), frames=12
    ):
        seen = landmarker.track(frame)
        assert seen is not None
        labels = label_image(frame, seen.landmarks, matting.matte(frame))
        areas.append(count(labels, "skin") + count(labels, "mouth") + count(labels, "eyes"))
    assert np.abs(np.diff(areas)).max() < 0.03 * np.mean(areas)
