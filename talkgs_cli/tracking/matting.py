"""Separates the person from the background, softly; it can't tell hair, skin and clothes apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.tracking.litert import Network

INPUT_SIZE = 256


class PersonMatting:
    """MediaPipe's selfie segmenter, one frame at a time and without memory.

    Args:
        model_file: selfie_segmenter.tflite.
    """

    def __init__(self, model_file: Path) -> None:
        self._network = Network(model_file.read_bytes())

    def matte(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How much of each pixel is the person.

        Args:
            frame: [H, W, 3] uint8 RGB; the person should fill a good part of it.

        Returns:
            [H, W] float32, 0 to 1.
        """
        height, width = frame.shape[:2]
        # Down to a half, four neighbours are what an area holds, in a tenth of the time.
        small = max(height, width) <= 2 * INPUT_SIZE
        how = cv2.INTER_LINEAR if small else cv2.INTER_AREA
        shrunk = cv2.resize(frame, (INPUT_SIZE, INPUT_SIZE), interpolation=how)
        values = np.multiply(shrunk[None], np.float32(1 / 255), dtype=np.float32)
        (matte,) = self._network(values)
        grown = cv2.resize(matte[0, :, :, 0], (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown, np.float32)
