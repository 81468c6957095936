"""SyncNet's measure: cepstra, shapes, weights, shifts; the figures themselves need real weights."""

import doctest
from fractions import Fraction

import numpy as np
import pytest
import torch
from score_videos import face_frames, write_video

from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import write_wav
from talkgs_cli.metrics import sync as module
from talkgs_cli.metrics.sync import shifted_distances, sync
from talkgs_cli.networks.mfcc import mfcc
from talkgs_cli.networks.syncnet import SyncNet, load_syncnet
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages.score_compare import score_pairs
from talkgs_cli.stages.score_sync import cut_face, score_sync


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SyncNet().eval()


def test_doctests():
    assert doctest.testmod(module).failed == 0


# -- cepstra ---------------------------------------------------------------------------------------


def test_cepstra_are_those_of_the_package_that_the_network_was_trained_with():
    t = np.arange(16000) / 16000
    found = mfcc(np.round(8000 * np.sin(2 * np.pi * (200 + 1500 * t) * t)))
    assert found.shape == (99, 13)
    # python_speech_features 0.6, mfcc(), with its own defaults.
    theirs = [19.453, 19.839, -1.207, -20.667, -32.276, -30.839, -16.014]
    theirs += [3.04, 17.697, 20.792, 13.324, -0.268, -11.648]
    assert found[10] == pytest.approx(theirs, abs=2e-3)


def test_silence_has_finite_cepstra():
    assert np.isfinite(mfcc(np.zeros(4000))).all()


# -- the network -----------------------------------------------------------------------------------


def test_the_network_has_the_published_shapes(network):
    with torch.inference_mode():
        assert network.sound(torch.zeros(2, 1, 13, 20)).shape == (2, 1024)
        assert network.lips(torch.zeros(1, 3, 5, 224, 224)).shape == (1, 1024)
        assert network.netcnnlip(torch.zeros(1, 3, 5, 224, 224)).shape == (1, 512, 1, 1, 1)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netfclip.3.weight"] == (1024, 512)


def test_weights_come_back_from_a_file_also_without_batch_counters(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "weights.model")
    again = load_syncnet(tmp_path / "weights.model")
    cepstra = torch.randn(3, 1, 13, 20, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(again.sound(cepstra), network.sound(cepstra))
    assert not again.training


class Trap:
    def __reduce__(self):
        return (print, ("the file ran code",))


def test_files_that_hold_code_or_other_weights_are_refused(tmp_path, capfd):
    torch.save({"netcnnaud.0.weight": Trap()}, tmp_path / "trap.model")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.model").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, reason in (
        ("trap.model", "can't be read"),
        ("other.pth", "other weights"),
        ("text.model", "can't be read"),
        ("text.safetensors", "no safetensors"),
        ("none.model", "no file"),
    ):
        with pytest.raises(BadInput, match=reason):
            load_syncnet(tmp_path / name)
    assert "the file ran code" not in capfd.readouterr().out


# -- the measure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_the_shift_of_aligned_embeddings_is_found(late):
    rng = np.random.default_rng(3)
    lips = np.convolve(rng.normal(size=80 * 16), [0.5, 1, 0.5], "same").reshape(80, 16)
    found = sync(lips, np.roll(lips, late, axis=0) + 0.05 * rng.normal(size=lips.shape))
    assert found.shift_frames == late
    unrelated = sync(lips, rng.normal(size=lips.shape))
    assert found.lse_c > 5 * unrelated.lse_c
    assert found.lse_d < unrelated.lse_d


def test_distances_equal_those_of_the_definition():
    rng = np.random.default_rng(4)
    lips, sound = rng.normal(size=(2, 6, 8))
    found = shifted_distances(lips, sound, 2)
    padded = torch.nn.functional.pad(torch.from_numpy(sound), (0, 0, 2, 2))
    for t in range(6):
        lips_here = torch.from_numpy(lips[[t]]).expand(5, -1)
        expected = torch.nn.functional.pairwise_distance(lips_here, padded[t : t + 5])
        assert found[t] == pytest.approx(expected.numpy(), abs=1e-9)


# -- videos ----------------------------------------------------------------------------------------


def test_the_face_is_cut_with_the_published_margins():
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[90:111, 90:111] = (250, 0, 0)  # red, round the middle
    face = cut_face(frame, 100.5, 100.5, 50.0)
    assert face.shape == (3, 224, 224)
    side = 2 * 50 * 1.4
    middle = int(50 / side * 224)  # half a box below the upper edge
    assert face[2, middle, 112] > 200  # red comes last
    assert face[0, middle, 112] < 20
    assert cut_face(frame, 0.0, 0.0, 50.0)[:, 0, 0].tolist() == [110.0] * 3


@pytest.fixture(scope="module")
def talking(tmp_path_factory, require_assets):
    require_assets("face_landmarker", "lpips_alex", "lpips_vgg")
    folder = tmp_path_factory.mktemp("sync")
    rng = np.random.default_rng(0)
    write_wav(folder / "voice.wav", rng.normal(0, 0.1, 16000))
    frames = face_frames(12)
    return (
        write_video(folder / "spoken.mp4", frames, audio=folder / "voice.wav"),
        write_video(folder / "mute.mp4", frames),
        write_video(folder / "thirty.mp4", face_frames(14), Fraction(30), folder / "voice.wav"),
    )


def test_a_video_has_a_window_for_every_five_frames_at_25_a_second(talking, network):
    spoken, _, thirty = talking
    found = score_sync(spoken, spoken, network, 0, SilentProgress())
    assert found["windows"] == 12 - 4
    assert np.isfinite([found["lse_d"], found["lse_c"]]).all()
    assert score_sync(thirty, thirty, network, 10, SilentProgress())["windows"] == 10 - 4


def test_lse_joins_the_figures_and_a_mute_video_is_measured_with_the_references_sound(
    talking, network, tmp_path
):
    from talkgs_cli.config import ScoreConfig

    spoken, mute, _ = talking
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (system,) = score_pairs(
        [mute],
        [spoken],
        ScoreConfig(max_frames=6),
        SilentProgress(),
        as_field=True,
        syncnet=tmp_path / "weights.pth",
    )
    full = system.answer["rows"]["generated"]["full"]
    assert full["lse_d"] == system.answer["sync"]["generated"]["lse_d"]
    assert full["lse_d"] == pytest.approx(system.answer["rows"]["real"]["full"]["lse_d"], abs=0.02)
    assert "SyncNet" in system.answer["settings"]["lse"]
    with pytest.raises(BadInput, match="no sound"):
        score_sync(spoken, mute, network, 0, SilentProgress())
