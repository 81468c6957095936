"""`accelerate launch` on two CPU processes: one result, written once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from talkgs_cli.assets.translators import read_release
from talkgs_cli.config import BaseConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.training.base import train_base
from talkgs_cli.training.corpus import Corpus, Recording
from talkgs_cli.training.processes import accelerator_here, launched

pytest.importorskip("accelerate")

CONFIG = BaseConfig(
    encoder="log-mel", iterations=12, lr=0.05, components=8, width=16, dropout=0.0, hold_out=()
)


def small_corpus() -> Corpus:
    """Four voices whose lips follow two of the features."""
    rng = np.random.default_rng(0)
    recordings = []
    for voice in range(4):
        features = rng.standard_normal((400, 80)).astype(np.float32)
        features = np.apply_along_axis(np.convolve, 0, features, np.ones(9) / 3, "same")
        curves = np.tanh(features[:, :2])
        active = (np.abs(features[:, 2]) < 1.5).astype(np.float32)
        shifted = features + 0.3 * rng.standard_normal(features.shape)
        arrays = [value.astype(np.float32) for value in (features, shifted, curves, active)]
        recordings.append(Recording(f"voice{voice}", *arrays))
    return Corpus("log-mel", recordings)


def launch(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its name for several processes; without cards they run on the CPU.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launcher += ["--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    launcher += ["--dynamo_backend=no"]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*launcher, f"--main_process_port={port}", *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "HF_HOME": str(cwd / "hf")},
        capture_output=True,
        text=True,
        timeout=300,
    )


SCRIPT = """
from safetensors.torch import save_file
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.training.base import train_base
from talkgs_cli.training.processes import accelerator_here, is_main
from test_translator_processes import CONFIG, small_corpus
accelerator = accelerator_here()
assert accelerator.num_processes == 2
base = train_base(small_corpus(), CONFIG, SilentProgress(), accelerator=accelerator)
save_file(base.network.state_dict(), f"process{accelerator.process_index}.safetensors")
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    run = launch("train.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    alone = train_base(small_corpus(), CONFIG, SilentProgress()).network.state_dict()
    once = train_base(small_corpus(), replace(CONFIG, iterations=1), SilentProgress())
    moved = [(once.network.state_dict()[name] - value).abs().max() for name, value in alone.items()]
    assert float(max(moved)) > 0.02
    for process in ("process0", "process1"):
        together = load_file(tmp_path / f"{process}.safetensors")
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, atol=5e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("flite") is None or find_library("espeak-ng") is None,
    reason="flite and espeak-ng are not installed",
)
def test_the_launched_command_writes_and_tells_once(tmp_path: Path) -> None:
    small_corpus().save(tmp_path / "lips-corpus.safetensors")
    command = ["-m", "talkgs_cli", "translator", "train", "--synthetic", "--out", "lips"]
    run = launch(
        *command, "--encoder=log-mel", "--iterations=5", "--parts=1", "--json", cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)  # one object: the other process says nothing
    assert answer["translator"] == "lips"
    assert run.stderr.count("Training the translator") == 1
    release = read_release(tmp_path / "lips", "lips")
    assert BaseTranslator.load(release.folder).about.encoder == "log-mel"


def test_nothing_launched_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not launched()
    assert accelerator_here() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()


def test_windows_that_can_t_be_shared_evenly_are_refused() -> None:
    class Five:
        process_index, num_processes = 0, 5

    with pytest.raises(UsageError, match="by 5 processes") as caught:
        train_base(small_corpus(), CONFIG, SilentProgress(), accelerator=Five())
    assert "1, 2, 3, 4, 6, 12" in (caught.value.hint or "")
