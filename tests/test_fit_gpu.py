"""Claims about fitting on a CUDA card; each has its twin on the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from talkgs_cli.config import FIT_PRESETS, FitConfig
from talkgs_cli.rendering.gsplat_backend import gsplat_status
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob, training_frames
from talkgs_cli.stages.fit_gaussians import new_trainer
from talkgs_cli.training.gaussians import GaussianTrainer

TINY = FitConfig(iterations=20, gaussians=600, lpips_weight=0.0, motion_from=0.0, coarse_until=0.0)


def trainer_on(folder: Path, device: str, config: FitConfig = TINY) -> GaussianTrainer:
    speaker = SpeakerFolder.open_(folder)
    tracking = speaker.load_tracking()
    train = training_frames(speaker, tracking)
    return new_trainer(FitJob(speaker, tracking, train, config, device, SilentProgress()))


def gradients_of_first_step(trainer: GaussianTrainer) -> dict[str, torch.Tensor]:
    frame = trainer.windows.load(int(trainer.train[0])).to(trainer.device)
    trainer.objective.loss(frame, 0, 1.0).backward()
    found = {n: p.grad for n, p in trainer.gaussians.named_parameters() if p.grad is not None}
    found["rows"] = trainer.embedding.rows.grad.to_dense()
    return {name: gradient.cpu() for name, gradient in found.items()}


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        largest = gradient.abs().max().clamp_min(1e-8)
        assert ((gradient - theirs[name]).abs().max() / largest) < 2e-2, name


@pytest.mark.gpu
def test_a_step_on_the_card_agrees_with_one_on_the_cpu(prepared_speaker: Path):
    if not gsplat_status().usable:
        pytest.skip(gsplat_status().reason)
    on_card = gradients_of_first_step(trainer_on(prepared_speaker, "cuda"))
    assert_alike(gradients_of_first_step(trainer_on(prepared_speaker, "cpu")), on_card)


@pytest.mark.gpu
def test_gaussians_are_split_and_pruned_on_the_card(prepared_speaker: Path):
    if not gsplat_status().usable:
        pytest.skip(gsplat_status().reason)
    growing = replace(TINY, densify_every=4, densify_gradient=0.0, max_gaussians=700)
    trainer = trainer_on(prepared_speaker, "cuda", growing)
    list(trainer.run(lambda entry: None))
    assert len(trainer.gaussians) > TINY.gaussians
    assert all(p.is_cuda and torch.isfinite(p).all() for p in trainer.gaussians.parameters())


def test_a_step_in_plain_torch_agrees_with_the_fused_one(prepared_speaker: Path, monkeypatch):
    """What runs on a card besides gsplat: the plain pose, the plain SSIM."""
    fused = gradients_of_first_step(trainer_on(prepared_speaker, "cpu"))
    from talkgs_cli.rendering import gaussian_head
    from talkgs_cli.rendering.ssim import ssim_reference
    from talkgs_cli.training import objective

    def plain(self, vertices, code):
        return self._pose(vertices, *self.blended(code))

    monkeypatch.setattr(gaussian_head.GaussianHead, "forward", plain)
    monkeypatch.setattr(objective, "ssim", ssim_reference)
    assert_alike(fused, gradients_of_first_step(trainer_on(prepared_speaker, "cpu")))


def test_presets_for_a_card_ask_for_one():
    chosen = {name: c for name, c in FIT_PRESETS.items() if name.startswith("cuda")}
    assert len(chosen) == 2
    for name, config in chosen.items():
        assert config == replace(config, preset=name, device="cuda")
