"""Translators from the Hub: the real client against a server that speaks its protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, sha256
from huggingface_hub import constants
from lips_release import (
    REPOSITORY,
    WEIGHTS,
    files,
    folder_of,
    part_of_the_weights,
    revision,
    weights_of,
)
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.assets.translator_push import card_lacks
from talkgs_cli.assets.translators import (
    find_translator,
    read_release,
    released_names,
    releases_folder,
    seal,
)
from talkgs_cli.errors import BadInput, DownloadFailed, UsageError

# -- what a user may write -----------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", files())
    found = find_translator(str(folder))
    assert found.folder == folder
    assert found.model_sha256 == sha256(WEIGHTS)
    assert found.config["format"] == 2


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


@pytest.mark.parametrize("config", [b"[]", b"{", b"\xff", b'{"format": 2}'])
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
