"""Translators to the Hub: what is pushed, what is refused, and what a card must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub
from lips_release import CARD, WEIGHTS, files, folder_of
from safetensors.torch import save
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.assets.translator_push import card_lacks
from talkgs_cli.assets.translators import find_translator


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
