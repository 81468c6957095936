"""The whole way through the command line on the small demo speaker: prepare, fit, speak, score."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from demo_fixtures import tiny_fit

from talkgs_cli.speaker import SpeakerFolder

pytestmark = pytest.mark.slow


def talkgs(*arguments: object, folder: Path) -> dict:
    """Run a command with --json in a folder; its answer."""
    command = [sys.executable, "-m", "talkgs_cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def new_sentence(tmp_path_factory) -> Path:
    """2 to 4 seconds of speech that the demo video does not contain."""
    from talkgs_cli.demo.speech import SAMPLE_RATE_HZ, synthesize
    from talkgs_cli.media.audio import write_wav

    (sound,) = synthesize(["Nobody has ever said this to my mother."], "en-US")
    path = tmp_path_factory.mktemp("sound") / "new.wav"
    write_wav(path, sound, SAMPLE_RATE_HZ)
    return path


def test_prepare_finds_the_true_motion(demo_video, prepared_speaker):
    from talkgs_cli.demo.truth import truth_error

    speaker = SpeakerFolder.open_(prepared_speaker)
    tracking = speaker.load_tracking()
    assert speaker.frame_count == len(demo_video.truth) == len(tracking)
    assert speaker.frame_rate == Fraction(25)
    assert tracking.valid.float().mean() == 1
    error = truth_error(demo_video.truth, tracking)
    assert error["jaw_correlation"] > 0.8
    assert error["opening_correlation"] > 0.9
    assert error["pose_degrees"] < 2.0
    assert error["landmark_iod"] < 0.025


def test_four_commands_make_a_speaker_talk(
    tmp_path, prepared_speaker, fitted_speaker, demo_video, new_sentence
):
    """Prepare and fit again are no-ops here: the fixtures ran those stages on the same input."""
    import shutil

    from talkgs_cli.media.audio import read_audio
    from talkgs_cli.media.probe import probe
    from talkgs_cli.media.video import read_frames

    shutil.copytree(fitted_speaker, tmp_path / "speaker")
    again = talkgs("prepare", demo_video.path, "--consent", folder=tmp_path)
    assert again["already_done"]
    assert again["frames"] == demo_video.config.duration_s * 25

    answer = talkgs("speak", "--audio", new_sentence, "--out", "said.mp4", folder=tmp_path)
    info = probe(tmp_path / "said.mp4")
    sound = read_audio(new_sentence, 16000)
    frames = np.stack(list(read_frames(tmp_path / "said.mp4")))
    assert info.size == (demo_video.config.size, demo_video.config.size)
    assert info.has_audio
    assert abs(len(frames) - len(sound) / 16000 * 25) <= 1
    assert answer["frames"] == len(frames)
    assert len(read_audio(tmp_path / "said.mp4", 16000)) == pytest.approx(len(sound), abs=2400)
    assert frames.std() > 20, "the picture is not empty"
    assert np.abs(np.diff(frames.astype(np.float32), axis=0)).mean() > 0.05, "something moves"

    scored = talkgs("score", folder=tmp_path)
    tracked = scored["rows"]["tracked"]["face"]["psnr"]
    tracked = tracked["mean"] if isinstance(tracked, dict) else tracked
    assert 18 < tracked < 60, "forty steps already look like the speaker"


def test_fitting_again_leaves_a_finished_speaker_alone(fitted_speaker, speaker_copy):
    folder = speaker_copy(fitted_speaker)
    gaussians = SpeakerFolder.open_(folder).gaussians
    before = gaussians.read_bytes()
    assert tiny_fit(folder)["already_done"]
    assert gaussians.read_bytes() == before
