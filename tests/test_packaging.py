"""What is published: a wheel with the package, the licence and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel, made with the hatchling at hand: nothing is downloaded."""
    pytest.importorskip("hatchling", reason="hatchling is needed to build without a download")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = out.glob("talkgs-*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_no_tests(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "talkgs_cli").rglob("*.py")}
    assert modules <= inside
    for name in inside:
        assert name.split("/")[0] == "talkgs_cli", name
        assert not name.endswith((".mp4", ".wav", ".png", ".pkl", ".task", ".ckpt")), name


@pytest.mark.slow
def test_the_wheel_carries_every_released_weight(wheel: zipfile.ZipFile) -> None:
    released = {
        f"talkgs_cli/released/{path.relative_to(ROOT / 'models').as_posix()}": path
        for path in (ROOT / "models").rglob("*")
        if path.is_file()
    }
    assert released
    for name, path in released.items():
        assert wheel.read(name) == path.read_bytes()


@pytest.mark.slow
def test_an_unpacked_wheel_finds_its_releases(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "from talkgs_cli.assets.translators import released_names, releases_folder;"
        "print(releases_folder(), *released_names())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    configs = sorted(path.parent.name for path in (ROOT / "models").glob("*/config.json"))
    assert run.stdout.split() == [str(tmp_path / "talkgs_cli" / "released"), *configs]


@pytest.mark.slow
def test_the_wheel_carries_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    assert b"talkgs = talkgs_cli.app:main" in wheel.read(f"{info}/entry_points.txt")
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(">=" in requirement for requirement in project["dependencies"])


def test_torch_is_pinned_where_we_install_it() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("torch==") for line in constraints)
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")
