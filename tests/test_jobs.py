"""Lists of sounds: what is read, what goes wrong alone, and what is tried again."""

import json
import os
from pathlib import Path

import job_tasks
import numpy as np
import pytest
from typer.testing import CliRunner

from talkgs_cli.app import app
from talkgs_cli.avatar import Avatar
from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.audio import write_wav
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.stages import job_workers, speak_frames
from talkgs_cli.stages.job_workers import engine_for, failed, on_processes, on_ray, run_jobs
from talkgs_cli.stages.jobs import Job, Problem, read_jobs

DEFAULT = SpeakConfig()


def listed(tmp_path: Path, *lines) -> Path:
    file = tmp_path / "jobs.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts), encoding="utf-8")
    return file


def read(file: Path, **options) -> list[Job]:
    arguments = {"audios": [], "speaker": Path("anna"), "out": None, "config": DEFAULT} | options
    return read_jobs(
        arguments["audios"], file, arguments["speaker"], arguments["out"], arguments["config"]
    )


# -- reading ---------------------------------------------------------------------------------------


def test_paths_in_a_list_are_relative_to_the_list(tmp_path):
    (job,) = read(
        listed(tmp_path, {"audio": "a.wav", "out": "made/x.mp4", "speaker": "ben"}), speaker=None
    )
    assert job.problem is None
    assert job.audio == str(tmp_path.resolve() / "a.wav")
    assert job.out == str(tmp_path.resolve() / "made" / "x.mp4")
    assert job.speaker == str(tmp_path.resolve() / "ben")


def test_files_in_a_lines_options_are_relative_to_the_list(tmp_path):
    (tmp_path / "room.png").touch()
    (tmp_path / "red").mkdir()
    file = listed(
        tmp_path,
        {"audio": "a.wav", "options": {"background": "room.png"}},
        {"audio": "b.wav", "options": {"background": "red"}},
    )
    first, second = read(file)
    assert first.config().background == str((tmp_path / "room.png").resolve())
    assert second.config().background == "red"


def test_heads_on_nothing_get_a_file_that_can_hold_them(tmp_path):
    (job,) = read(
        listed(tmp_path, {"audio": "a.wav"}),
        out=tmp_path / "videos",
        config=SpeakConfig(background="alpha"),
    )
    assert job.out.endswith("a.mov")


def test_options_of_a_line_win_over_those_of_the_command(tmp_path):
    file = listed(tmp_path, {"audio": "a.wav", "options": {"crop": True}}, {"audio": "b.wav"})
    first, second = read(file, config=SpeakConfig(seed=7))
    assert (first.config().crop, first.config().seed) == (True, 7)
    assert (second.config().crop, second.config().seed) == (False, 7)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"audio": "a.wav"', "not JSON"),
        ('["a.wav"]', "no JSON object"),
        ({"out": "x.mp4"}, "names no audio"),
        ({"audio": "a.wav", "voice": "b"}, "unknown key voice"),
        ({"audio": "a.wav", "options": {"zoom": 2}}, "no field zoom"),
        ({"audio": "a.wav", "options": {"crf": 99}}, "crf is 99"),
        ({"audio": "a.wav", "options": {"crf": "high"}}, "line 2"),
        ({"audio": "a.wav", "out": 3}, "not a path"),
        ({"audio": "a.wav", "options": {"background": 5}}, "line 2"),
        ({"audio": "a.wav", "options": {"translator": 7}}, "line 2"),
        ({"audio": "a.wav", "options": {"pose": 5}}, "line 2"),
    ],
)
def test_a_broken_line_is_a_failed_job_and_the_others_stay(tmp_path, line, reason):
    file = listed(tmp_path, {"audio": "x.wav"}, line, "", {"audio": "y.wav"})
    jobs = read(file)
    assert [job.problem is None for job in jobs] == [True, False, True]
    assert "jobs.jsonl line 2" in jobs[1].problem.message
    assert reason in jobs[1].problem.message


def test_a_line_without_speaker_needs_one_from_the_command(tmp_path):
    (job,) = read(listed(tmp_path, {"audio": "a.wav"}), speaker=None)
    assert "names no speaker" in job.problem.message


def test_two_jobs_never_write_the_same_video(tmp_path):
    file = listed(
        tmp_path,
        {"audio": "a.wav", "out": "v.mp4"},
        {"audio": "b.wav", "out": "v.mp4"},
        {"audio": "c.wav"},
        {"audio": "c.wav"},
        {"audio": "c.mp3"},
        {"audio": "c.wav", "options": {"crop": True}},
    )
    jobs = read(file)
    assert [job.problem is None for job in jobs] == [True, False, True, False, True, True]
    assert "line 1" in jobs[1].problem.message
    names = [job.name for job in jobs if job.problem is None]
    assert names[0] is None  # the sound's own name will do
    assert len(set(names)) == 4


def test_a_folder_gives_its_sounds_in_order_and_an_empty_one_is_refused(tmp_path):
    for name in ("b.MP3", "a.wav", "notes.txt"):
        (tmp_path / name).touch()
    jobs = read_jobs([tmp_path], None, Path("anna"), tmp_path / "videos", DEFAULT)
    assert [Path(job.audio).name for job in jobs] == ["a.wav", "b.MP3"]
    assert Path(jobs[1].out) == (tmp_path / "videos" / "b.mp4").resolve()
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no sound file"):
        read_jobs([tmp_path / "empty"], None, Path("anna"), None, DEFAULT)
    with pytest.raises(BadInput, match="nothing to say"):
        read(listed(tmp_path, ""))


# -- workers ---------------------------------------------------------------------------------------


def made_up(tmp_path: Path, *names: str) -> list[Job]:
    return [Job(name, audio=name, out=str(tmp_path / f"{name}.txt"), name=name) for name in names]


def states(results, count: int) -> list[str]:
    found = dict(results)
    return [found[place]["state"] for place in range(count)]


def test_a_process_that_dies_costs_its_own_job_and_at_most_a_neighbour(tmp_path):
    jobs = made_up(tmp_path, "a", "dies", "b", "fails", "c", "d")
    found = dict(on_processes(jobs, False, 2, job_tasks.outcome))
    assert len(found) == 6
    assert found[1]["error"]["kind"] == "machine"
    assert "died" in found[1]["error"]["message"]
    assert found[3]["error"]["kind"] == "bad_input"
    lost = [place for place in (0, 2, 4, 5) if found[place]["state"] == "failed"]
    assert len(lost) <= 1  # it is tried again, alone
    cores = max(1, (os.cpu_count() or 1) // 2)
    assert (tmp_path / "d.txt").read_text() == f"d {cores}"


def test_ray_workers_say_jobs_and_one_that_dies_or_raises_leaves_the_rest(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
    jobs = made_up(tmp_path, "a", "dies", "raises", "fails", "b")
    found = dict(on_ray(jobs, False, job_tasks.outcome))
    assert [found[k]["state"] for k in range(5)] == ["done", "failed", "failed", "failed", "done"]
    assert [found[k]["error"]["kind"] for k in (1, 2, 3)] == ["machine", "machine", "bad_input"]
    assert (tmp_path / "b.txt").is_file()


def test_unknown_workers_are_refused():
    for wrong in ("0", "-1", "many", "1000"):
        with pytest.raises(UsageError, match="workers is"):
            engine_for(wrong, SilentProgress())


class Notes(SilentProgress):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def test_a_failure_that_may_pass_is_told_and_tried_once_more_a_bad_input_is_not(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(job_workers, "_known", lambda job, *, force: None)
    tries = []

    def engine(jobs, force):
        for place, job in enumerate(jobs):
            tries.append(job.name)
            kind = {"full": "machine", "hopeless": "bad_input"}.get(job.name)
            if kind and (kind == "bad_input" or tries.count(job.name) < 2):
                yield place, failed(job, Problem(kind, f"{job.name} failed"))
            else:
                yield place, job_tasks.outcome(job, force)

    monkeypatch.setattr(job_workers, "engine_for", lambda workers, progress: engine)
    progress = Notes()
    answer = run_jobs(made_up(tmp_path, "a", "full", "hopeless"), "1", progress)
    assert tries == ["a", "full", "hopeless", "full"]
    assert [job["state"] for job in answer["jobs"]] == ["done", "done", "failed"]
    assert [job["attempts"] for job in answer["jobs"]] == [1, 2, 1]
    assert (answer["done"], answer["failed"]) == (2, 1)
    assert progress.said == [
        "Failed: full failed It is tried again.",
        "Failed: hopeless failed",
    ]


# -- the command -----------------------------------------------------------------------------------


def test_a_list_is_said_by_one_loaded_avatar_and_again_only_what_failed(
    fitted_speaker, speaker_copy, tmp_path, monkeypatch
):
    folder = speaker_copy(fitted_speaker)
    t = np.arange(4800) / 16000
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * 200 * t))
    (tmp_path / "late.wav").write_text("not yet a sound")
    file = listed(
        tmp_path,
        {"audio": "a.wav"},
        {"audio": "late.wav"},
        {"audio": "b.wav", "out": "made/b.mp4", "options": {"crop": True}},
    )
    loads = []
    load = Avatar.load.__func__
    monkeypatch.setattr(
        Avatar, "load", classmethod(lambda cls, *a: loads.append(1) or load(cls, *a))
    )
    speak_frames._loaded.cache_clear()
    arguments = ["speak", str(folder), "--jobs", str(file), "--json"]
    first = CliRunner().invoke(app, arguments)
    answer = json.loads(first.stdout)
    assert first.exit_code == 3
    assert [job["state"] for job in answer["jobs"]] == ["done", "failed", "done"]
    assert "late.wav" in answer["jobs"][1]["error"]["message"]
    assert (tmp_path / "made" / "b.mp4").is_file()
    assert "1 failed" in first.stderr
    assert loads == [1]

    write_wav(tmp_path / "late.wav", 0.3 * np.sin(2 * np.pi * 250 * t))
    before = (tmp_path / "made" / "b.mp4").stat().st_mtime_ns
    second = CliRunner().invoke(app, arguments)
    answer = json.loads(second.stdout)
    assert second.exit_code == 0
    assert [job["state"] for job in answer["jobs"]] == ["already_done", "done", "already_done"]
    assert (tmp_path / "made" / "b.mp4").stat().st_mtime_ns == before
    speak_frames._loaded.cache_clear()


def test_out_of_several_sounds_is_a_folder_and_a_stream_says_one(fitted_speaker, tmp_path):
    (tmp_path / "v.mp4").touch()
    two = ["--audio", "a.wav", "--audio", "b.wav"]
    said = CliRunner().invoke(
        app, ["speak", str(fitted_speaker), *two, "--out", str(tmp_path / "v.mp4")]
    )
    assert said.exit_code == 2
    assert "folder" in said.stderr
    said = CliRunner().invoke(app, ["speak", str(fitted_speaker), *two, "--stream", "-"])
    assert said.exit_code == 2
