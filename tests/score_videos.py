"""Small videos of a photographed face, for the tests of score."""

from fractions import Fraction

import cv2
import numpy as np

from talkgs_cli.media.encoding import VideoWriter

RATE = Fraction(25)
SIZE = 224


def face_frames(count: int) -> list[np.ndarray]:
    """A photographed face that drifts and breathes, [SIZE, SIZE, 3] uint8 each."""
    from skimage import data

    picture = data.astronaut()
    frames = []
    for t in range(count):
        scale = 1.0 + 0.02 * np.sin(t / 5)
        matrix = np.array(
            [[scale, 0, -116 + 3 * np.sin(t / 7)], [0, scale, -8 + 2 * np.cos(t / 6)]]
        )
        frames.append(cv2.warpAffine(picture, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC))
    return frames


def write_video(path, frames, rate=RATE, audio=None):
    size = frames[0].shape[:2]
    with VideoWriter(path, size, rate, audio, crf=0) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def mean(value):
    return value["mean"] if isinstance(value, dict) else value
