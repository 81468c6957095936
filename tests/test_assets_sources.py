"""The user's own sources of assets: a folder, a mirror on the Hub; before any package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, running_hub
from toy_asset import FILES, fetch_in_a_process, nothing_half_written, wheel_of

from talkgs_cli import assets
from talkgs_cli.assets import Asset
from talkgs_cli.errors import DownloadFailed, UsageError


def test_a_local_folder_comes_before_the_package(
    toy: Asset, monkeypatch: pytest.MonkeyPatch, fake_pip: Any, tmp_path: Path
) -> None:
    commands = fake_pip(lambda folder: (1, ""))
    monkeypatch.setenv("TALKGS_ASSETS_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "mine" / "toy" / name).write_bytes(content)
    assert assets.fetch("toy").joinpath("weights.bin").read_bytes() == FILES["weights.bin"]
    assert commands == []


def test_a_folder_without_the_asset_is_passed_over(
    toy: Asset, monkeypatch: pytest.MonkeyPatch, fake_pip: Any, tmp_path: Path
) -> None:
    fake_pip(lambda folder: (wheel_of(folder, FILES), (0, ""))[1])
    monkeypatch.setenv("TALKGS_ASSETS_DIR", str(tmp_path / "empty"))
    assert assets.is_present("toy") is False
    assets.fetch("toy")
    assert assets.is_present("toy")


def test_wrong_bytes_in_the_users_folder_end_the_search(
    toy: Asset, monkeypatch: pytest.MonkeyPatch, fake_pip: Any, tmp_path: Path, empty_cache: Path
) -> None:
    commands = fake_pip(lambda folder: (wheel_of(folder, FILES), (0, ""))[1])
    monkeypatch.setenv("TALKGS_ASSETS_DIR", str(tmp_path))
    (tmp_path / "toy").mkdir()
    for name in FILES:
        (tmp_path / "toy" / name).write_bytes(b"other")
    with pytest.raises(DownloadFailed, match="not the file talkgs knows"):
        assets.fetch("toy")
    assert commands == []
    assert nothing_half_written(empty_cache)


def test_a_malformed_mirror_name_is_a_usage_error(
    toy: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKGS_ASSETS_REPO", "just-a-name")
    with pytest.raises(UsageError, match="TALKGS_ASSETS_REPO"):
        assets.fetch("toy")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with owner/mirror on it."""
    with running_hub() as server:
        server.commit("owner/mirror", {f"toy/{name}": content for name, content in FILES.items()})
        yield server


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("owner/mirror", "['config.json', 'weights.bin']"),
        ("owner/mirror@COMMIT", "['config.json', 'weights.bin']"),
        ("owner/nowhere", "the Hub has no repository owner/nowhere"),
    ],
)
def test_the_real_hub_client_fetches_from_a_mirror(
    mirror: str, said: str, hub: Hub, empty_cache: Path, tmp_path: Path
) -> None:
    run = fetch_in_a_process(
        HF_ENDPOINT=hub.address,
        HF_HOME=str(tmp_path / "hf"),
        TALKGS_ASSETS_REPO=mirror.replace("COMMIT", hub.repositories["owner/mirror"][-1][0]),
    )
    assert said in run.stdout, run.stderr
    assert not (empty_cache / ".incoming").exists()


def test_a_mirror_that_lacks_the_file_or_serves_other_bytes_is_told(
    hub: Hub, empty_cache: Path, tmp_path: Path
) -> None:
    environment = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "TALKGS_ASSETS_REPO": "owner/mirror",
    }
    hub.commit("owner/mirror", {"toy/config.json": b"[]"})
    assert "is not the file talkgs knows" in fetch_in_a_process(**environment).stdout
    del hub.repositories["owner/mirror"][-1][1]["toy/config.json"]
    assert "has no file toy/config.json" in fetch_in_a_process(**environment).stdout
    assert nothing_half_written(empty_cache)


def test_a_hub_out_of_reach_is_told(empty_cache: Path, tmp_path: Path) -> None:
    run = fetch_in_a_process(
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "hf"),
        TALKGS_ASSETS_REPO="owner/mirror",
    )
    assert "the Hub can't be reached" in run.stdout, run.stderr
