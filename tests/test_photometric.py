"""The photometric pass: nearer to the truth than landmarks alone, and only where pixels say so."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from talkgs_cli.demo.truth import truth_error
from talkgs_cli.heads import load_head
from talkgs_cli.landmark_points import BLENDSHAPE_NAMES, LIPS_OUTER, OUTER_EYE_LEFT, OUTER_EYE_RIGHT
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.tracking.closures import LID_PAIRS, LIP_PAIRS
from talkgs_cli.tracking.head_fitting import (
    fit_head,
    projected_landmarks,
)
from talkgs_cli.tracking.photometric import PhotometricAligner, photometric_refinement
from talkgs_cli.tracking.point_appearance import Band, Picture
from talkgs_cli.tracking.track_error import reprojection_error


@pytest.fixture(scope="module")
def speaker(prepared_speaker) -> SpeakerFolder:
    return SpeakerFolder.open_(prepared_speaker)


@pytest.fixture(scope="module")
def from_landmarks(speaker):
    """The same video's track without a look at its pixels."""
    stored = speaker.load_tracking()
    return fit_head(
        load_head("open"),
        stored.landmarks[:],
        stored.blendshapes.numpy(),
        BLENDSHAPE_NAMES,
        stored.valid.numpy(),
        speaker.size,
        float(speaker.frame_rate),
        SilentProgress(),
    )


def refined(speaker, tracking):
    return photometric_refinement(
        load_head("open"), tracking, speaker.crop, speaker.frame, speaker.label, SilentProgress()
    )


def test_it_brings_the_track_nearer_to_the_truth(demo_video, speaker, from_landmarks):
    before = truth_error(demo_video.truth, from_landmarks)
    after = truth_error(demo_video.truth, speaker.load_tracking())
    assert after["expression_iod"] < 0.97 * before["expression_iod"]
    assert after["fitted_landmark_iod"] < before["fitted_landmark_iod"]
    assert after["pose_degrees"] < 1.1 * before["pose_degrees"]


def test_it_steadies_the_head(speaker, from_landmarks):
    head = load_head("open")
    before = reprojection_error(head, from_landmarks)["jitter_px"]
    after = reprojection_error(head, speaker.load_tracking())["jitter_px"]
    assert after < 0.93 * before


def test_the_same_input_gives_the_same_track(speaker, from_landmarks):
    again = refined(speaker, from_landmarks).motion
    stored = speaker.load_tracking().motion
    torch.testing.assert_close(again.world_to_camera, stored.world_to_camera, rtol=0, atol=0)
    torch.testing.assert_close(again.corrective, stored.corrective, rtol=0, atol=0)


def test_identity_expression_jaw_and_mean_corrective_are_left_alone(speaker, from_landmarks):
    after = speaker.load_tracking()
    assert torch.equal(after.shape, from_landmarks.shape)
    assert torch.equal(after.motion.expression, from_landmarks.motion.expression)
    assert torch.equal(after.motion.jaw, from_landmarks.motion.jaw)
    assert (after.motion.corrective[:, -1] == 1).all()


def test_a_frame_that_slipped_by_a_pixel_is_put_back(speaker):
    tracking = speaker.load_tracking()
    slipped = 60
    poses = tracking.motion.world_to_camera.clone()
    pixel = float(poses[slipped, 2, 3] / tracking.intrinsics[0, 0])
    poses[slipped, 0, 3] += pixel
    moved = replace(tracking, motion=replace(tracking.motion, world_to_camera=poses))
    aligner = PhotometricAligner(
        load_head("open"), moved, speaker.crop, speaker.frame, speaker.label
    )
    aligner.learn(lambda n: None)
    put_back = replace(moved, motion=aligner.refine(lambda n: None)[0])
    right, wrong, mended = (
        projected_landmarks(load_head("open"), track)[slipped]
        for track in (tracking, moved, put_back)
    )
    crop_pixel = 1 / speaker.crop.scale
    assert (wrong - right).norm(dim=-1).mean() > 0.9 * crop_pixel
    assert (mended - right).norm(dim=-1).mean() < 0.35 * crop_pixel


def gaps(head, tracking, pairs):
    """[T] the fitted head's and the tracker's mean distance of pairs, % of the eye distance."""
    row = {int(index): k for k, index in enumerate(head.landmark_index)}
    seen = torch.from_numpy(tracking.landmarks[:, :, :2])
    eyes = (seen[:, OUTER_EYE_LEFT] - seen[:, OUTER_EYE_RIGHT]).norm(dim=-1)
    ours = projected_landmarks(head, tracking)
    upper, lower = zip(*pairs, strict=True)
    fitted = ours[:, [row[k] for k in lower], 1] - ours[:, [row[k] for k in upper], 1]
    tracked = seen[:, lower, 1] - seen[:, upper, 1]
    return [100 * (gap.mean(1) / eyes) for gap in (fitted, tracked)]


@pytest.mark.parametrize("pairs", [LID_PAIRS, LIP_PAIRS], ids=["eyes", "mouth"])
def test_what_closes_in_the_picture_closes_on_the_head(speaker, pairs):
    fitted, tracked = gaps(load_head("open"), speaker.load_tracking(), pairs)
    closed = tracked < tracked.quantile(0.04)
    print(
        fitted[closed].mean(),
        tracked[closed].mean(),
        tracked.median(),
        (fitted - tracked).square().mean().sqrt(),
    )
    assert fitted[closed].mean() < tracked[closed].mean() + 0.6
    assert (fitted - tracked).square().mean().sqrt() < 0.4


def test_frames_without_a_face_keep_their_motion(speaker):
    tracking = speaker.load_tracking()
    valid = tracking.valid.clone()
    valid[40:50] = False
    motion = refined(speaker, replace(tracking, valid=valid)).motion
    assert torch.equal(motion.corrective[40:50], tracking.motion.corrective[40:50])
    assert torch.equal(motion.world_to_camera[40:50], tracking.motion.world_to_camera[40:50])
    assert not torch.equal(motion.corrective[:40], tracking.motion.corrective[:40])


def test_frames_in_which_a_hand_covers_the_mouth_are_left_out(speaker):
    tracking = speaker.load_tracking()
    behind = range(50, 62)

    def with_hand(index: int) -> np.ndarray:
        frame = speaker.frame(index).copy()
        if index in behind:
            lips = speaker.crop.to_crop(tracking.landmarks[index, LIPS_OUTER, :2]).mean(0)
            cv2.circle(frame, (int(lips[0]), int(lips[1])), 30, (190, 140, 115), -1)
        return frame

    after = photometric_refinement(
        load_head("open"), tracking, speaker.crop, with_hand, speaker.label, SilentProgress()
    )
    left_out = set(torch.nonzero(tracking.valid & ~after.valid).flatten().tolist())
    assert set(behind) <= left_out <= set(range(behind.start - 1, behind.stop + 1))


def test_speech_alone_covers_nothing(speaker):
    assert speaker.load_tracking().valid.all()


def test_a_picture_without_texture_moves_nothing_but_what_closes(speaker, from_landmarks):
    head, tracking = load_head("open"), from_landmarks

    def grey(index: int) -> np.ndarray:
        return np.full_like(speaker.frame(index), 128)

    motion = photometric_refinement(
        head, tracking, speaker.crop, grey, speaker.label, SilentProgress()
    ).motion
    assert torch.equal(motion.world_to_camera, tracking.motion.world_to_camera)
    before = projected_landmarks(head, tracking)
    after = projected_landmarks(head, replace(tracking, motion=motion))
    moved = (after - before).norm(dim=-1).mean(0)
    row = {int(index): k for k, index in enumerate(head.landmark_index)}
    assert moved[[row[k] for k in (168, 4, 105, 334, 152, 234, 454)]].max() < 0.15  # pixels


def test_a_frame_in_which_no_point_is_seen_gives_no_value():
    grey = np.zeros((40, 40), np.uint8)
    tint = np.zeros((40, 40, 3), np.uint8)
    pixels = np.array([[10.0, 10.0], [30.0, 30.0]], np.float32)
    picture = Picture(grey=grey, label=np.zeros((40, 40), np.uint8), tint=tint)
    band = Band.of(picture, pixels, 20.0)
    assert band.at(band.value, pixels[:0]).shape == (0,)
    assert band.at(tint, pixels[:0], whole=True).shape == (0, 3)
