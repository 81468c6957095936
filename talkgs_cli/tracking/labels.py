"""Labels what each pixel of a crop frame shows, from landmark polygons and the person matte.

Hair over the forehead and glasses count as skin: no parser of faces is at hand. The neck is told
from the collar by its colour.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.landmark_points import JAW_LINE, LEFT_EYE, LIPS_INNER, OVAL, RIGHT_EYE
from talkgs_cli.types import LABELS

FOREHEAD, CHIN = 10, 152
EAR_RIGHT, EAR_LEFT = 234, 454
SKIN_INSET = 0.025  # face widths: the outline's own error, so that background stays out
NECK_HEIGHT = 0.30  # face heights
NECK_RIM = 0.07  # face heights under the jaw line that are neck whatever their colour
NECK_OVERLAP = 0.06  # face heights that the strip reaches up under the jaw line
NECK_COLOUR = 3.5  # standard deviations of the face's own chroma
DARKEST_SKIN = 0.3  # of the face's brightness; below it a neck can't be told from a dark coat
BRIGHTEST_SKIN = 1.3  # of it; in a video without colour, a brighter neck is a white collar
CHROMA_FLOOR = 3.0  # smallest standard deviation, 8-bit units: compression moves colours this far
NECK_WIDTH = 0.80  # of the jaw, at the strip's lower end
NECK_JAW = JAW_LINE[3:-3]  # from jaw corner to jaw corner: above them there is no neck
SKIN_STRIDE = 4  # the face's own colour is taken from pixels so much larger
BLUR_PX = 5
PERSON = 0.5  # matte value from which a pixel is the person
SURE_PERSON = 0.8  # for skin, where a background pixel does more harm than a missing one
SUBPIXEL_BITS = 4


def label_image(
    frame: NDArray[np.uint8], landmarks: NDArray[np.floating], matte: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Draw one label image.

    Args:
        frame: [H, W, 3] uint8 RGB crop frame.
        landmarks: [478, 2 or 3] crop pixels, centres at +0.5.
        matte: [H, W] of the same crop frame, 0 to 1.

    Returns:
        [H, W] uint8, values of `types.LABELS`.
    """
    points = landmarks[:, :2].astype(np.float64)
    face_width = float(np.linalg.norm(points[EAR_LEFT] - points[EAR_RIGHT]))
    face_down = points[CHIN] - points[FOREHEAD]  # [2], one face height long

    sure = _inside(points[list(OVAL)], matte.shape) & (matte > SURE_PERSON)
    skin = _shrunk(sure, SKIN_INSET * face_width)
    person = matte > PERSON
    strip = _inside(_neck_outline(points, face_down, NECK_HEIGHT), matte.shape) & person
    rim = _inside(_neck_outline(points, face_down, NECK_RIM), matte.shape) & person

    labels = np.full(matte.shape, LABELS["background"], np.uint8)
    labels[person] = LABELS["person"]
    labels[rim | _skin_coloured(frame, strip, skin)] = LABELS["neck"]
    labels[skin] = LABELS["skin"]
    face = labels == LABELS["skin"]
    for outline, name in ((LIPS_INNER, "mouth"), (RIGHT_EYE, "eyes"), (LEFT_EYE, "eyes")):
        labels[_inside(points[list(outline)], matte.shape) & face] = LABELS[name]
    return labels


def _neck_outline(
    points: NDArray[np.float64], face_down: NDArray[np.float64], height: float
) -> NDArray[np.float64]:
    """[P, 2] the strip under the jaw: the jaw line and its narrowed copy further down."""
    jaw = points[list(NECK_JAW)]  # [P/2, 2] from the subject's left to right
    centre = jaw.mean(0)
    upper = jaw - NECK_OVERLAP * face_down
    width = 1 - (1 - NECK_WIDTH) * height / NECK_HEIGHT
    lower = centre + (jaw - centre) * width + height * face_down
    return np.concatenate([upper, lower[::-1]])


def _skin_coloured(
    frame: NDArray[np.uint8], candidates: NDArray[np.bool_], skin: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """[H, W] those of `candidates` that are skin under some light: chroma goes with brightness."""
    # Chroma is coarse in video: single pixels tell little.
    size = (frame.shape[1] // SKIN_STRIDE, frame.shape[0] // SKIN_STRIDE)
    coarse = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    known = cv2.resize(skin.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    if not candidates.any() or not known.any():
        return candidates
    sample = cv2.cvtColor(coarse, cv2.COLOR_RGB2YCrCb)[known].astype(np.float32)  # [K, 3]
    light, tone = np.median(sample[:, 0]), np.median(sample[:, 1:], axis=0) - 128
    off = sample[:, 1:] - 128 - tone * (sample[:, :1] / light)
    spread = np.maximum(1.48 * np.median(np.abs(off), axis=0), CHROMA_FLOOR)
    box = _box(candidates, BLUR_PX)
    asked = candidates[box]
    colour = cv2.blur(cv2.cvtColor(frame[box], cv2.COLOR_RGB2YCrCb), (BLUR_PX, BLUR_PX))
    brightness, red, blue = colour[asked].astype(np.float32).T
    share = np.minimum(brightness / light, 1.2)
    off_red = (red - 128 - tone[0] * share) / spread[0]
    off_blue = (blue - 128 - tone[1] * share) / spread[1]
    alike = np.zeros(asked.shape, np.uint8)
    colourless = np.hypot(*tone) < CHROMA_FLOOR
    brightest = BRIGHTEST_SKIN * light if colourless else np.inf
    alike[asked] = (
        (off_red**2 + off_blue**2 < NECK_COLOUR**2)
        & (brightness > DARKEST_SKIN * light)
        & (brightness < brightest)
    )
    found = np.zeros_like(candidates)
    found[box] = cv2.medianBlur(alike, BLUR_PX).astype(bool) & asked
    return found


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Rows and columns of what is set in a mask that is not empty, and a margin."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + 1 + margin),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + 1 + margin),
    )


def _inside(outline: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """[H, W] pixels of a closed polygon; cv2 counts pixel centres at whole numbers."""
    mask = np.zeros(size, np.uint8)
    fixed = np.round((outline - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1, lineType=cv2.LINE_8, shift=SUBPIXEL_BITS)
    return mask.astype(bool)


def _shrunk(mask: NDArray[np.bool_], margin_px: float) -> NDArray[np.bool_]:
    """Erode by a disc; pixels beyond the frame count as inside."""
    radius = max(1, round(margin_px))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.erode(mask.astype(np.uint8), disc).astype(bool)
