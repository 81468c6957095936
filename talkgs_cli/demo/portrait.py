"""The demo's photograph taken apart: skin without eyes and teeth, eyes, teeth, a soft face mask.

It works on the picture and the landmarks alone; it knows no head model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from talkgs_cli.errors import BadInput
from talkgs_cli.landmark_points import LEFT_EYE, LIPS_INNER, OVAL, RIGHT_EYE

if TYPE_CHECKING:
    from talkgs_cli.tracking.landmarks import FaceLandmarker

CROP_LEFT, CROP_TOP, CROP_SIDE = 112, 2, 232  # the head and the collar in the 512 x 512 photograph
TEXTURE_SCALE = 3

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Portrait:
    """The photograph and its layers, all [P, P, ...] texture pixels.

    Attributes:
        image: [P, P, 3] the photograph, RGB.
        skin: [P, P, 3] eyes and inner mouth painted over with the skin and lips around them.
        eyes: [P, P, 3] the eyeballs, continued beyond the lids.
        teeth: [P, P, 3] the teeth, continued beyond the lips.
        face_alpha: [P, P] float32, 1 inside the face, falling to 0 at its outline.
        landmarks: [478, 3] float32, texture pixels.
        blendshapes: [52] scores of the photograph's expression.
    """

    image: Image
    skin: Image
    eyes: Image
    teeth: Image
    face_alpha: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]


def load_portrait(landmarker: FaceLandmarker) -> Portrait:
    """Take the public-domain portrait of scikit-image apart."""
    from skimage import data

    photo = data.astronaut()[CROP_TOP : CROP_TOP + CROP_SIDE, CROP_LEFT : CROP_LEFT + CROP_SIDE]
    side = CROP_SIDE * TEXTURE_SCALE
    image = cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC)
    landmarker.reset()
    seen = landmarker.track(image)
    if seen is None:
        raise BadInput(
            "No face was found in the demo's portrait.",
            hint="Check the landmarker with: talkgs assets --pull",
        )
    points = seen.landmarks
    mouth = _polygon(points, LIPS_INNER, side)
    eyes = _polygon(points, RIGHT_EYE, side) | _polygon(points, LEFT_EYE, side)
    skin = _continue(image, ~_grown(mouth, 2.0))
    return Portrait(
        image=image,
        skin=_lids(skin, eyes),
        eyes=_continue(image, _grown(eyes, -2.0)),
        teeth=_continue(image, _teeth(image, _grown(mouth, -3.0))),
        face_alpha=_soft_mask(_polygon(points, OVAL, side)),
        landmarks=points,
        blendshapes=seen.blendshapes,
    )


def _polygon(points: NDArray[np.float32], outline: tuple[int, ...], side: int) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), np.uint8)
    corners = np.round((points[list(outline), :2] - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=4)
    return mask.astype(bool)


def _grown(mask: NDArray[np.bool_], by_px: float) -> NDArray[np.bool_]:
    """The mask grown (or with a negative distance shrunk) by a distance."""
    if by_px < 0:
        return ~_grown(~mask, -by_px)
    return np.asarray(distance_transform_edt(~mask) <= by_px)


def _continue(image: Image, known: NDArray[np.bool_]) -> Image:
    """Fill everything outside `known` with the nearest known colour, softened."""
    _, (row, column) = distance_transform_edt(~known, return_indices=True)
    filled = image[row, column]
    soft = cv2.GaussianBlur(filled, (0, 0), 3)
    return np.where(known[..., None], image, soft)


def _lids(image: Image, eyes: NDArray[np.bool_]) -> Image:
    """Paint closed lids where the eyes are: the skin beyond the lashes, with a soft edge."""
    lashes = _grown(eyes, 5.0)
    painted = cv2.inpaint(image, lashes.astype(np.uint8), 9, cv2.INPAINT_TELEA)
    painted = cv2.GaussianBlur(painted, (0, 0), 3)
    weight = cv2.GaussianBlur(_grown(eyes, 1.0).astype(np.float32), (0, 0), 1.5)[..., None]
    return np.clip(image + weight * (painted.astype(np.float32) - image), 0, 255).astype(np.uint8)


def _teeth(image: Image, inner_mouth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bright part of the inner mouth."""
    brightness = image.min(2).astype(np.float32)
    return inner_mouth & (brightness > np.percentile(brightness[inner_mouth], 15))


def _soft_mask(face: NDArray[np.bool_]) -> NDArray[np.float32]:
    inside = distance_transform_edt(face)
    return np.clip((inside - 4) / 14, 0, 1).astype(np.float32)
