"""Claims about the Inpainting Generator: starts as feathering, learns the seam."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkgs_cli.avatar import Avatar
from talkgs_cli.compositing import Compositor
from talkgs_cli.compositing.inpainter import Inpainter
from talkgs_cli.compositing.seam import SeamGrid
from talkgs_cli.config import InpaintingConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.metrics.lips import opening
from talkgs_cli.networks.inpainting import InpaintingDescription, InpaintingGenerator
from talkgs_cli.rendering.exposure import Exposure
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import fit_inpainting as module
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_inpainting import fit_inpainting, helps
from talkgs_cli.training.inpainting import InpaintingTrainer, SeamBatch, fetch
from talkgs_cli.training.inpainting_choice import Alignment, Pair, PairChooser
from talkgs_cli.training.inpainting_pairs import PackedPair, with_face_of
from talkgs_cli.types import LABELS, Crop

TINY = InpaintingConfig(iterations=12, pairs=8, width=8, lpips_weight=0.0)
SIZE = 96


def painted_face(size: int, mouth: float, colour: float) -> tuple[np.ndarray, np.ndarray]:
    """(rgb [S, S, 3], mask [S, S]) of a round face whose chin hangs lower the wider the mouth."""
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    mask = np.hypot(y / (0.30 + mouth), x / 0.25) < 1
    rgb = np.full((size, size, 3), 0.2, np.float32)
    rgb[x > 0] = 0.5
    rgb[mask] = colour
    return rgb, mask


def painted_pair(mouth: float, under: float) -> PackedPair:
    """A face with one mouth, rendered too dark, over a frame with another mouth."""
    target, mask = painted_face(SIZE, mouth, 0.7)
    reference, other = painted_face(SIZE, under, 0.7)
    label = np.where(other, LABELS["skin"], LABELS["background"]).astype(np.uint8)
    render = np.where(mask[..., None], [0.62, 0.62, 0.62], 0.0)
    values = (render, mask, reference, label, target)
    packed = [np.asarray(v * 255 + 0.5, np.uint8) if v is not label else label for v in values]
    return PackedPair(*packed)


@pytest.fixture
def generator() -> InpaintingGenerator:
    return InpaintingGenerator(InpaintingDescription(SIZE, 1, (96, 96), 8, 0.06, 0.03))


def test_an_untrained_network_leaves_the_feathered_composite(generator: InpaintingGenerator):
    rgb, mask = painted_face(SIZE, 0.05, 0.7)
    alpha = mask.astype(np.float32)
    frame, other = painted_face(SIZE, 0.0, 0.7)
    frame = (frame * 255).astype(np.uint8)
    label = np.where(other, LABELS["skin"], 0).astype(np.uint8)
    crop = Crop(0, 0, SIZE, SIZE)
    plain = Compositor(crop).paste(rgb * alpha[..., None], alpha, frame, label)
    joined = Compositor(crop, Inpainter(generator)).paste(
        rgb * alpha[..., None], alpha, frame, label
    )
    assert np.abs(plain.astype(int) - joined).max() <= 1


@pytest.mark.parametrize(
    "crop", [Crop(-20, -10, 96, 96), Crop(10, 12, 48, 96), Crop(3, 5, 120, 96)]
)
def test_crops_of_any_scale_and_place_are_joined(crop: Crop, generator: InpaintingGenerator):
    rgb, mask = painted_face(SIZE, 0.05, 0.7)
    alpha = mask.astype(np.float32)
    frame = np.full((100, 130, 3), 90, np.uint8)
    label = np.full((SIZE, SIZE), LABELS["skin"], np.uint8)
    plain = Compositor(crop).paste(rgb * alpha[..., None], alpha, frame, label)
    joined = Compositor(crop, Inpainter(generator)).paste(
        rgb * alpha[..., None], alpha, frame, label
    )
    difference = np.abs(plain.astype(int) - joined)
    assert (plain != frame).mean() > 0.03
    assert difference.mean() < 0.5


def test_pixels_are_fetched_from_where_the_shift_points():
    ramp = torch.arange(20.0).expand(1, 1, 10, 20).contiguous()
    shift = torch.zeros(1, 2, 10, 20)
    shift[:, 0] = 1.5
    assert torch.allclose(fetch(ramp, shift)[0, 0, :, 2:17], ramp[0, 0, :, 2:17] + 1.5, atol=1e-4)


def test_the_compositor_does_what_training_saw():
    pair = painted_pair(0.08, 0.0)
    about = InpaintingDescription(SIZE, 1, (SIZE, SIZE), 8, 0.06, 0.03)
    torch.manual_seed(0)
    generator = InpaintingGenerator(about)
    torch.nn.init.normal_(generator.leave.weight, std=0.3)
    batch = SeamBatch.of([pair], about.hole, SIZE)
    with torch.no_grad():
        wanted = batch.joined(generator(batch.seen, batch.band))[0].permute(1, 2, 0).numpy()
    alpha = pair.alpha.astype(np.float32) / 255
    rgb = pair.render.astype(np.float32) / 255 * alpha[..., None]
    compositor = Compositor(Crop(0, 0, SIZE, SIZE), Inpainter(generator))
    made = compositor.paste(rgb, alpha, pair.reference, pair.label)
    difference = np.abs(np.clip(wanted, 0, 1) - made / 255)
    # Training fetches linearly, the compositor cubically: edges differ, flat colour must not.
    assert np.median(difference) < 0.004
    assert difference.mean() < 0.01


def test_training_removes_a_ghost_chin_and_a_step_in_colour():
    mouths = (0.0, 0.03, 0.06, 0.09)
    pairs = [painted_pair(a, b) for a, b in itertools.product(mouths, mouths) if a != b]
    config = replace(TINY, iterations=150, hole=0.03)
    trainer = InpaintingTrainer(pairs, SeamGrid.around(SIZE, (SIZE, SIZE)), config)
    for _ in trainer.run():
        pass
    figures = trainer.measure([painted_pair(0.015, 0.075), painted_pair(0.075, 0.015)])
    assert figures["seam_psnr"] > figures["seam_psnr_feathered"] + 2
    assert helps(figures)


def test_continued_training_ends_in_the_same_weights(tmp_path: Path):
    pairs = [painted_pair(0.05, 0.0), painted_pair(0.0, 0.05)]
    grid = SeamGrid.around(SIZE, (SIZE, SIZE))
    whole = InpaintingTrainer(pairs, grid, TINY)
    broken = InpaintingTrainer(pairs, grid, TINY)
    for _ in whole.run():
        pass
    for _ in itertools.islice(broken.run(), 5):
        pass
    broken.save_checkpoint(tmp_path / "half.safetensors")
    again = InpaintingTrainer(pairs, grid, TINY)
    again.load_checkpoint(tmp_path / "half.safetensors")
    for _ in again.run():
        pass
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(value, again.generator.state_dict()[name]), name


def test_a_network_that_makes_seams_worse_is_not_kept():
    assert not helps({"seam_psnr": 24.0, "seam_psnr_feathered": 25.0})
    assert not helps(
        {
            "seam_psnr": 26.0,
            "seam_psnr_feathered": 25.0,
            "seam_lpips": 0.03,
            "seam_lpips_feathered": 0.02,
        }
    )


def test_a_gain_within_the_noise_is_not_kept():
    seams = {"seam_psnr": 28.0, "seam_psnr_feathered": 27.0, "seam_lpips_feathered": 0.0125}
    assert not helps({**seams, "seam_lpips": 0.0124})
    assert helps({**seams, "seam_lpips": 0.0120})


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, generator: InpaintingGenerator):
    file = tmp_path / "inpainting.safetensors"
    generator.save(file)
    assert InpaintingGenerator.load(file).about == generator.about
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadInput, match="inpainting network"):
        InpaintingGenerator.load(file)


# -- on the demo speaker -------------------------------------------------------------------------


def job_of(speaker: SpeakerFolder) -> tuple[FitJob, Avatar]:
    from talkgs_cli.config import FitConfig

    avatar = Avatar.load(speaker)
    train = training_frames(speaker, avatar.tracking)
    job = FitJob(speaker, avatar.tracking, train, FitConfig(), "cpu", SilentProgress())
    return job, avatar


def test_the_frame_underneath_is_another_one_brought_to_the_same_pose(fitted_speaker: Path):
    speaker = SpeakerFolder.open_(fitted_speaker)
    job, avatar = job_of(speaker)
    frames = job.train.tolist()
    alignment = Alignment(avatar.head, avatar.tracking, avatar.intrinsics)
    openings = opening(avatar.tracking.landmarks)
    chooser = PairChooser(speaker, alignment, openings, frames[:-20], Exposure())
    pairs = chooser.choose(frames[-20:], seed=0) + chooser.choose(frames[:5], seed=0)
    points = speaker.crop.to_crop(avatar.tracking.landmarks[:, [33, 263, 1, 168], :2])
    left = []
    for pair in pairs:
        assert abs(pair.reference - pair.target) >= chooser.apart
        assert pair.reference in frames[:-20]
        matrix = alignment(pair)
        moved = (points[pair.reference] - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
        left.append(np.abs(moved - points[pair.target]).mean())
    assert len(pairs) == 25
    assert np.mean(left) < 1.0


def test_chosen_frames_agree_round_the_face(fitted_speaker: Path):
    speaker = SpeakerFolder.open_(fitted_speaker)
    job, avatar = job_of(speaker)
    frames = job.train.tolist()
    alignment = Alignment(avatar.head, avatar.tracking, avatar.intrinsics)
    chooser = PairChooser(
        speaker, alignment, opening(avatar.tracking.landmarks), frames, Exposure()
    )
    whole = [pair for pair in chooser.choose(frames[40:60], seed=0) if not pair.face_only]
    for pair in whole:
        others = [
            chooser.disagreement(Pair(pair.target, k)) for k in frames if abs(k - pair.target) > 5
        ]
        assert chooser.disagreement(pair) <= np.quantile(others, 0.15)
    assert whole
    assert chooser.disagreement(Pair(40, 40)) == 0


def test_most_faces_underneath_have_another_mouth(fitted_speaker: Path):
    speaker = SpeakerFolder.open_(fitted_speaker)
    job, avatar = job_of(speaker)
    frames = job.train.tolist()
    openings = opening(avatar.tracking.landmarks)
    alignment = Alignment(avatar.head, avatar.tracking, avatar.intrinsics)
    pairs = PairChooser(speaker, alignment, openings, frames, Exposure()).choose(
        frames[:40], seed=0
    )
    faces = [pair for pair in pairs if pair.face_only]
    assert 0.6 < len(faces) / len(pairs) < 0.95
    chosen = np.mean([abs(openings[p.target] - openings[p.reference]) for p in faces])
    usual = np.abs(openings[frames, None] - openings[None, frames]).mean()
    assert chosen > usual


def test_round_another_face_the_frame_stays_its_own():
    frame, other = np.full((64, 64, 3), 200, np.uint8), np.full((64, 64, 3), 40, np.uint8)
    label, other_label = (np.full((64, 64), LABELS["person"], np.uint8) for _ in range(2))
    label[20:40, 20:40] = LABELS["skin"]
    other_label[20:44, 20:40] = LABELS["skin"]  # a jaw that hangs lower
    mixed, mixed_label = with_face_of(frame, label, other, other_label)
    assert (mixed[24:42, 24:36] == 40).all()
    assert (mixed[:14] == 200).all()
    assert (mixed[50:] == 200).all()
    np.testing.assert_array_equal(mixed_label, other_label)


def test_with_another_face_comes_the_shadow_below_its_chin():
    frame, other = np.full((256, 256, 3), 200, np.uint8), np.full((256, 256, 3), 40, np.uint8)
    label = np.full((256, 256), LABELS["neck"], np.uint8)
    label[:, 170:] = LABELS["person"]  # a collar
    label[50:100, 75:180] = LABELS["skin"]
    mixed, _ = with_face_of(frame, label, other, label)
    assert (mixed[100:104, 90:150] == 40).all()
    assert (mixed[145:] == 200).all()
    assert (mixed[:, 220:] == 200).all()


def test_no_network_can_show_the_chin_of_the_frame_underneath(generator: InpaintingGenerator):
    rgb, mask = painted_face(SIZE, 0.15, 0.7)
    alpha = mask.astype(np.float32)
    frame = np.full((SIZE, SIZE, 3), 120, np.uint8)
    label = np.full((SIZE, SIZE), LABELS["neck"], np.uint8)
    label[20:60, 30:66] = LABELS["skin"]
    frame[61:63] = 0  # the chin's shadow, just below the face's label
    crop = Crop(0, 0, SIZE, SIZE)
    inpainter = Inpainter(generator)
    about = inpainter.generator.about
    still, same = torch.zeros(1, 2, *about.window), torch.zeros(1, 3, *about.window)

    class Hiding:
        """Says that the render is to be seen nowhere."""

        def __init__(self) -> None:
            self.about = about

        def __call__(self, seen: torch.Tensor, band: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"weight": -2 * band, "shift": still, "colour": same}

    inpainter.generator = Hiding()  # type: ignore[assignment]
    pasted = Compositor(crop, inpainter).paste(rgb * alpha[..., None], alpha, frame, label)
    assert np.abs(pasted[61:63, 40:56].astype(int) - round(0.7 * 255)).max() <= 2
    assert (pasted[88, 44:52] == 120).all()  # at the render's edge it decides


def test_fit_keeps_the_network_only_where_it_helps(
    fitted_speaker: Path, speaker_copy, monkeypatch: pytest.MonkeyPatch
):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    job, avatar = job_of(speaker)
    monkeypatch.setattr(module, "helps", lambda figures: True)
    answer = fit_inpainting(job, avatar, TINY)
    assert answer is not None
    assert answer["used"]
    assert Compositor.load(speaker).inpainter is not None
    assert Compositor.load(speaker, inpaint=False).inpainter is None
    first = speaker.inpainting.read_bytes()
    steps, run = [], InpaintingTrainer.run
    monkeypatch.setattr(
        InpaintingTrainer, "run", lambda self: (steps.append(v) or v for v in run(self))
    )
    fit_inpainting(job, avatar, TINY)  # as after a stop in the report, which comes next
    assert speaker.inpainting.read_bytes() == first
    assert not steps, "what was learnt is kept until the whole fit is finished"
    monkeypatch.setattr(module, "helps", lambda figures: False)
    answer = fit_inpainting(job, avatar, TINY)
    assert answer is not None
    assert not answer["used"]
    assert Compositor.load(speaker).inpainter is None
    assert fit_inpainting(job, avatar, None) is None
