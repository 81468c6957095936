"""LSE-D and LSE-C of a video with the user's own SyncNet weights.

Faces are cut by our landmarks where the published pipeline uses another detector, so figures lie
near published ones and not on them; the settings of a score say so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from talkgs_cli.assets import fetch_file
from talkgs_cli.errors import BadInput
from talkgs_cli.landmark_points import OVAL
from talkgs_cli.media.audio import read_audio
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import read_frames
from talkgs_cli.metrics.sync import sync
from talkgs_cli.networks.mfcc import mfcc
from talkgs_cli.networks.syncnet import AUDIO_STEPS, FACE_PX, FRAMES, SyncNet
from talkgs_cli.runtime import Progress
from talkgs_cli.tracking.landmarks import FaceLandmarker

RATE = Fraction(25)
STEPS_PER_FRAME = 4  # cepstra, a hundred a second
BATCH = 8
SMOOTHED_FRAMES = 13  # median of the face's place, as published
MARGIN = 0.4  # around the face, of its half side, as published
GREY = 110
SETTING = (
    "SyncNet (your weights), 25 fps, 16 kHz, windows of 5 frames, shifts of 15 frames either way; "
    "faces cut by the landmarker's oval"
)

Frame = NDArray[np.uint8]


def score_sync(
    video: Path, sound: Path, network: SyncNet, max_frames: int, progress: Progress
) -> dict[str, Any]:
    """Measure one video against a sound.

    Args:
        video: With a face in every frame that counts.
        sound: File with the sound it should say.
        network: From `load_syncnet`.
        max_frames: Frames at 25 a second looked at, from the beginning; 0: all.
        progress: Counts windows.

    Returns:
        lse_d, lse_c, shift_frames (positive: the sound is late), windows.

    Raises:
        BadInput: no sound, no face, or shorter than a window.
    """
    cepstra = mfcc(read_audio(sound).astype(np.float64) * 32768).T  # [13, T100]
    lips, counted = [], []
    with torch.inference_mode(), progress.stage("Reading lips", None) as advance:
        for first, windows in _windows(video, max_frames):
            fitting = [
                k
                for k in range(len(windows))
                if (first + k) * STEPS_PER_FRAME + AUDIO_STEPS <= cepstra.shape[1]
            ]
            if not fitting:
                break
            lips.append(network.lips(torch.from_numpy(windows[fitting])).numpy())
            counted += [first + k for k in fitting]
            advance(len(fitting))
        if not counted:
            raise BadInput(
                f"{video} has no {FRAMES} frames in a row with a face and sound.",
                hint="SyncNet needs at least 0.2 s of both.",
            )
        pieces = np.stack(
            [cepstra[:, k * STEPS_PER_FRAME : k * STEPS_PER_FRAME + AUDIO_STEPS] for k in counted]
        )
        heard = [
            network.sound(torch.from_numpy(pieces[start : start + 64, None])).numpy()
            for start in range(0, len(pieces), 64)
        ]
    found = sync(np.concatenate(lips), np.concatenate(heard))
    return {
        "lse_d": round(found.lse_d, 4),
        "lse_c": round(found.lse_c, 4),
        "shift_frames": found.shift_frames,
        "windows": len(counted),
    }


def _windows(video: Path, max_frames: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Batches of windows: (number of the first, [B, 3, 5, 224, 224] blue, green, red)."""
    kept: deque[NDArray[np.float32]] = deque(maxlen=FRAMES)
    batch: list[NDArray[np.float32]] = []
    first = 0
    for face in _faces(video, max_frames):
        kept.append(face)
        if len(kept) == FRAMES:
            batch.append(np.stack(kept, axis=1))
        if len(batch) == BATCH:
            yield first, np.stack(batch)
            first, batch = first + BATCH, []
    if batch:
        yield first, np.stack(batch)


def _faces(video: Path, max_frames: int) -> Iterator[NDArray[np.float32]]:
    """[3, 224, 224] face of each frame, until the first without one."""
    boxes = _boxes(video, max_frames)
    for frame, (x, y, half) in zip(read_frames(video, frame_rate=RATE), boxes, strict=False):
        yield cut_face(frame, x, y, half)


def _boxes(video: Path, max_frames: int) -> NDArray[np.float64]:
    """[T, 3] middle and half side of the face's box, smoothed over time."""
    from scipy.signal import medfilt

    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    boxes: list[list[float]] = []
    for count, frame in enumerate(read_frames(video, frame_rate=RATE)):
        seen = landmarker.track(frame) if not max_frames or count < max_frames else None
        if seen is None:
            break
        oval = seen.landmarks[OVAL, :2]
        low, high = oval.min(0), oval.max(0)
        boxes.append([*(low + high) / 2, (high - low).max() / 2])
    if len(boxes) < FRAMES:
        raise BadInput(
            f"{video} shows a face in {len(boxes)} frames from its start.",
            hint=f"SyncNet looks at {FRAMES} frames at once.",
        )
    found = np.array(boxes)
    window = min(SMOOTHED_FRAMES, len(found) - 1 + len(found) % 2)
    half = window // 2
    padded = np.pad(found, ((half, half), (0, 0)), mode="edge")
    smooth = [medfilt(column, window)[half : half + len(found)] for column in padded.T]
    return np.stack(smooth, axis=1)


def cut_face(frame: Frame, x: float, y: float, half: float) -> NDArray[np.float32]:
    """The face with the margins that SyncNet was trained on.

    Args:
        frame: [H, W, 3] RGB.
        x: Middle of the face, pixels.
        y: The same, downwards.
        half: Half the longer side of its box, pixels.

    Returns:
        [3, 224, 224] blue, green, red in 0..255; grey beyond the frame.
    """
    side = 2 * half * (1 + MARGIN)
    scale = FACE_PX / side
    left, top = x - half * (1 + MARGIN), y - half
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    face = cv2.warpAffine(
        frame, matrix, (FACE_PX, FACE_PX), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY)
    )
    return np.ascontiguousarray(face[..., ::-1].transpose(2, 0, 1), np.float32)


def add_sync(
    answer: dict[str, Any],
    generated: Path,
    reference: Path,
    network: SyncNet,
    max_frames: int,
    progress: Progress,
) -> None:
    """Put LSE-D and LSE-C of both videos into an answer of `score`.

    A generated video without sound is measured with the reference's.

    Raises:
        BadInput: neither has sound.
    """
    sounds = {"generated": generated, "real": reference}
    if not probe(generated).has_audio:
        sounds["generated"] = reference
    answer["sync"] = {}
    for row, video in (("generated", generated), ("real", reference)):
        if row == "real" and not probe(reference).has_audio:
            continue
        found = score_sync(video, sounds[row], network, max_frames, progress)
        answer["sync"][row] = found
        regions = answer["rows"].setdefault(row, {"full": {}})
        regions["full"] = {**regions["full"], "lse_d": found["lse_d"], "lse_c": found["lse_c"]}
    answer["settings"]["lse"] = SETTING
