"""A translator of random weights with its card, and a Hub that has it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import Hub, running_hub, sha256
from huggingface_hub import constants
from safetensors.torch import save

from talkgs_cli.assets import hub as hub_client
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
    config = {"format": 2, "model_sha256": declared or sha256(weights), **asdict(ABOUT)}
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
