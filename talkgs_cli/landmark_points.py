"""Names for the landmarker's 478 points and 52 scores, and the distance that figures are told in.

Points and scores are those of MediaPipe's face landmarker (Apache-2.0). Left and right are the
subject's: the right eye appears on the left of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LANDMARK_COUNT = 478

# fmt: off
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
"""The face outline as a closed polygon: forehead (10), subject's left, chin (152), right."""

JAW_LINE = (
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234,
)
"""The lower half of the oval, from the subject's left ear over the chin to the right ear."""

LIPS_OUTER = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)
"""The outer lip line as a closed polygon: right corner, lower lip, left corner, upper lip."""

LIPS_INNER = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)
"""The inner lip line as a closed polygon, in the same order."""

RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
"""The right eye's lid line as a closed polygon."""

LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""The left eye's lid line as a closed polygon."""

EYES = RIGHT_EYE + LEFT_EYE

IRISES = (468, 469, 470, 471, 472, 473, 474, 475, 476, 477)
"""Right iris (468 is its centre), then left iris (473 is its centre)."""

INNER_LIP_UPPER, INNER_LIP_LOWER = 13, 14
"""The middle of the inner lips: their distance is the mouth's opening."""

OUTER_EYE_RIGHT, OUTER_EYE_LEFT = 33, 263
"""The outer eye corners: their distance is the inter-ocular distance of all figures."""

BLENDSHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65,
    66, 67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136,
    144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172,
    173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324,
    332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385,
    386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472,
    473, 474, 475, 476, 477,
)
"""The 146 points the blendshape network looks at, in its input order."""

BLENDSHAPE_NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)
"""The 52 scores in the network's output order; all but `_neutral` are ARKit's names."""
# fmt: on


def inter_ocular_px(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance of the outer eye corners in the image.

    Args:
        landmarks: [..., 478, 2 or 3] pixels.

    Returns:
        [...] pixels.

    >>> points = np.zeros((478, 2))
    >>> points[OUTER_EYE_LEFT] = 3, 4
    >>> float(inter_ocular_px(points))
    5.0
    """
    across = landmarks[..., OUTER_EYE_LEFT, :2] - landmarks[..., OUTER_EYE_RIGHT, :2]
    return np.linalg.norm(across, axis=-1)
