"""Claims about fit: it learns, repeats itself byte for byte, continues, and never loses a fit."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from talkgs_cli.avatar import Avatar, speaker_head
from talkgs_cli.config import FitConfig
from talkgs_cli.errors import BadInput, MachineLacks, UsageError
from talkgs_cli.metrics.eyes import LIDS
from talkgs_cli.metrics.lips import opening
from talkgs_cli.runtime import SilentProgress, seed_everything
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import fit as module
from talkgs_cli.stages.fit import fit
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_gaussians import new_trainer, without_block
from talkgs_cli.training import frames as frames_module
from talkgs_cli.training.density import DensityControl
from talkgs_cli.training.gaussian_start import Start
from talkgs_cli.training.gaussians import GaussianTrainer
from talkgs_cli.training.objective import Objective
from talkgs_cli.types import REGIONS

SILENT = SilentProgress()
TINY = FitConfig(preset="draft", iterations=40, gaussians=1500, lpips_weight=0.0)


@pytest.fixture
def speaker(prepared_speaker: Path, speaker_copy, monkeypatch) -> SpeakerFolder:
    monkeypatch.setattr(module, "fit_translator", lambda *_: None)
    monkeypatch.setattr(module, "write_fit_report", lambda *_: None)
    return SpeakerFolder.open_(speaker_copy(prepared_speaker))


def psnr_of_held_out(speaker: SpeakerFolder) -> float:
    avatar = Avatar.load(speaker)
    _, test = speaker.splits()
    frames = list(test)[::4]
    errors = []
    rendered = avatar.render(avatar.tracking.motion.at(torch.tensor(frames)))
    for index, (rgb, _) in zip(frames, rendered, strict=True):
        face = speaker.label(index) >= 3
        errors.append(((rgb - speaker.frame(index) / 255.0)[face] ** 2).mean())
    return float(-10 * torch.tensor(errors).log10().mean())


def test_more_steps_make_unseen_frames_look_more_alike(speaker: SpeakerFolder):
    fit(speaker, replace(TINY, iterations=2), SilentProgress())
    before = psnr_of_held_out(speaker)
    fit(speaker, replace(TINY, iterations=120), SilentProgress(), force=True)
    after = psnr_of_held_out(speaker)
    assert after > before + 3
    assert after > 24


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    speaker: SpeakerFolder, prepared_speaker: Path, speaker_copy
):
    fit(speaker, TINY, SilentProgress())
    first = speaker.gaussians.read_bytes()
    fit(speaker, replace(TINY, seed=1), SilentProgress(), force=True)
    assert speaker.gaussians.read_bytes() != first
    fit(speaker, TINY, SilentProgress(), force=True)
    assert speaker.gaussians.read_bytes() == first


EVERYTHING = replace(
    TINY,
    iterations=30,
    validation_share=0.25,
    validate_every=8,
    mean_of_steps=8,
    embedding="head",
    densify_every=6,
    densify_gradient=0.0,
    max_gaussians=1600,
    checkpoint_every_s=0.0,
)
"""Whatever has a state of its own is switched on."""

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import test_fit as tests
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.runtime import SilentProgress
tests.module.fit_translator = lambda *_: None
tests.fit(SpeakerFolder.open_(Path(sys.argv[1])), tests.EVERYTHING, SilentProgress())
"""


def test_a_fit_killed_in_the_middle_ends_with_the_same_bytes(
    speaker: SpeakerFolder, prepared_speaker: Path, tmp_path: Path
):
    fit(speaker, EVERYTHING, SilentProgress())
    assert '"validation"' in speaker.fit_log.read_text(), "the best weights have a state as well"
    whole = speaker.gaussians.read_bytes()
    other = SpeakerFolder.open_(Path(shutil.copytree(prepared_speaker, tmp_path / "killed")))
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", KILLED, str(other.path)], cwd=root) as process:
        while not list(other.checkpoints.glob("00001[3-9]")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    result = fit(other, EVERYTHING, SilentProgress())
    assert result["resumed"]
    assert other.gaussians.read_bytes() == whole


def test_a_fit_stopped_in_its_report_does_not_fit_again(
    speaker: SpeakerFolder, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_fit_report", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(speaker, TINY, SilentProgress())
    before = speaker.gaussians.read_bytes()
    answer = fit(SpeakerFolder.open_(speaker.path), TINY, SilentProgress())
    assert answer["resumed"]
    assert speaker.gaussians.read_bytes() == before
    assert not speaker.checkpoints.exists()


def test_a_second_run_does_nothing_and_another_config_needs_force(speaker: SpeakerFolder):
    fit(speaker, TINY, SilentProgress())
    written = speaker.gaussians.stat().st_mtime_ns
    assert fit(speaker, TINY, SilentProgress())["already_done"]
    assert speaker.gaussians.stat().st_mtime_ns == written
    with pytest.raises(UsageError) as failure:
        fit(speaker, replace(TINY, iterations=41), SilentProgress())
    assert "--force" in str(failure.value.hint)
    fit(speaker, replace(TINY, iterations=3), SilentProgress(), force=True)
    assert (speaker.path / "fit.old" / "gaussians.safetensors").stat().st_mtime_ns == written


def test_the_log_is_one_json_object_a_line(speaker: SpeakerFolder):
    fit(speaker, TINY, SilentProgress())
    entries = [json.loads(line) for line in speaker.fit_log.read_text().splitlines()]
    assert entries[-1]["step"] == TINY.iterations


def test_held_out_frames_are_never_learnt_from(speaker: SpeakerFolder):
    frames = training_frames(speaker, speaker.load_tracking())
    _, test = speaker.splits()
    assert int(frames.max()) < test.start
    assert len(test) == speaker.frame_count // 11


def test_too_few_frames_are_refused(speaker: SpeakerFolder):
    tracking = speaker.load_tracking()
    tracking.valid[10:] = False
    speaker.save_tracking(tracking)
    with pytest.raises(BadInput, match="Only 10 frames"):
        fit(speaker, TINY, SilentProgress())


def test_cuda_without_a_card_is_refused_with_the_reason(speaker: SpeakerFolder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA card")
    with pytest.raises(MachineLacks, match="can't be used here"):
        fit(speaker, replace(TINY, device="cuda"), SilentProgress())


def test_a_nan_never_reaches_the_finished_speaker(speaker: SpeakerFolder, monkeypatch):
    seed_everything(0)
    loss = Objective.loss
    monkeypatch.setattr(
        Objective,
        "loss",
        lambda self, frame, step, done, **other: (
            loss(self, frame, step, done, **other) * (float("nan") if step == 5 else 1)
        ),
    )
    fit(speaker, TINY, SilentProgress())
    assert all(torch.isfinite(v.float()).all() for v in load_file(speaker.gaussians).values())


def test_a_fit_that_diverges_goes_back_to_good_weights_at_lower_rates(
    speaker: SpeakerFolder, monkeypatch
):
    loss = Objective.loss
    spoilt = []

    def spoil(self, frame, step, done, **other):
        value = loss(self, frame, step, done, **other)
        if 25 <= step < 50 and len(spoilt) < 25:
            spoilt.append(step)
            return value * float("inf")
        return value

    monkeypatch.setattr(Objective, "loss", spoil)
    fit(speaker, replace(TINY, iterations=60, validate_every=10), SilentProgress())
    entries = [json.loads(line) for line in speaker.fit_log.read_text().splitlines()]
    assert [e["rollback"] for e in entries if "rollback" in e] == [1]
    assert entries[-1]["step"] == 60
    assert psnr_of_held_out(speaker) > 20


@pytest.mark.parametrize(("judged_from", "deployed"), [(0.5, 20), (0.75, 40)])
def test_the_validation_block_is_left_out_of_training_and_chooses_the_best_late_weights(
    speaker: SpeakerFolder, monkeypatch, judged_from: float, deployed: int
):
    train = training_frames(speaker, speaker.load_tracking())
    learnt, judged = without_block(train, 0.25)
    assert len(judged) >= 40
    assert len(learnt) + len(judged) == len(train)
    assert set(judged.tolist()) == set(range(int(judged[0]), int(judged[-1]) + 1))
    seen = set()
    taken = GaussianTrainer.take_step

    def spy(trainer, frame):
        seen.add(frame.index)
        return taken(trainer, frame)

    monkeypatch.setattr(GaussianTrainer, "take_step", spy)
    verdicts = iter([(0.1, 30.0), (0.3, 25.0)])
    verdict = {}

    def judge(self, frame):
        step = self.avatar.steps_so_far()
        if step not in verdict:
            verdict[step] = next(verdicts)
        return verdict[step]

    weights = {}
    judged_at = GaussianTrainer._judge

    def remember(trainer, log):
        judged_at(trainer, log)
        weights[trainer.step] = trainer.gaussians.sh0.detach().clone()

    monkeypatch.setattr(GaussianTrainer, "_judge", remember)
    monkeypatch.setattr(Objective, "judge", judge)
    monkeypatch.setattr(Avatar, "steps_so_far", lambda self: len(weights), raising=False)
    config = replace(TINY, validation_share=0.25, validate_every=20, judged_from=judged_from)
    fit(speaker, config, SilentProgress())
    assert not seen & set(judged.tolist())
    assert torch.equal(load_file(speaker.gaussians)["sh0"], weights[deployed])


def steps_of(speaker: SpeakerFolder, steps: int = 6, **changes) -> tuple[GaussianTrainer, list]:
    """A trainer after a few steps with other settings, and the frames it saw."""
    tracking = speaker.load_tracking()
    config = replace(TINY, iterations=steps, gaussians=600, motion_from=0.0, **changes)
    train = training_frames(speaker, tracking)
    job = FitJob(speaker, tracking, train, config, "cpu", SilentProgress())
    trainer, frames = new_trainer(job), []
    taken = trainer.take_step
    trainer.take_step = lambda frame: (frames.append(frame), taken(frame))[1]
    list(trainer.run(lambda entry: None))
    trainer.finish()
    for name, value in trainer.gaussians.state_dict().items():
        assert torch.isfinite(value.float()).all(), name
    return trainer, frames


def test_without_blendshapes_gaussians_only_follow_their_triangles(speaker: SpeakerFolder):
    trainer, _ = steps_of(speaker, blendshapes=False)
    assert not trainer.gaussians.position_basis.any()
    assert trainer.gaussians.offset.any()


def test_the_paper_s_embedding_learns_the_head_s_own_parameters(speaker: SpeakerFolder):
    trainer, _ = steps_of(speaker, embedding="head", shape_residual=True)
    learnt = trainer.embedding
    for name in ("expression", "jaw", "orient", "translation", "shape"):
        assert getattr(learnt, name).any(), name
    assert steps_of(speaker, embedding="off")[0].embedding is None


def test_a_frame_is_corrected_for_its_first_fifteen_visits(speaker: SpeakerFolder):
    trainer, _ = steps_of(speaker, steps=1)
    frame = int(trainer.train[0])
    for draws, epochs in ((1, 15), (3, 5)):
        trainer.draws_of[frame] = draws
        trainer.step = epochs * len(trainer.drawn) - 1
        assert trainer._corrected(frame, 0.5)
        trainer.step += 1
        assert not trainer._corrected(frame, 0.5)
    trainer.step = 0
    assert not trainer._corrected(frame, -0.1), "the embedding joins later"


def test_a_frame_s_correction_moves_only_when_the_frame_is_seen(speaker: SpeakerFolder):
    trainer, frames = steps_of(speaker, steps=6)
    rows = trainer.embedding.rows
    seen = {trainer.objective.row_of[frame.index] for frame in frames}
    assert set(torch.nonzero(rows.any(1))[:, 0].tolist()) == seen
    # One visit moves a number by the rate at most; the rate falls.
    assert rows.abs().max() <= trainer.config.lr_motion * 1.001


def test_gaussians_start_where_there_is_something_to_see(speaker: SpeakerFolder):
    tracking = speaker.load_tracking()
    train = training_frames(speaker, tracking).tolist()
    config = replace(TINY, gaussians=20_000)
    start = Start(speaker, tracking, speaker_head(tracking), train, config)
    pixels = torch.from_numpy(start.visible_pixels())
    head = start.build()
    place = {tuple(face): k for k, face in enumerate(start.faces.tolist())}
    of = torch.tensor([place[tuple(face)] for face in head.triangles.tolist()])
    counts = torch.zeros(len(pixels)).index_add(0, of[head.binding], torch.ones(len(head)))
    assert not counts[pixels == 0].any()

    def density(*names: str) -> float:
        there = torch.isin(start.regions, torch.tensor([REGIONS.index(name) for name in names]))
        return float(counts[there].sum() / pixels[there].sum())

    assert density("upper_teeth", "lower_teeth") == pytest.approx(4 * density("tongue"), rel=0.3)


def test_frames_with_wide_mouths_are_drawn_more_often(speaker: SpeakerFolder):
    trainer, _ = steps_of(speaker, steps=1, shut_eye_share=0.0)
    trainer.step = 0
    epoch = [wanted.index for wanted in itertools.islice(trainer.order(), len(trainer.drawn))]
    amount = opening(trainer.avatar.tracking.landmarks)
    often = [index for index in set(epoch) if epoch.count(index) == 3]
    once = [index for index in set(epoch) if epoch.count(index) == 1]
    assert len(often) + len(once) == len(trainer.train)
    assert min(amount[often]) >= max(amount[once])
    assert len(often) == pytest.approx(len(trainer.train) / 4, abs=1)


def test_frames_with_shut_eyes_are_drawn_until_they_are_not_rare(speaker: SpeakerFolder):
    tracking = speaker.load_tracking()
    shut = [4, 5, 9]
    landmarks = tracking.landmarks[[0] * len(tracking)]  # nobody blinks
    for upper, lower, _, _ in LIDS:
        landmarks[shut, upper] = landmarks[shut, lower]
    tracking = replace(tracking, landmarks=landmarks)
    train = training_frames(speaker, tracking)
    job = FitJob(speaker, tracking, train, replace(TINY, wide_mouth_draws=1), "cpu", SILENT)
    counts = torch.bincount(new_trainer(job).drawn, minlength=len(tracking))
    assert counts[shut].tolist() == [min(round(0.08 / 0.92 * (len(train) - 3) / 3), 8)] * 3
    assert int(counts.sum()) == len(train) + 3 * (int(counts[4]) - 1)
    never = replace(job, config=replace(job.config, shut_eye_share=0.0))
    assert len(new_trainer(never).drawn) == len(train)


def test_a_coarse_start_sees_halved_frames(speaker: SpeakerFolder, monkeypatch):
    monkeypatch.setattr(frames_module, "COARSE_ABOVE_PX", 32)
    _, frames = steps_of(speaker, coarse_until=0.5)
    heights = [frame.mask.shape[0] for frame in frames]
    assert heights == [heights[-1] // 2] * 3 + [heights[-1]] * 3


def test_the_deployed_weights_are_the_running_mean(speaker: SpeakerFolder):
    trainer, _ = steps_of(speaker, steps=12, mean_of_steps=8)
    assert torch.equal(trainer.gaussians.sh0, trainer.mean_weights["sh0"])


def test_children_of_split_gaussians_inherit_their_triangle(speaker: SpeakerFolder):
    growing = {"densify_every": 4, "densify_from": 0.0, "densify_until": 1.0}
    trainer, _ = steps_of(
        speaker, limits_in="triangles", max_gaussians=700, densify_gradient=0.0, **growing
    )
    head = trainer.gaussians
    assert 600 < len(head) <= 700
    parents = set(head.binding[:600].tolist())
    assert set(head.binding[600:].tolist()) <= parents
    assert len(head.offset_limit_px) == len(head)


def test_nearly_transparent_gaussians_are_dropped():
    control = DensityControl(4, replace(TINY, densify_gradient=1.0))
    logits = torch.tensor([0.0, -9.0, 0.0, 2.0])
    stay, parents = control.rows(SimpleNamespace(opacity_logits=logits))
    assert stay.tolist() == [0, 2, 3]
    assert parents.tolist() == []
