"""Claims about changing light: it is measured, learnt from, and laid on with the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_gaussians import fit_gaussians
from talkgs_cli.stages.fit_pictures import comparisons
from talkgs_cli.training.exposure import measure_exposure

SILENT = SilentProgress()
TINY = FitConfig(iterations=80, gaussians=1500, lpips_weight=0.0, grain=False)


def made_gains(count: int) -> np.ndarray:
    """[T, 3] a light that comes and goes, warmer when it is dim."""
    wave = np.sin(np.arange(count) / 7.0)[:, None]
    return np.exp(wave * [0.10, 0.15, 0.20]).astype(np.float32)


@pytest.fixture
def steady(prepared_speaker: Path, speaker_copy: Callable[[Path], Path]) -> SpeakerFolder:
    return SpeakerFolder.open_(speaker_copy(prepared_speaker))


@pytest.fixture
def flickering(steady: SpeakerFolder) -> SpeakerFolder:
    """The same speaker under a light that changes."""
    for index, gain in enumerate(made_gains(steady.frame_count)):
        lit = np.clip(0.75 * gain * steady.frame(index) + 0.5, 0, 255).astype(np.uint8)
        cv2.imwrite(str(steady.frame_file(index)), np.ascontiguousarray(lit[..., ::-1]))
    return steady


def test_the_light_of_each_frame_is_measured(flickering: SpeakerFolder):
    found = measure_exposure(flickering, flickering.load_tracking(), SILENT).gains
    assert found is not None
    off = np.log(found / made_gains(len(found)))
    off -= off.mean(axis=0)  # the average light is no frame's own
    assert np.abs(off).max() < 0.02
    assert np.abs(np.log(found).mean(axis=0)).max() < 0.02


def test_a_frame_without_a_face_gets_its_neighbours_light(flickering: SpeakerFolder):
    tracking = flickering.load_tracking()
    valid = tracking.valid.clone()
    valid[10:12] = False
    found = measure_exposure(flickering, replace(tracking, valid=valid), SILENT).gains
    assert found is not None
    assert ((found[10] - found[9]) * (found[12] - found[10]) >= 0).all()


def test_steady_light_is_left_alone(steady: SpeakerFolder):
    assert measure_exposure(steady, steady.load_tracking(), SILENT).gains is None
    rgb = np.full((4, 4, 3), 0.5, np.float32)
    assert Exposure().laid_on(rgb, 3) is rgb


def fitted(speaker: SpeakerFolder, config: FitConfig) -> Avatar:
    tracking = speaker.load_tracking()
    job = FitJob(speaker, tracking, training_frames(speaker, tracking), config, "cpu", SILENT)
    return fit_gaussians(job).avatar


def off_in_held_out(speaker: SpeakerFolder, avatar: Avatar) -> float:
    """Mean absolute error of held-out faces, each in the light of its frame."""
    _, test = speaker.splits()
    frames = list(test)[::4]
    rendered = avatar.render(avatar.tracking.motion.at(torch.tensor(frames)))
    errors = []
    for index, (rgb, _) in zip(frames, rendered, strict=True):
        face = speaker.label(index) >= 3
        lit = avatar.exposure.laid_on(rgb, index)
        errors.append(np.abs(lit - speaker.frame(index) / 255.0)[face].mean())
    return float(np.mean(errors))


def test_a_fit_that_follows_the_light_comes_nearer_to_unseen_frames(flickering: SpeakerFolder):
    without = off_in_held_out(flickering, fitted(flickering, replace(TINY, exposure=False)))
    followed = fitted(flickering, TINY)
    assert off_in_held_out(flickering, followed) < 0.7 * without
    followed.save(flickering.gaussians)
    flickering.finish_stage("fit", {"config": {}, "result": {}})
    kept = Avatar.load(flickering).exposure.gains
    assert kept is not None
    assert np.array_equal(kept, followed.exposure.gains)


def test_a_face_takes_the_light_of_the_frame_it_is_laid_on(flickering: SpeakerFolder):
    avatar = fitted(flickering, TINY)
    train, test = flickering.splits()
    for shown in comparisons(flickering, avatar, list(test)[::6]):
        under = avatar.reference_for(
            avatar.tracking.motion.at(slice(shown.index, shown.index + 1)), train
        )
        skin = cv2.erode((flickering.label(under) == 3).astype(np.uint8), np.ones((15, 15)))
        there = flickering.frame(under)[skin > 0].mean()
        assert shown.composite[skin > 0].mean() == pytest.approx(there, rel=0.03)
