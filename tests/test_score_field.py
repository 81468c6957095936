"""The ER-NeRF family's meters: against an independent calculation, and what they refuse."""

import cv2
import numpy as np
import pytest
from lpips_by_scipy import scipy_lpips
from score_videos import face_frames, mean, write_video

from talkgs_cli.assets import fetch_file
from talkgs_cli.config import ScoreConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.metrics.lpips import LPIPS
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.score_field import score_as_field
from talkgs_cli.tracking.landmarks import FaceLandmarker

SMALL = 96
# Outer lips from the right corner over the upper lip, then the inner lips: points 48-67 of the 68.
LIPS = [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]


@pytest.fixture(scope="module", autouse=True)
def weights(require_assets):
    require_assets("lpips_alex", "face_landmarker")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A real video, and one whose mouth is smeared and that lacks its last frame."""
    folder = tmp_path_factory.mktemp("field")
    frames = [cv2.resize(f, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for f in face_frames(3)]
    made = [frame.copy() for frame in frames[:2]]
    for frame in made:
        frame[51:72, 34:68] = cv2.GaussianBlur(frame[51:72, 34:68], (0, 0), 3)
    return write_video(folder / "made.mp4", made), write_video(folder / "real.mp4", frames)


def as_opencv_reads(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        read, frame = capture.read()
        if not read:
            return frames
        frames.append(frame[:, :, ::-1].copy())


def test_psnr_lpips_and_lmd_equal_an_independent_calculation(videos):
    answer = score_as_field(*videos, ScoreConfig(), SilentProgress())
    full = answer["rows"]["generated"]["full"]
    pairs = list(zip(*(as_opencv_reads(path) for path in videos), strict=False))
    assert answer["frames"] == len(pairs) == 2
    psnr = [-10 * np.log10(((a / 255.0 - b / 255.0) ** 2).mean()) for a, b in pairs]
    assert mean(full["psnr"]) == pytest.approx(np.mean(psnr), abs=1e-4)

    network = LPIPS("alex")
    planes = [[frame.transpose(2, 0, 1) / 255.0 for frame in pair] for pair in pairs]
    lpips = [scipy_lpips(network, a, b) for a, b in planes]
    assert mean(full["lpips_alex"]) == pytest.approx(np.mean(lpips), rel=1e-3)

    trackers = [FaceLandmarker(fetch_file("face_landmarker")) for _ in range(2)]
    distances = []
    for pair in pairs:
        points = [t.track(f).landmarks[LIPS, :2] for t, f in zip(trackers, pair, strict=True)]
        a, b = (p.astype(float) - p.astype(float).mean(0) for p in points)
        distances.append(np.sqrt(((a - b) ** 2).sum(1)).mean())
    assert mean(full["lmd_px"]) == pytest.approx(np.mean(distances), rel=1e-4)
    assert np.mean(distances) > 0.1  # pixels of this video, not of one with 512
    assert "MediaPipe" in answer["settings"]["lmd"]


def test_it_measures_nothing_else_and_names_itself(videos):
    answer = score_as_field(*videos, ScoreConfig(), SilentProgress())
    rows = answer["rows"]["generated"]
    assert answer["protocol"] == "er-nerf-compatible-1"
    assert {metric for metric, value in rows["full"].items() if value is not None} == {
        "psnr",
        "lpips_alex",
        "lmd_px",
    }
    assert set(rows["face"].values()) == {None}


def test_frames_of_other_sizes_are_refused_with_the_way_out(videos, tmp_path):
    larger = write_video(tmp_path / "larger.mp4", face_frames(2))
    with pytest.raises(BadInput, match=r"224x224.*96x96") as refused:
        score_as_field(larger, videos[1], ScoreConfig(), SilentProgress())
    assert "--protocol" in refused.value.hint


def test_frames_without_a_face_are_left_out_of_the_landmark_distance_and_counted(tmp_path):
    grey = [np.full((SMALL, SMALL, 3), 90, np.uint8)] * 2
    blank = write_video(tmp_path / "blank.mp4", grey)
    answer = score_as_field(blank, blank, ScoreConfig(), SilentProgress())
    assert answer["rows"]["generated"]["full"]["lmd_px"] is None
    assert mean(answer["rows"]["generated"]["full"]["psnr"]) == 100
    assert any("2 of 2 frames" in note for note in answer["notes"])
