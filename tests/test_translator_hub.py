"""Translators from and to the Hub: the real client against a server that speaks its protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import TOKEN, Hub, running_hub, sha256
from huggingface_hub import constants
from safetensors.torch import save
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.assets import hub as hub_client
from talkgs_cli.assets.translator_push import card_lacks
from talkgs_cli.assets.translators import (
    find_translator,
    read_release,
    released_names,
    releases_folder,
    seal,
)
from talkgs_cli.errors import BadInput, DownloadFailed, UsageError
from talkgs_cli.networks.base_translator import BaseDescription, BaseTranslator

ABOUT = BaseDescription(encoder="log-mel", feature_size=3700, components=128)


def weights_of(seed: int) -> bytes:
    """A translator of random weights that loads: 1.2 MB."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = BaseTranslator(ABOUT).state_dict()
    return save({name: value.half().contiguous() for name, value in state.items()})


WEIGHTS = weights_of(0)
REPOSITORY = "owner/lips"
CARD = """\
---
license: apache-2.0
---
# Lips

## Data
Synthetic speech of four voices, forty minutes in all.

## Licence
Apache-2.0, for the weights and for this card alike.

## Limits
English only; it knows no singing, no laughter and no music.

## Figures
Correlation of the opening .80 on a speaker it had never seen.
"""


def files(weights: bytes = WEIGHTS, declared: str | None = None) -> dict[str, bytes]:
    config = {"format": 1, "model_sha256": declared or sha256(weights), **asdict(ABOUT)}
    return {
        "README.md": CARD.encode(),
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights,
    }


def folder_of(path: Path, content: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, data in content.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Iterator[Hub]:
    """A Hub with owner/lips on it, which is the one the client talks to; nobody is logged in."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(hub_client, "PAUSE_S", 0.0)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(empty_cache / "none"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.commit(REPOSITORY, files())
        yield server
    huggingface_hub.close_session()


def revision(hub: Hub) -> str:
    return hub.repositories[REPOSITORY][-1][0]


def part_of_the_weights(cache: Path) -> list[Path]:
    return list(cache.rglob("*.part"))


# -- what a user may write -----------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", files())
    found = find_translator(str(folder))
    assert found.folder == folder
    assert found.model_sha256 == sha256(WEIGHTS)
    assert found.config["format"] == 1


def test_every_bundled_release_is_whole_and_has_a_complete_card() -> None:
    assert releases_folder().joinpath("README.md").is_file()
    for name in released_names():
        release = find_translator(name)
        assert card_lacks(release.card) == [], name
        assert release.model.stat().st_size < 40e6


@pytest.mark.parametrize("spec", ["nonesuch", "./nowhere", "a/b/c", "owner/lips@", "/abs/nowhere"])
def test_what_is_no_translator_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match="no translator"):
        find_translator(spec)


def test_weights_that_are_not_the_declared_ones_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", files(declared="0" * 64))
    with pytest.raises(BadInput, match=r"model\.safetensors has SHA-256"):
        find_translator(str(folder))
    assert seal(folder).model_sha256 == sha256(WEIGHTS)


@pytest.mark.parametrize("config", [b"[]", b"{", b"\xff", b'{"format": 1}'])
def test_a_config_that_says_nothing_is_refused(config: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", {**files(), "config.json": config})
    with pytest.raises(BadInput, match=r"config\.json"):
        read_release(folder, "mine")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(missing: str, tmp_path: Path) -> None:
    content = files()
    del content[missing]
    with pytest.raises(BadInput, match=f"has no {missing}"):
        read_release(folder_of(tmp_path / "mine", content), "mine")


# -- pulling -------------------------------------------------------------------------------------


def test_a_bare_repository_is_resolved_once_and_stays_there(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    first = revision(hub)
    found = find_translator(REPOSITORY)
    assert found.name == f"{REPOSITORY}@{first}"
    assert found.model.read_bytes() == WEIGHTS
    newer = hub.commit(REPOSITORY, files(weights_of(1)))
    asked = len(hub.requests)
    assert find_translator(REPOSITORY).name == f"{REPOSITORY}@{first}"
    assert len(hub.requests) == asked
    result = CliRunner().invoke(app, ["translator", "pull", REPOSITORY])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{REPOSITORY}@{newer}\n"
    assert newer in result.stderr
    assert find_translator(REPOSITORY).name == f"{REPOSITORY}@{newer}"
    assert find_translator(f"{REPOSITORY}@{first}").model.read_bytes() == WEIGHTS


def test_a_pinned_revision_needs_no_network_the_second_time(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"{REPOSITORY}@{revision(hub)}"
    find_translator(spec)
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.status = 503
    assert find_translator(spec).name == spec
    assert find_translator(f"{REPOSITORY}@{revision(hub)}").model.read_bytes() == WEIGHTS
    assert len(hub.requests) == asked


def test_a_damaged_file_in_the_cache_is_fetched_again(hub: Hub) -> None:
    found = find_translator(REPOSITORY)
    found.model.write_bytes(b"damaged")
    assert find_translator(REPOSITORY).model.read_bytes() == WEIGHTS


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.cut_after["model.safetensors"] = [400_000, 300_000]
    assert find_translator(REPOSITORY).model.read_bytes() == WEIGHTS
    asked = [line for line in hub.requests if line.startswith("GET /store/")]
    assert [line.rsplit("=", 1)[1] for line in asked] == ["0-", "400000-", "700000-"]


def test_a_download_that_was_given_up_goes_on_the_next_time(hub: Hub, empty_cache: Path) -> None:
    hub.cut_after["model.safetensors"] = [500_000] + [0] * 20
    with pytest.raises(DownloadFailed, match=r"stopped at 0\.5 of 1\.2 MB") as caught:
        find_translator(REPOSITORY)
    assert "goes on where it stopped" in (caught.value.hint or "")
    (part,) = part_of_the_weights(empty_cache)
    assert part.stat().st_size == 500_000
    hub.cut_after.clear()
    hub.requests.clear()
    assert find_translator(REPOSITORY).model.read_bytes() == WEIGHTS
    assert any(line.endswith("bytes=500000-") for line in hub.requests)
    assert part_of_the_weights(empty_cache) == []


def test_a_server_without_ranges_starts_over(hub: Hub) -> None:
    hub.no_ranges = True
    hub.cut_after["model.safetensors"] = [400_000]
    assert find_translator(REPOSITORY).model.read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_bytes_never_get_a_name(name: str, hub: Hub, empty_cache: Path) -> None:
    right = files()[name]
    hub.corrupt[name] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(DownloadFailed, match=f"{name} from owner/lips has the wrong hash"):
        find_translator(REPOSITORY)
    assert not [path for path in empty_cache.rglob(f"{name}*")]
    hub.corrupt.clear()
    assert find_translator(REPOSITORY).model.read_bytes() == WEIGHTS


def test_weights_other_than_the_config_declares_are_refused(hub: Hub) -> None:
    hub.commit("owner/mixed", files(declared="1" * 64))
    with pytest.raises(DownloadFailed, match="wrong hash"):
        find_translator("owner/mixed")


def test_a_repository_of_something_else_is_told(hub: Hub) -> None:
    hub.commit("owner/other", {"README.md": b"hello", "pytorch_model.bin": b"pickle"})
    with pytest.raises(DownloadFailed, match=r"has no file config\.json"):
        find_translator("owner/other")
    assert not any("pytorch_model" in line for line in hub.requests)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("owner/gated", "asks you to log in", "hf auth login"),
        ("owner/secret", "no repository owner/secret, or it is private", "hf auth login"),
        ("owner/nowhere", "no repository owner/nowhere", "Check the name"),
        (f"{REPOSITORY}@{'0' * 40}", f"has no revision {'0' * 40}", "leave it out"),
        (f"{REPOSITORY}@nosuchtag", "has no revision nosuchtag", "leave it out"),
    ],
)
def test_a_refusal_says_what_to_do(spec: str, message: str, hint: str, hub: Hub) -> None:
    hub.commit("owner/gated", files())
    hub.gated.add("owner/gated")
    hub.commit("owner/secret", files())
    hub.private.add("owner/secret")
    result = CliRunner().invoke(app, ["translator", "pull", spec, "--json"])
    assert result.exit_code == 5, result.output
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "download"
    assert message in error["message"]
    assert hint in error["hint"]


def test_a_token_opens_a_private_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit("owner/secret", files())
    hub.private.add("owner/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_translator("owner/secret").model.read_bytes() == WEIGHTS


def test_a_hub_that_fails_or_is_out_of_reach_is_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.status = 500
    with pytest.raises(DownloadFailed, match="status 500"):
        find_translator(REPOSITORY)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="can't be reached"):
        find_translator(REPOSITORY)


def test_being_offline_is_told_and_names_what_to_do(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE is set") as caught:
        find_translator(REPOSITORY)
    assert "name a folder" in (caught.value.hint or "")
    assert hub.requests == []


# -- pushing -------------------------------------------------------------------------------------


def test_what_was_pushed_is_what_is_pulled(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "mine", {**files(), "optimizer.pt": b"not for the world"})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = CliRunner().invoke(app, ["translator", "push", str(folder), "owner/new"])
    assert result.exit_code == 0, result.output
    commit, stored = hub.repositories["owner/new"][-1]
    assert result.stdout == f"owner/new@{commit}\n"
    assert set(stored) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    found = find_translator(result.stdout.strip())
    assert found.model.read_bytes() == WEIGHTS
    assert found.card.read_text(encoding="utf-8") == CARD


def test_a_private_push_makes_a_private_repository(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "mine", files())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    arguments = ["translator", "push", str(folder), "owner/mine", "--private", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["revision"] == hub.repositories["owner/mine"][-1][0]
    assert "owner/mine" in hub.private


@pytest.mark.parametrize(
    ("token", "message"), [(None, "there is no token"), ("hf_of_nobody", "does not let you")]
)
def test_a_push_without_the_right_token_says_how_to_log_in(
    token: str | None, message: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    folder = folder_of(tmp_path / "mine", files())
    result = CliRunner().invoke(app, ["translator", "push", str(folder), "owner/new"])
    assert result.exit_code == 5, result.output
    assert message in result.stderr
    assert "hf auth login" in result.stderr
    assert "owner/new" not in hub.repositories


@pytest.mark.parametrize("section", ["Data", "Licence", "Limits", "Figures"])
def test_a_card_without_a_section_is_not_pushed(
    section: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    start = CARD.index(f"## {section}")
    stop = CARD.find("## ", start + 3)
    card = CARD[:start] + f"## {section}\n\n" + (CARD[stop:] if stop > 0 else "")
    folder = folder_of(tmp_path / "mine", {**files(), "README.md": card.encode()})
    result = CliRunner().invoke(app, ["translator", "push", str(folder), "owner/new"])
    assert result.exit_code == 3, result.output
    assert f"lacks: ## {section}." in result.stderr
    assert hub.requests == []


def test_a_card_that_the_hub_refuses_is_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.bad_card = '"license" must be one of a list'
    folder = folder_of(tmp_path / "mine", files())
    result = CliRunner().invoke(app, ["translator", "push", str(folder), "owner/new"])
    assert result.exit_code == 3, result.output
    assert '"license" must be one of a list' in result.stderr


def test_a_card_without_a_licence_or_no_card_at_all_is_not_complete(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert card_lacks(card) == ["everything: there is no such file"]
    card.write_text(CARD.replace("license: apache-2.0", "tags: [lips]"), encoding="utf-8")
    assert card_lacks(card) == ["license: in the front matter"]
    card.write_text(CARD, encoding="utf-8")
    assert card_lacks(card) == []


@pytest.mark.parametrize("command", ["pull", "push"])
def test_what_does_not_load_is_neither_pulled_nor_pushed(
    command: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    content = files(save({"stowaway": torch.zeros(3)}))
    hub.commit("owner/other", content)
    folder = folder_of(tmp_path / "mine", content)
    arguments = {"pull": ["owner/other"], "push": [str(folder), "owner/new"]}[command]
    result = CliRunner().invoke(app, ["translator", command, *arguments])
    assert result.exit_code == 3, result.output
    assert "can't be read as a translator" in result.stderr
    assert "owner/new" not in hub.repositories


# -- a process of its own ------------------------------------------------------------------------


def test_the_command_pulls_as_a_process_and_then_works_offline(
    hub: Hub, empty_cache: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "HF_HOME": str(tmp_path / "hf")}

    def pull(*spec: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "talkgs_cli", "translator", "pull", *spec],
            env={**environment, **extra},
            capture_output=True,
            text=True,
            timeout=120,
        )

    first = pull(REPOSITORY)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{REPOSITORY}@{revision(hub)}\n"
    again = pull(first.stdout.strip(), HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    bare = pull("owner/never", HF_HUB_OFFLINE="1")
    assert bare.returncode == 5
    assert "HF_HUB_OFFLINE" in bare.stderr
    assert "Traceback" not in bare.stderr
