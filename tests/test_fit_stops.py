"""Claims about fits that end early, are stopped, or find something missing; none is long."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import BaseConfig, FitConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob, already_done, forget_after, training_frames
from talkgs_cli.stages.fit_gaussians import _checkpoint, new_trainer
from talkgs_cli.stages.fit_report import write_fit_report
from talkgs_cli.training.checkpoint import load_checkpoint
from talkgs_cli.training.gaussians import GaussianTrainer
from talkgs_cli.training.objective import Objective

TINY = FitConfig(preset="draft", iterations=12, gaussians=600, lpips_weight=0.0)


def trainer_of(folder: Path, **changes) -> GaussianTrainer:
    """A trainer before its first step."""
    speaker = SpeakerFolder.open_(folder)
    tracking = speaker.load_tracking()
    train = training_frames(speaker, tracking)
    job = FitJob(speaker, tracking, train, replace(TINY, **changes), "cpu", SilentProgress())
    return new_trainer(job)


def test_a_fit_by_the_minute_deploys_what_it_learnt_last(prepared_speaker: Path):
    trainer = trainer_of(
        prepared_speaker, minutes=0.01, validation_share=0.25, validate_every=100_000
    )
    entries = []
    steps = list(trainer.run(entries.append))
    judged = [entry["step"] for entry in entries if "validation" in entry]
    assert judged == [steps[-1]]
    learnt = trainer.gaussians.state_dict()
    assert all(torch.equal(trainer.best[name], value) for name, value in learnt.items())


def test_gradients_that_are_not_numbers_stay_out_of_density_control(
    prepared_speaker: Path, monkeypatch
):
    terms = Objective.image_terms

    def spoil(self, seen, frame):
        root = (seen - seen).sqrt()  # 0, and its gradient is none
        return terms(self, seen + 0 * root, frame)

    monkeypatch.setattr(Objective, "image_terms", spoil)
    trainer = trainer_of(prepared_speaker, iterations=2, densify_every=1000)
    list(trainer.run(lambda entry: None))
    assert trainer.bad_steps == 2
    assert torch.isnan(trainer.objective.means2d.absgrad).any()
    assert torch.isfinite(trainer.density.pull).all()


def test_a_clip_without_a_face_at_its_end_still_gets_its_report(fitted_speaker: Path, speaker_copy):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    train, test = speaker.splits()
    avatar = Avatar.load(speaker)
    avatar.tracking.valid[test.start :] = False
    avatar.tracking.valid[4 : train.stop] = False  # few pictures are made sooner
    write_fit_report(speaker, avatar, {}, SilentProgress())
    page = speaker.fit_report.read_text(encoding="utf-8")
    assert "No face was found in the last eleventh" in page
    assert "frame 3</figcaption>" in page
    assert "Frames it never saw" not in page


def settings(seed: int) -> dict:
    return {"renderer": {"preset": "draft", "seed": seed}}


def begin(speaker: SpeakerFolder, seed: int, *made: str) -> None:
    """Leave what a fit leaves that was stopped after making these files."""
    speaker.fit.mkdir(exist_ok=True)
    speaker.fit_config.write_text(json.dumps(settings(seed)))
    for name in made:
        (speaker.fit / name).write_text(f"seed {seed}")


@pytest.fixture
def folder(prepared_speaker: Path, tmp_path: Path) -> SpeakerFolder:
    """The manifest alone of a prepared speaker."""
    (tmp_path / "speaker").mkdir()
    shutil.copy(SpeakerFolder.manifest_path(prepared_speaker), tmp_path / "speaker")
    return SpeakerFolder.open_(tmp_path / "speaker")


def test_a_half_done_fit_never_replaces_the_finished_one_that_is_kept(folder: SpeakerFolder):
    begin(folder, 1, "gaussians.safetensors")
    folder.finish_stage("fit", {"config": settings(1), "result": {}})
    assert already_done(folder, settings(2), force=True) is None
    begin(folder, 2, "translator.safetensors", "gaussians.safetensors")  # and stopped
    assert already_done(folder, settings(3), force=True) is None
    assert (folder.path / "fit.old/gaussians.safetensors").read_text() == "seed 1"
    assert not list(folder.fit.iterdir())


def test_an_attempt_that_made_nothing_stands_in_nobody_s_way(folder: SpeakerFolder):
    begin(folder, 1)
    assert already_done(folder, settings(2), force=False) is None


def test_an_unfinished_fit_is_called_unfinished_and_is_kept_without_force(folder: SpeakerFolder):
    begin(folder, 1, "translator.safetensors")
    with pytest.raises(UsageError, match="unfinished fit with other settings") as failure:
        already_done(folder, settings(2), force=False)
    assert "throw it away" in str(failure.value.hint)
    assert already_done(folder, settings(1), force=False) is None
    assert folder.translator.is_file()


def test_a_fit_of_a_version_with_fewer_settings_is_still_finished(folder: SpeakerFolder):
    begin(folder, 1, "gaussians.safetensors")
    folder.finish_stage("fit", {"config": settings(1), "result": {"steps": 5}})
    newer = {**settings(1), "renderer": {**settings(1)["renderer"], "place_teeth": True}}
    assert already_done(folder, newer, force=False) == {"steps": 5, "already_done": True}


def test_an_unfinished_fit_of_another_version_is_called_so(folder: SpeakerFolder):
    begin(folder, 1, "translator.safetensors")
    newer = {**settings(1), "renderer": {**settings(1)["renderer"], "place_teeth": True}}
    with pytest.raises(UsageError, match="another version") as failure:
        already_done(folder, newer, force=False)
    assert "--force" in failure.value.hint


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 2**32}, {"minutes": float("nan")}, {"minutes": float("inf")}],
)
def test_a_seed_or_a_time_that_cannot_be_is_refused_at_once(wrong: dict):
    with pytest.raises(UsageError, match="|".join(wrong)):
        FitConfig(**wrong)
    if "seed" in wrong:
        with pytest.raises(UsageError, match="seed"):
            BaseConfig(**wrong)


def test_a_checkpoint_cut_off_by_a_kill_does_not_stop_the_next_one(tmp_path: Path, monkeypatch):
    for name in ("000900", "001000.partial"):
        (tmp_path / name).mkdir()

    def save(_, folder: Path) -> None:
        folder.with_name(f"{folder.name}.partial").replace(folder)

    monkeypatch.setattr("talkgs_cli.stages.fit_gaussians.save_checkpoint", save)
    _checkpoint(None, tmp_path / "001000")
    assert [path.name for path in tmp_path.iterdir()] == ["001000"]


def test_a_continued_fit_says_no_step_of_its_log_twice(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    forget_after(log, "step", 0)
    entries = [{"step": 100}, {"step": 200, "validation": 1}, {"step": 300}, {"inpainting_step": 9}]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"step": 4')
    forget_after(log, "step", 200)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [*entries[:2], entries[3]]
    forget_after(log, "inpainting_step", 0)
    assert [json.loads(line) for line in log.read_text().splitlines()] == entries[:2]


def test_a_continued_fit_that_diverges_goes_back_to_where_the_first_would_have(
    prepared_speaker: Path, tmp_path: Path
):
    trainer = trainer_of(prepared_speaker, iterations=6, validate_every=4, validation_share=0.25)
    steps = trainer.run(lambda entry: None)
    while next(steps) < 5:
        pass
    _checkpoint(trainer, tmp_path / "000005")
    continued = trainer_of(prepared_speaker, iterations=6, validate_every=4, validation_share=0.25)
    load_checkpoint(continued, tmp_path / "000005")
    assert continued.safe.keys() == trainer.safe.keys()
    for name, value in trainer.safe.items():
        assert torch.equal(continued.safe[name], value), name
    assert not torch.equal(continued.safe["model.sh0"], continued.gaussians.sh0)


def test_gaussians_may_leave_their_triangle_as_far_as_is_set(prepared_speaker: Path):
    limits = trainer_of(prepared_speaker, position_limit=3.5).gaussians.offset_limit_px
    assert set(limits.tolist()) == {0.0, 3.5}
