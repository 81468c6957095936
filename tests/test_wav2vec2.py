"""The wav2vec 2.0 encoder, with a tiny network of random weights in the published layout."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_server import Hub, running_hub, sha256
from test_audio_encoder import in_chunks, speechlike

from talkgs_cli import assets
from talkgs_cli.assets import ASSETS, AssetFile, HubFiles
from talkgs_cli.assets import hub as hub_client
from talkgs_cli.errors import BadInput, DownloadFailed, MachineLacks
from talkgs_cli.networks import audio_encoder
from talkgs_cli.networks.audio_encoder import load_encoder, measure_loudness, normalise_loudness
from talkgs_cli.networks.audio_windows import LEVEL_DBFS

transformers = pytest.importorskip("transformers")
NAME = "wav2vec2-base-960h"
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the Hub's: a recognition model, its weights and config."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    folder = tmp_path_factory.mktemp("wav2vec2")
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(published: Path) -> Any:
    from talkgs_cli.networks.wav2vec2_encoder import Wav2Vec2Encoder

    return Wav2Vec2Encoder(published)


def test_features_are_those_of_the_library_on_the_same_grid(encoder: Any, published: Path) -> None:
    sound = speechlike(5.0)
    reference = transformers.Wav2Vec2Model.from_pretrained(published).eval()
    # As the encoder sees it: two seconds and 200 samples of silence first, then a whole window.
    padded = np.zeros(400 + 320 * 599, np.float32)
    padded[32_200 : 32_200 + len(sound)] = normalise_loudness(sound)
    with torch.inference_mode():
        states = reference(torch.from_numpy(padded[None] * 10 ** (-LEVEL_DBFS / 20)))
    expected = states.last_hidden_state[0].numpy()[100:350]
    features = encoder.encode(sound)
    assert features.shape == (250, 16)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_a_click_shows_at_its_own_time(encoder: Any) -> None:
    sound = speechlike(6.0)
    plain = encoder.encode(sound)
    for click_s in (1.0, 2.51, 4.4):
        clicked = sound.copy()
        clicked[round(click_s * RATE_HZ)] += 0.5
        moved = ((encoder.encode(clicked) - plain) ** 2).mean(1)
        assert abs(moved.argmax() / 50 - click_s) <= 0.0401


def test_a_stream_has_the_features_of_the_whole(encoder: Any) -> None:
    sound = speechlike(21.0)
    chunks = in_chunks(sound, 3)
    streamed = list(encoder.encode_stream(chunks, measure_loudness(chunks)))
    np.testing.assert_allclose(np.concatenate(streamed), encoder.encode(sound), atol=1e-5)
    assert len(streamed) == 3


def test_borders_between_windows_do_not_show(encoder: Any) -> None:
    features = encoder.encode(speechlike(28.0))
    step = np.sqrt((np.diff(features / (features.std(0) + 1e-3), axis=0) ** 2).mean(1))
    near = np.mean([step[k - 10 : k + 10].mean() for k in (350, 400, 450, 750, 800, 850)])
    assert near < 1.2 * step.mean()


@pytest.mark.parametrize("count", [1, 319, 320, 321, 16_000])
def test_one_feature_for_every_20_ms_begun(encoder: Any, count: int) -> None:
    features = encoder.encode(np.zeros(count, np.float32))
    assert features.shape == (-(-count // 320), 16)
    assert np.isfinite(features).all()


def test_what_is_no_wav2vec2_is_refused(published: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from talkgs_cli.networks.wav2vec2_encoder import Wav2Vec2Encoder

    def changed(name: str, tensors: dict[str, torch.Tensor]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(published / "config.json", folder)
        save_file(tensors, folder / "model.safetensors")
        return folder

    tensors = load_file(published / "model.safetensors")
    first = "wav2vec2.encoder.layer_norm.weight"
    with pytest.raises(BadInput, match=r"another model .* encoder\.layer_norm\.weight"):
        Wav2Vec2Encoder(changed("less", {k: v for k, v in tensors.items() if k != first}))
    with pytest.raises(BadInput, match=r"another model .* stowaway"):
        Wav2Vec2Encoder(changed("more", {**tensors, "stowaway": torch.zeros(1)}))
    with pytest.raises(BadInput, match=r"no wav2vec 2\.0 model"):
        Wav2Vec2Encoder(changed("other", {**tensors, first: torch.zeros(3)}))
    with pytest.raises(BadInput, match=r"no wav2vec 2\.0 model"):
        Wav2Vec2Encoder(tmp_path)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_encoder, "find_spec", lambda name: None)
    with pytest.raises(MachineLacks, match="needs the package transformers") as caught:
        load_encoder(NAME)
    assert "talkgs[wav2vec2]" in (caught.value.hint or "")


@pytest.fixture
def hub(
    published: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> Iterator[SimpleNamespace]:
    """A Hub with the tiny model, to which the table's asset is pinned."""
    content = {
        name: (published / name).read_bytes() for name in ("config.json", "model.safetensors")
    }
    monkeypatch.setattr(hub_client, "PAUSE_S", 0.0)
    huggingface_hub.close_session()
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        revision = server.commit("facebook/wav2vec2-base-960h", {**content, "x.bin": b"pickle"})
        server.commit("facebook/wav2vec2-base-960h", {"model.safetensors": b"newer"})
        asset = dataclasses.replace(
            ASSETS["wav2vec2_base_960h"],
            origin=HubFiles("facebook/wav2vec2-base-960h", revision),
            files=tuple(
                AssetFile(name, name, sha256(data), len(data)) for name, data in content.items()
            ),
        )
        monkeypatch.setitem(ASSETS, asset.name, asset)
        yield server
    huggingface_hub.close_session()


def test_the_encoder_comes_from_its_pinned_revision(hub: Hub, published: Path) -> None:
    loaded = load_encoder(NAME)
    assert loaded.name == NAME
    assert loaded.dim == 16
    assert not any("x.bin" in line for line in hub.requests)
    hub.status = 503
    assert load_encoder(NAME).encode(np.zeros(640, np.float32)).shape == (2, 16)


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub: Hub, empty_cache: Path) -> None:
    hub.cut_after["model.safetensors"] = [20_000] + [0] * 10
    with pytest.raises(DownloadFailed, match="stopped at"):
        assets.fetch("wav2vec2_base_960h")
    assert assets.state("wav2vec2_base_960h") == "missing"
    hub.cut_after.clear()
    hub.requests.clear()
    assets.fetch("wav2vec2_base_960h")
    assert any(line.endswith("bytes=20000-") for line in hub.requests)
    assert assets.state("wav2vec2_base_960h", check_hashes=True) == "present"
    assert not list(empty_cache.rglob("*.part"))


def test_other_bytes_than_the_pinned_ones_are_refused(
    hub: Hub, published: Path, empty_cache: Path
) -> None:
    right = (published / "config.json").read_bytes()
    hub.corrupt["config.json"] = right.replace(b"16", b"99")
    with pytest.raises(DownloadFailed, match="wrong hash"):
        load_encoder(NAME)
    assert not [path for path in empty_cache.rglob("config.json")]


def test_an_optional_asset_is_not_missed_and_not_pulled_with_the_rest(empty_cache: Path) -> None:
    from talkgs_cli.stages.doctor import doctor

    assert "wav2vec2_base_960h" not in assets.needed_assets()
    (listed,) = [a for a in assets.listing()["assets"] if a["name"] == "wav2vec2_base_960h"]
    assert listed["extra"] == "wav2vec2"
    assert listed["sources"] == ["Hub facebook/wav2vec2-base-960h@22aad52d435e"]
    problems = json.dumps(doctor()["problems"])
    assert "whisper_tiny_en" in problems
    assert "wav2vec2" not in problems
