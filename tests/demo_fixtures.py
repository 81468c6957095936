"""The tests' speaker: a small generated video whose true motion is known (pytest plugin)."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from talkgs_cli.assets import is_present
from talkgs_cli.config import DemoConfig, FitConfig, PrepareConfig, TranslatorConfig
from talkgs_cli.runtime import SilentProgress

SMALL = DemoConfig(duration_s=8.0, size=224)
TINY_FIT = FitConfig(preset="draft", iterations=40, gaussians=1500, lpips_weight=0.0)
NEEDED_ASSETS = ("face_landmarker", "makehuman")
STAGE_ASSETS = (*NEEDED_ASSETS, "selfie_segmenter", "whisper_tiny_en")


@dataclass(frozen=True)
class DemoVideo:
    path: Path
    truth: object  # talkgs_cli.demo.truth.DemoTruth; not imported before it is needed
    config: DemoConfig


def _require(*assets: str) -> None:
    missing = [name for name in assets if not is_present(name)]
    if missing:
        pytest.skip(f"assets not in the cache: {', '.join(missing)} (talkgs assets --pull)")


@pytest.fixture(scope="session")
def demo_video(tmp_path_factory: pytest.TempPathFactory) -> DemoVideo:
    """An 8 s, 224 px video of the demo speaker, with its truth."""
    _require(*NEEDED_ASSETS)
    from talkgs_cli.demo.generator import make_demo_video

    path = tmp_path_factory.mktemp("demo_video") / "video.mp4"
    return DemoVideo(path, make_demo_video(path, SMALL, SilentProgress()), SMALL)


@pytest.fixture(scope="session")
def prepared_speaker(demo_video: DemoVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the prepared demo speaker. Read-only: see `speaker_copy`."""
    _require(*STAGE_ASSETS)
    from talkgs_cli.stages.prepare import prepare

    folder = tmp_path_factory.mktemp("prepared") / "speaker"
    prepare(demo_video.path, folder, PrepareConfig(consent="stated"), SilentProgress())
    return folder


def tiny_fit(folder: Path) -> dict:
    """Fit as little as gives a picture and a moving mouth: few steps, the linear lip model."""
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages import fit as stage

    return stage.fit(
        SpeakerFolder.open_(folder),
        TINY_FIT,
        SilentProgress(),
        translator_config=TranslatorConfig(networks=0),
    )


@pytest.fixture(scope="session")
def fitted_speaker(prepared_speaker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo speaker after the tiniest fit. Read-only: see `speaker_copy`."""
    folder = tmp_path_factory.mktemp("fitted") / "speaker"
    shutil.copytree(prepared_speaker, folder)
    tiny_fit(folder)
    return folder


@pytest.fixture
def speaker_copy(tmp_path: Path):
    """A function that copies a speaker folder, for tests that change it."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "speaker"))

    return copy
