"""Small videos and sounds for the tests of media, and a count of the processes we left."""

from __future__ import annotations

import os
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np

from talkgs_cli.media.encoding import VideoWriter
from talkgs_cli.media.ffmpeg import ffmpeg_program

NTSC = Fraction(30000, 1001)
PATCHES = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 200], [230, 190, 160]], np.uint8)


def patches(height: int = 96, width: int = 128) -> np.ndarray:
    """Four flat colours side by side."""
    return np.broadcast_to(np.repeat(PATCHES, width // 4, axis=0), (height, width, 3)).copy()


def write_video(path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(25), **options):
    with VideoWriter(path, frames[0].shape[:2], rate, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def counting_frames(count: int) -> list[np.ndarray]:
    """Frames whose grey level says which one they are."""
    return [np.full((32, 48, 3), 20 + 8 * (i % 25), np.uint8) for i in range(count)]


def tone(seconds: float, rate_hz: int = 16_000, frequency_hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def run_ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_program(), "-v", "error", "-y", *arguments], check=True)


def children() -> set[int]:
    """Process ids of our own living or zombie children."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(entry.parent.name))
    return found


def text_file(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("This is no video.\n" * 20)
    return path
