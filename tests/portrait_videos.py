"""Small videos of a portrait that sways, and the settings they are prepared with."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from talkgs_cli.config import PrepareConfig
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.encoding import VideoWriter

SIDE = 224
FRAMES = 55
CONFIG = PrepareConfig()
ASSETS = ("face_landmarker", "selfie_segmenter", "makehuman", "whisper_tiny_en")


def portrait() -> np.ndarray:
    """The astronaut's head and shoulders, [SIDE, SIDE, 3]."""
    return cv2.resize(data.astronaut()[10:260, 100:350], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def swaying(image: np.ndarray, count: int) -> list[np.ndarray]:
    """The image moved a little from frame to frame, as a head is."""
    frames = []
    for t in range(count):
        shift = np.float32([[1, 0, 3 * np.sin(t / 6)], [0, 1, 2 * np.cos(t / 9)]])
        size = (image.shape[1], image.shape[0])
        frames.append(cv2.warpAffine(image, shift, size, borderMode=cv2.BORDER_REPLICATE))
    return frames


def hum(seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return 0.3 * np.sin(2 * np.pi * 180 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))


def film(
    path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(25), sound: bool = True
) -> Path:
    wav = None
    if sound:
        wav = path.with_suffix(".wav")
        write_wav(wav, hum(float(len(frames) / rate)))
    with VideoWriter(path, frames[0].shape[:2], rate, audio=wav, crf=14) as writer:
        for frame in frames:
            writer.write(frame)
    return path
