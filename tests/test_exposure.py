"""Claims about changing light: it is measured, learnt from, and laid on with the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig, InpaintingConfig, SpeakConfig
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.video import read_frames
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import speak_frames
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_gaussians import fit_gaussians
from talkgs_cli.stages.fit_pictures import comparisons
from talkgs_cli.stages.score_regions import Regions
from talkgs_cli.stages.score_rows import SpeakerRows
from talkgs_cli.stages.speak import frames_of_speech
from talkgs_cli.stages.speak_frames import Performance
from talkgs_cli.training.exposure import measure_exposure
from talkgs_cli.training.inpainting_choice import Pair
from talkgs_cli.training.inpainting_pairs import PackedPair, PairMaker
from talkgs_cli.types import LABELS, Tracking

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


def measured(speaker: SpeakerFolder, tracking: Tracking | None = None) -> np.ndarray | None:
    tracking = tracking or speaker.load_tracking()
    train = training_frames(speaker, tracking).tolist()
    return measure_exposure(speaker, tracking, train, SILENT).gains


def test_the_light_of_each_frame_is_measured(flickering: SpeakerFolder):
    found = measured(flickering)
    assert found is not None
    off = np.log(found / made_gains(len(found)))
    off -= off.mean(axis=0)  # the average light is no frame's own
    assert np.abs(off).max() < 0.02
    train = training_frames(flickering, flickering.load_tracking()).numpy()
    assert np.abs(np.log(found[train]).mean(axis=0)).max() < 0.02


def test_held_out_frames_do_not_move_the_average_light(flickering: SpeakerFolder):
    before = measured(flickering)
    _, test = flickering.splits()
    for index in test:
        dim = (flickering.frame(index) * 0.5).astype(np.uint8)
        cv2.imwrite(str(flickering.frame_file(index)), np.ascontiguousarray(dim[..., ::-1]))
    after = measured(flickering)
    assert before is not None
    assert after is not None
    assert np.array_equal(before[: test.start], after[: test.start])
    assert after[list(test)] == pytest.approx(0.5 * before[list(test)], rel=0.03)


def test_a_frame_without_a_face_gets_its_neighbours_light(flickering: SpeakerFolder):
    tracking = flickering.load_tracking()
    valid = tracking.valid.clone()
    valid[19:24] = False  # the light falls steeply
    found = measured(flickering, replace(tracking, valid=valid))
    assert found is not None
    logs = np.log(found)
    assert logs[18, 2] - logs[24, 2] > 0.1
    assert logs[21] == pytest.approx((logs[18] + logs[24]) / 2, abs=1e-4)


def test_steady_light_is_left_alone(steady: SpeakerFolder):
    assert measured(steady) is None
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
    without = off_in_held_out(flickering, fitted(flickering, replace(TINY, follow_light=False)))
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


# -- whose light a face is shown in ----------------------------------------------------------------


@pytest.fixture
def fitted_steady(fitted_speaker: Path, speaker_copy: Callable[[Path], Path]) -> SpeakerFolder:
    return SpeakerFolder.open_(speaker_copy(fitted_speaker))


def given(speaker: SpeakerFolder, gains: np.ndarray) -> Avatar:
    """The speaker's avatar, saved with these gains."""
    avatar = Avatar.load(speaker)
    avatar.exposure = Exposure(np.repeat(gains.astype(np.float32)[:, None], 3, axis=1))
    avatar.save(speaker.gaussians)
    speak_frames._loaded.cache_clear()
    return avatar


def middle_of(frame: np.ndarray, speaker: SpeakerFolder) -> float:
    """Brightness of what is surely face in an original frame."""
    skin = np.all([speaker.label(k) == LABELS["skin"] for k in range(speaker.frame_count)], axis=0)
    crop = speaker.crop
    side = (crop.side, crop.side)
    sure = cv2.resize(cv2.erode(skin.astype(np.uint8), np.ones((9, 9))), side) > 0
    return float(frame[crop.top : crop.top + side[0], crop.left : crop.left + side[1]][sure].mean())


def test_speak_lays_the_light_of_each_frame_on_its_face(
    fitted_steady: SpeakerFolder, tmp_path: Path
):
    sound = tmp_path / "hum.wav"
    write_wav(sound, 0.1 * np.sin(np.arange(16000) / 15), 16000)
    spoken = list(frames_of_speech(fitted_steady, sound, SpeakConfig(inpaint=False)))
    alone = list(frames_of_speech(fitted_steady, sound, SpeakConfig(background="#808080")))
    dims = np.arange(fitted_steady.frame_count) % 3 == 0
    given(fitted_steady, np.where(dims, 0.5, 1.0))
    walk = Performance(fitted_steady, SpeakConfig(), SILENT)._walk
    places = list(islice(walk.positions(Fraction(1)), len(spoken)))
    assert 0 < dims[places].sum() < len(places)
    dimmed = frames_of_speech(fitted_steady, sound, SpeakConfig(inpaint=False))
    for before, after, place in zip(spoken, dimmed, places, strict=True):
        ratio = middle_of(after, fitted_steady) / middle_of(before, fitted_steady)
        assert ratio == pytest.approx(0.5 if dims[place] else 1.0, abs=0.02)
    shown = frames_of_speech(fitted_steady, sound, SpeakConfig(background="#808080"))
    assert all(np.array_equal(*pair) for pair in zip(alone, shown, strict=True))


def test_score_shows_each_row_in_the_light_of_the_held_out_frame(fitted_steady: SpeakerFolder):
    gains = np.ones(fitted_steady.frame_count)
    _, test = fitted_steady.splits()
    gains[test.start :] = 0.5

    def brightness(avatar: Avatar) -> dict[str, float]:
        regions = Regions.of(
            avatar.tracking.landmarks, fitted_steady.size, avatar.tracking.valid.numpy()
        )
        rows = SpeakerRows(fitted_steady, avatar, regions, [test.start])
        (original,) = read_frames(
            fitted_steady.video,
            start_s=float(test.start / fitted_steady.frame_rate),
            frames=1,
        )
        made = rows.of(test.start, original)
        return {m.row: middle_of(m.frame, fitted_steady) for m in made}

    bright = brightness(Avatar.load(fitted_steady))
    dim = brightness(given(fitted_steady, gains))
    assert {"tracked", "composite", "warped", "frozen"} <= bright.keys()
    for row, value in bright.items():
        assert dim[row] == pytest.approx(0.5 * value, rel=0.03), row


def test_pairs_for_the_inpainting_generator_are_in_one_light(fitted_steady: SpeakerFolder):
    count = fitted_steady.frame_count
    pairs = [Pair(4, 20), Pair(4, 20, face_only=True)]

    def made(avatar: Avatar) -> list[PackedPair]:
        maker = PairMaker(avatar, fitted_steady, InpaintingConfig(), list(range(count)))
        return list(maker.make(pairs))

    plain = made(Avatar.load(fitted_steady))
    gains = np.ones(count)
    gains[4] = 0.5  # the render's frame is dim
    lit = made(given(fitted_steady, gains))
    for before, after in zip(plain, lit, strict=True):
        inside = before.alpha > 250
        ratio = after.render[inside].mean() / before.render[inside].mean()
        assert ratio == pytest.approx(0.5, abs=0.02)
        face = cv2.erode((before.label == LABELS["skin"]).astype(np.uint8), np.ones((9, 9))) > 0
        ratio = after.reference[face].mean() / before.reference[face].mean()
        assert ratio == pytest.approx(0.5, abs=0.02)
