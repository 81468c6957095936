"""The manners of the command line: exit codes, messages, JSON, help."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from talkgs_cli import __version__
from talkgs_cli.app import app
from talkgs_cli.config import FIT_PRESETS, inpainting_of
from talkgs_cli.errors import BadInput, DownloadFailed, MachineLacks, UsageError
from talkgs_cli.runtime import file_sha256
from talkgs_cli.speaker import SpeakerFolder

COMMANDS = (
    *("prepare", "fit", "speak", "score", "verify"),
    *("export", "demo", "doctor", "assets", "bench", "translator"),
)
STAGES = {"prepare": "stages.prepare", "fit": "stages.fit", "speak": "stages.speak"}
TALKGS = [sys.executable, "-m", "talkgs_cli"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace one stage's function by another for the duration of a test."""

    def replace(name: str, function: Any) -> None:
        module = f"talkgs_cli.{STAGES.get(name, f'stages.{name}')}"
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: function}))

    return replace


def raising(error: BaseException) -> Any:
    def run(*args: Any, **options: Any) -> dict[str, Any]:
        raise error

    return run


def talkgs(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


def make_speaker(path: Path) -> SpeakerFolder:
    speaker = SpeakerFolder.create(path, {"frames": 50, "frame_rate": "25"})
    speaker.save_manifest()
    return speaker


# -- help ----------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    result = talkgs("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", result.stdout, re.M)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_examples(name: str) -> None:
    result = talkgs(name, "--help")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:")[1]
    assert f"talkgs {name}" in examples


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from talkgs_cli.app import app\n"
        "try:\n    app(['--help'], prog_name='talkgs')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'librosa', 'cv2', 'ctranslate2', 'numba', 'scipy', 'numpy', 'skimage'}\n"
        "sys.stderr.write(','.join(sorted(heavy & set(sys.modules))))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert "Usage: talkgs" in run.stdout


def test_help_costs_little_more_than_starting_python() -> None:
    def best_of_five(command: list[str]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    bare = best_of_five([sys.executable, "-c", "import json, subprocess"])
    # About 0.15 s more than bare Python on a quiet machine; importing torch alone takes 1 s.
    assert best_of_five([*TALKGS, "--help"]) < 0.4 + 3 * bare


def test_version_is_printed_alone_on_stdout() -> None:
    result = talkgs("--version")
    assert (result.exit_code, result.stdout) == (0, f"talkgs {__version__}\n")


# -- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        ["fit", "--no-such-option"],
        ["nonsense"],
        ["prepare"],
        ["fit", "--seed", "many"],
        ["speak"],
        ["fit"],
        ["fit", "speaker", "--preset", "best"],
        ["score", "--generated", "a.mp4"],
        ["score", "speaker", "--generated", "a.mp4", "--reference", "b.mp4"],
    ],
)
def test_a_wrong_command_line_exits_2_and_keeps_stdout_clean(line: list[str], here: Path) -> None:
    make_speaker(here / "other" / "speaker")
    result = talkgs(*line)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Error" in result.stderr


@pytest.mark.parametrize("line", [["fit", "--no-such-option"], ["prepare"], ["speak"], ["fit"]])
def test_a_wrong_command_line_with_json_gives_the_error_object(line: list[str], here: Path) -> None:
    result = talkgs(*line, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "usage"
    assert error["message"] in result.stderr


# -- errors of stages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (UsageError("u", hint="h"), 2, "usage"),
        (BadInput("No face in 12 of 12 frames of x.mp4.", hint="h"), 3, "bad_input"),
        (MachineLacks("m", hint="h"), 4, "machine"),
        (DownloadFailed("d", hint="h"), 5, "download"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/frame.png"), 4, "machine"),
        (PermissionError(errno.EACCES, "Permission denied", "/locked"), 4, "machine"),
        (MemoryError(), 4, "machine"),
        (ModuleNotFoundError("No module named 'gone'", name="gone"), 4, "machine"),
        (ValueError("shapes differ"), 1, "bug"),
    ],
)
def test_every_failure_is_one_message_a_hint_and_its_exit_code(
    error: BaseException, code: int, kind: str, here: Path, fake_stage: Any
) -> None:
    fake_stage("prepare", raising(error))
    result = talkgs("prepare", "x.mp4", "--json")
    assert result.exit_code == code
    told = json.loads(result.stdout)["error"]
    assert told["kind"] == kind
    assert told["message"] in result.stderr
    assert told["hint"] in result.stderr
    assert "Traceback" not in result.output
    assert talkgs("prepare", "x.mp4").stdout == ""


def test_a_full_disk_names_the_file(here: Path, fake_stage: Any) -> None:
    fake_stage("prepare", raising(OSError(errno.ENOSPC, "No space left", "/full/frame.png")))
    assert "/full/frame.png" in talkgs("prepare", "x.mp4").stderr


def test_a_bug_shows_its_traceback_only_when_asked(
    here: Path, fake_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_stage("prepare", raising(ValueError("shapes differ")))
    quiet = talkgs("prepare", "x.mp4")
    assert "TALKGS_DEBUG=1" in quiet.stderr
    assert "ValueError: shapes differ" in quiet.stderr
    monkeypatch.setenv("TALKGS_DEBUG", "1")
    loud = talkgs("prepare", "x.mp4")
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr


def test_interrupting_names_the_command_that_continues(here: Path, fake_stage: Any) -> None:
    fake_stage("prepare", raising(KeyboardInterrupt()))
    result = talkgs("prepare", "my video.mp4", "--out", "me", "--force")
    assert result.exit_code == 130
    # What is to be replaced still lies there: without --force the command would be refused.
    assert "Continue with: talkgs prepare 'my video.mp4' --out me --force\n" in result.stderr
    fake_stage("fit", raising(KeyboardInterrupt()))
    make_speaker(here / "me")
    assert "Continue with: talkgs fit me\n" in talkgs("fit", "me", "--force").stderr
    as_json = talkgs("prepare", "my video.mp4", "--json")
    assert as_json.exit_code == 130
    assert json.loads(as_json.stdout)["error"]["kind"] == "interrupted"


def test_warnings_and_logs_of_libraries_stay_away(here: Path, fake_stage: Any) -> None:
    def noisy(*args: Any, **options: Any) -> dict[str, Any]:
        import logging
        import warnings

        warnings.warn("deprecated since 1.2", DeprecationWarning, stacklevel=1)
        warnings.warn("something numerical", RuntimeWarning, stacklevel=1)
        logging.getLogger("numba.core").warning("a library's log line")
        return {"speaker": "speaker", "verdict": "good", "frames": 3}

    fake_stage("prepare", noisy)
    result = talkgs("prepare", "x.mp4")
    assert result.exit_code == 0, result.output
    for noise in ("deprecated", "numerical", "log line"):
        assert noise not in result.output


# -- results -------------------------------------------------------------------------------------


def test_prepare_gives_the_path_on_stdout_and_the_next_command(here: Path, fake_stage: Any) -> None:
    seen = {}

    def prepare(video: Path, out: Path, config: Any, progress: Any, *, force: bool) -> Any:
        seen.update(video=video, out=out, consent=config.consent, force=force)
        return {"speaker": str(out), "verdict": "usable", "frames": 5, "advice": ["More light."]}

    fake_stage("prepare", prepare)
    result = talkgs("prepare", "video.mp4")
    assert result.stdout == "speaker\n"
    assert "More light." in result.stderr
    assert result.stderr.endswith("Next: talkgs fit speaker\n")
    assert seen == {
        "video": Path("video.mp4"),
        "out": Path("speaker"),
        "consent": "not stated",
        "force": False,
    }
    talkgs("prepare", "video.mp4", "--out", "me", "--consent", "--force")
    assert (seen["out"], seen["consent"], seen["force"]) == (Path("me"), "stated", True)


def test_consent_stated_once_is_not_lost_by_running_again(here: Path, fake_stage: Any) -> None:
    seen = []

    def prepare(video: Path, out: Path, config: Any, progress: Any, *, force: bool) -> Any:
        seen.append(config.consent)
        record = {"config": {"consent": config.consent}}
        manifest = {"video_sha256": file_sha256(video)}
        SpeakerFolder.create(out, manifest).finish_stage("prepare", record)
        return {"speaker": str(out), "verdict": "good", "frames": 5}

    fake_stage("prepare", prepare)
    (here / "alice.mp4").write_bytes(b"alice")
    (here / "bob.mp4").write_bytes(b"bob")
    talkgs("prepare", "alice.mp4", "--consent")
    talkgs("prepare", "alice.mp4")
    assert seen == ["stated", "stated"]
    talkgs("prepare", "bob.mp4", "--force")  # the same folder, another person
    assert seen[2:] == ["not stated"]


def test_json_is_one_object_and_holds_no_nan(here: Path, fake_stage: Any) -> None:
    answer = {"speaker": here, "jitter_px": float("nan"), "rows": [{"psnr": float("inf")}]}
    fake_stage("prepare", lambda *args, **options: answer)
    result = talkgs("prepare", "x.mp4", "--json")
    assert json.loads(result.stdout) == {
        "speaker": str(here),
        "jitter_px": None,
        "rows": [{"psnr": None}],
    }


def test_fit_without_a_name_takes_the_speaker_here(here: Path, fake_stage: Any) -> None:
    seen = {}

    def fit(speaker: SpeakerFolder, config: Any, progress: Any, **other: Any) -> Any:
        seen.update(path=speaker.path, config=config, **other)
        return {"speaker": str(speaker.path)}

    fake_stage("fit", fit)
    make_speaker(here / "speaker")
    result = talkgs("fit", "--preset", "draft", "--device", "cpu", "--seed", "7", "--minutes", "2")
    assert result.exit_code == 0, result.output
    assert seen["path"] == Path("speaker")
    config = seen["config"]
    assert (config.device, config.seed, config.minutes) == ("cpu", 7, 2.0)
    assert config.iterations == FIT_PRESETS["draft"].iterations
    assert result.stderr.endswith("Next: talkgs speak speaker --audio FILE\n")
    assert seen["inpainting_config"] == inpainting_of("draft", 7)
    assert seen["translator_config"].translator == "auto"
    for minutes, preset in (("1.5", "draft"), ("30", "standard")):
        talkgs("fit", "speaker/", "--minutes", minutes)
        assert seen["config"] == replace(FIT_PRESETS[preset], minutes=float(minutes))
    talkgs("fit", "speaker/", "--no-inpaint", "--translator", "owner/lips")
    assert seen["config"] == FIT_PRESETS["standard"]
    assert seen["inpainting_config"] is None
    assert seen["translator_config"].translator == "owner/lips"
    talkgs("fit", "speaker/", "--preset", "cuda-fine")
    assert seen["config"] == FIT_PRESETS["cuda-fine"], "a preset's device is asked for"


def test_speak_passes_its_files_on(here: Path, fake_stage: Any) -> None:
    seen = []

    def speak(speaker: SpeakerFolder, audio: Path, out: Path | None, *rest: Any, **force: Any):
        seen.append((speaker.path, audio, out))
        return {"video": out or speaker.renders / "in" / "video.mp4"}

    fake_stage("speak", speak)
    make_speaker(here / "speaker")
    assert talkgs("speak", "--audio", "in.wav").stdout == "speaker/renders/in/video.mp4\n"
    assert talkgs("speak", "speaker/", "--audio", "in.wav", "--out", "o.mp4").stdout == "o.mp4\n"
    assert seen == [
        (Path("speaker"), Path("in.wav"), None),
        (Path("speaker"), Path("in.wav"), Path("o.mp4")),
    ]


@pytest.mark.parametrize("schema", [0, 99, "x"])
def test_a_speaker_of_another_schema_is_refused(schema: Any, here: Path) -> None:
    make_speaker(here / "speaker")
    (here / "speaker" / "speaker.json").write_text(json.dumps({"schema": schema}))
    result = talkgs("fit", "--json")
    assert result.exit_code == 3
    assert str(schema) in json.loads(result.stdout)["error"]["message"]


def test_a_reader_that_stops_early_gets_no_complaint() -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    run = subprocess.run(
        [*TALKGS, "assets", "--json"], stdout=reader.stdin, stderr=subprocess.PIPE, text=True
    )
    assert "Traceback" not in run.stderr
    assert "Bug" not in run.stderr


def test_ctrl_c_in_a_real_process_exits_130(tmp_path: Path) -> None:
    code = (
        "import sys, types, os, signal, time\n"
        # A shell starts what it puts in the background with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def prepare(*a, **k):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)\n"
        "sys.modules['talkgs_cli.stages.prepare'] = types.SimpleNamespace(prepare=prepare)\n"
        "sys.argv = ['talkgs', 'prepare', 'v.mp4']\n"
        "from talkgs_cli.app import main\nmain()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 130
    assert "Continue with: talkgs prepare v.mp4" in run.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        ("speak", "--audio", "FILE"),
        ("speak", "--jobs", "FILE"),
        ("prepare", "FILE"),
        ("score", "--generated", "FILE", "--reference", "FILE"),
    ],
)
def test_a_file_that_may_not_be_read_is_bad_input(
    line: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret.wav"
    file.write_bytes(b"RIFF")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != file and allowed(path, mode))
    monkeypatch.setattr(SpeakerFolder, "find", lambda _: make_speaker(tmp_path / "speaker"))
    monkeypatch.setattr(SpeakerFolder, "require_fit", lambda folder: None)
    result = talkgs(*(str(file) if word == "FILE" else word for word in line))
    assert result.exit_code == 3, result.stderr
    assert "secret.wav can't be read" in result.stderr
