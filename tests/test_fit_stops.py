"""Claims about fits that end early, are stopped, or find something missing; none is long."""

from dataclasses import replace
from pathlib import Path

import torch

from talkgs_cli.avatar import Avatar
from talkgs_cli.config import FitConfig
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_gaussians import new_trainer
from talkgs_cli.stages.fit_report import write_fit_report
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
        prepared_speaker, minutes=0.01, validation_share=0.1, validate_every=100_000
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
