"""The landmarker on a public-domain portrait: where, how stable, and when it says nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from skimage import data

from talkgs_cli.assets import fetch_file
from talkgs_cli.landmark_points import (
    BLENDSHAPE_NAMES,
    EYES,
    IRISES,
    JAW_LINE,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    OVAL,
    RIGHT_EYE,
    inter_ocular_px,
)
from talkgs_cli.tracking.landmarks import FaceLandmarker, FaceObservation

MIRRORED = {33: 263, 133: 362, 61: 291, 78: 308, 234: 454, 1: 1, 152: 152, 13: 13, 14: 14}


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def landmarker(require_assets: Callable[..., None]) -> FaceLandmarker:
    require_assets("face_landmarker")
    return FaceLandmarker(fetch_file("face_landmarker"))


def settle(landmarker: FaceLandmarker, frame: np.ndarray, frames: int = 4) -> FaceObservation:
    """What is seen after some equal frames."""
    landmarker.reset()
    seen = [landmarker.track(np.ascontiguousarray(frame)) for _ in range(frames)][-1]
    assert seen is not None
    return seen


def test_points_lie_where_a_person_would_put_them(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    """Irises, mouth corners, chin: read off the enlarged picture by eye."""
    seen = settle(landmarker, portrait)
    by_eye = {
        468: (203.6, 101.1),
        473: (246.4, 103.7),
        61: (203.1, 139.4),
        291: (245.0, 140.3),
    }
    for index, place in by_eye.items():
        assert np.linalg.norm(seen.landmarks[index, :2] - place) < 2, index
    assert seen.landmarks[152, 1] == pytest.approx(178.1, abs=2)  # the chin's lowest line
    assert seen.presence > 0.99
    assert seen.faces_seen == 1
    assert seen.landmarks.shape == (478, 3)
    assert seen.landmarks.dtype == np.float32


def test_scores_know_a_smile_from_a_neutral_mouth(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    scores = dict(zip(BLENDSHAPE_NAMES, settle(landmarker, portrait).blendshapes, strict=True))
    assert scores["mouthSmileLeft"] > 0.5
    assert scores["mouthSmileRight"] > 0.5
    assert scores["mouthPucker"] < 0.1
    assert scores["jawOpen"] < 0.3
    assert scores["eyeBlinkLeft"] < 0.4


def test_a_moved_picture_moves_the_points_as_far(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    here = settle(landmarker, portrait).landmarks
    there = settle(landmarker, np.roll(portrait, (17, 40), (0, 1))).landmarks
    assert np.abs(there[:, :2] - here[:, :2] - (40, 17)).mean() < 0.2


def test_a_mirrored_picture_mirrors_the_points(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    """Pixel centres at +0.5: a point at x goes to width - x."""
    here = settle(landmarker, portrait).landmarks
    there = settle(landmarker, portrait[:, ::-1]).landmarks
    for index, twin in MIRRORED.items():
        assert here[index, 0] + there[twin, 0] == pytest.approx(512, abs=1.2), index


def test_a_picture_twice_as_large_has_points_twice_as_far(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    here = settle(landmarker, portrait)
    large = cv2.resize(portrait, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    there = settle(landmarker, large)
    assert np.abs(there.landmarks[:, :2] / 2 - here.landmarks[:, :2]).mean() < 0.5
    ratio = inter_ocular_px(there.landmarks) / inter_ocular_px(here.landmarks)
    assert ratio == pytest.approx(2, abs=0.02)
    assert np.ptp(there.landmarks[:, 2]) / np.ptp(here.landmarks[:, 2]) == pytest.approx(2, abs=0.1)


def test_a_tilted_head_is_followed(landmarker: FaceLandmarker, portrait: np.ndarray) -> None:
    turn = cv2.getRotationMatrix2D((226, 130), 25, 1.0)
    here = settle(landmarker, portrait).landmarks[:, :2]
    tilted = cv2.warpAffine(portrait, turn, (512, 512))
    there = settle(landmarker, tilted).landmarks[:, :2]
    assert np.linalg.norm(there - (here @ turn[:, :2].T + turn[:, 2]), axis=1).mean() < 2


def test_nothing_is_found_where_there_is_no_face(landmarker: FaceLandmarker) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for frame in (noise, np.zeros((200, 300, 3), np.uint8), data.coffee()):
        landmarker.reset()
        assert landmarker.track(np.ascontiguousarray(frame)) is None


def test_a_lost_face_is_found_again(landmarker: FaceLandmarker, portrait: np.ndarray) -> None:
    empty = np.full_like(portrait, 90)
    landmarker.reset()
    seen = [landmarker.track(frame) is not None for frame in (portrait, empty, empty, portrait)]
    assert seen == [True, False, False, True]


def test_two_faces_are_counted_and_the_larger_one_followed(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    small = cv2.resize(portrait, (440, 440), interpolation=cv2.INTER_AREA)
    both = np.zeros((512, 952, 3), np.uint8)
    both[:440, :440], both[:, 440:] = small, portrait
    seen = settle(landmarker, both)
    assert seen.faces_seen == 2
    assert seen.landmarks[1, 0] > 440


def test_a_second_face_is_noticed_later(landmarker: FaceLandmarker, portrait: np.ndarray) -> None:
    alone = np.concatenate([portrait, np.zeros_like(portrait)], 1)
    both = np.concatenate([portrait, portrait], 1)
    landmarker.reset()
    counts = [seen.faces_seen for f in [alone] * 4 + [both] * 16 if (seen := landmarker.track(f))]
    assert counts[0] == 1
    assert counts[-1] == 2


def test_a_face_lost_in_a_large_picture_is_found_by_tiles(
    landmarker: FaceLandmarker, portrait: np.ndarray
) -> None:
    large = np.full((720, 1280, 3), 90, np.uint8)
    large[400:656, 60:316] = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    seen = settle(landmarker, large)
    nose = np.array([60, 400]) + np.array([223, 131]) / 2
    assert np.linalg.norm(seen.landmarks[1, :2] - nose) < 4


def test_index_sets_name_what_they_say(landmarker: FaceLandmarker, portrait: np.ndarray) -> None:
    points = settle(landmarker, portrait).landmarks[:, :2]

    def inside(inner: tuple[int, ...], outer: tuple[int, ...]) -> bool:
        ring = points[list(outer)][:, None]
        return all(
            cv2.pointPolygonTest(ring, tuple(map(float, points[i])), True) > -1.5 for i in inner
        )

    assert len(BLENDSHAPE_NAMES) == 52
    assert EYES == RIGHT_EYE + LEFT_EYE
    assert inside(LIPS_INNER, LIPS_OUTER)
    assert inside(LIPS_OUTER + EYES, OVAL)
    assert inside(IRISES[:1], RIGHT_EYE)
    assert inside(IRISES[5:6], LEFT_EYE)
    assert set(JAW_LINE) < set(OVAL)
    assert points[list(RIGHT_EYE), 0].mean() < points[list(LEFT_EYE), 0].mean()


def test_starting_up_says_nothing_on_stderr(require_assets: Callable[..., None]) -> None:
    require_assets("face_landmarker")
    code = (
        "from talkgs_cli.assets import fetch_file\n"
        "from talkgs_cli.tracking.landmarks import FaceLandmarker\n"
        "FaceLandmarker(fetch_file('face_landmarker'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
