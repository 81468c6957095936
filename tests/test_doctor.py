"""`talkgs doctor`: the keys it promises, and that each lack is found with its fix."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from hub_server import running_hub
from huggingface_hub import constants
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.assets import needed_assets
from talkgs_cli.errors import MachineLacks
from talkgs_cli.stages import doctor as stage


def lacks(answer: dict[str, Any]) -> str:
    return " | ".join(f"{problem['what']} {problem['fix']}" for problem in answer["problems"])


def test_the_answer_has_the_promised_keys() -> None:
    answer = stage.doctor()
    promised = {"ok", "device", "backends", "ffmpeg", "assets", "problems"}
    assert promised <= set(answer)
    assert set(answer["backends"]) == {"numba", "gsplat"}
    for backend in answer["backends"].values():
        assert isinstance(backend["usable"], bool)
        assert backend["reason"]
    assert answer["device"] in ("cpu", "cuda")
    assert answer["ok"] == (not answer["problems"])


def test_without_a_card_the_device_is_the_cpu_and_gsplat_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answer = stage.doctor()
    assert answer["device"] == "cpu"
    assert answer["backends"]["gsplat"]["usable"] is False
    assert answer["advice"] == []


def test_a_card_that_gsplat_can_t_use_is_advice_not_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    monkeypatch.setattr(stage, "_gsplat", lambda: {"usable": False, "reason": "not installed"})
    answer = stage.doctor()
    assert answer["device"] == "cpu"
    assert "talkgs[cuda]" in answer["advice"][0]


def test_missing_assets_are_a_problem_with_the_command_that_fetches_them(
    empty_cache: Path,
) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 4
    assert answer["ok"] is False
    for name in needed_assets():
        assert name in lacks(answer)
    assert "talkgs assets --pull" in lacks(answer)
    shown = CliRunner().invoke(app, ["doctor"])
    assert "Fix: talkgs assets --pull" in shown.stdout


def test_no_ffmpeg_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise MachineLacks("There is no ffmpeg here.", hint="pip install imageio-ffmpeg")

    monkeypatch.setattr("talkgs_cli.media.ffmpeg.ffmpeg_program", none)
    answer = stage.doctor()
    assert answer["ffmpeg"]["usable"] is False
    assert "pip install imageio-ffmpeg" in lacks(answer)


def test_a_package_that_can_t_be_imported_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = stage.importlib.import_module

    def broken(name: str) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(stage.importlib, "import_module", broken)
    assert "cv2 can't be imported: libGL.so.1" in lacks(stage.doctor())


def test_little_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = SimpleNamespace(total=10**12, used=10**12, free=3 * 10**8)
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: nearly_full)
    assert "Only 0.3 GB are free" in lacks(stage.doctor())


def test_a_cache_that_can_t_be_written_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKGS_CACHE", "/proc/no-such-place")
    answer = stage.doctor()
    assert answer["cache"]["writable"] is False
    assert "TALKGS_CACHE" in lacks(answer)


def test_the_hub_is_asked_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.close_session()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        quiet = stage.doctor()["hub"]
        assert quiet == {"endpoint": hub.address, "switched_off": False, "reachable": None}
        assert hub.requests == []
        assert stage.doctor(online=True)["hub"]["reachable"] is True
        assert len(hub.requests) == 1
        assert "answers" in CliRunner().invoke(app, ["doctor", "--online"]).stdout
    huggingface_hub.close_session()  # or the open connection would go on
    answer = stage.doctor(online=True)
    assert answer["hub"]["reachable"] is False
    assert "does not answer" in lacks(answer)
    huggingface_hub.close_session()


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    answer = stage.doctor(online=True)
    assert answer["hub"]["switched_off"] is True
    assert answer["hub"]["reachable"] is None
    assert "HF_HUB_OFFLINE" in CliRunner().invoke(app, ["doctor"]).stdout


def test_every_extra_of_the_package_is_reported() -> None:
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"dev"}
    assert set(stage.doctor()["extras"]) == extras
