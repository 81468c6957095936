"""`prepare`: whose consent it believes, what it deletes, and what a stop at any moment leaves."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest

from talkgs_cli.config import PrepareConfig, to_json
from talkgs_cli.console.consent import consent_stated
from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import SilentProgress, file_sha256, write_json
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import prepare_publish
from talkgs_cli.stages.prepare_beside import Beside, Stopped
from talkgs_cli.stages.prepare_folder import (
    Request,
    finished_speaker,
    finished_work,
    just_published,
    keep_consent,
    require_place,
    stored_answer,
    work_folder,
)
from talkgs_cli.stages.prepare_publish import REPLACED, SCRATCH, WORK_FILE, is_precious, publish

REQUEST = Request("a" * 64, PrepareConfig())


def make(path: Path, request: Request = REQUEST, said: str = "") -> SpeakerFolder:
    """A speaker as `prepare` leaves it, without anything in its files."""
    speaker = SpeakerFolder.create(path, {"video_sha256": request.video_sha256})
    for file in (speaker.video, speaker.frame_file(0), speaker.label_file(0), speaker.report):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(said)
    result = {"consent": request.config.consent, "said": said}
    speaker.finish_stage("prepare", {"config": to_json(request.config), "result": result})
    return speaker


def make_finished_work(out: Path, request: Request = REQUEST) -> Path:
    with work_folder(out, request, SilentProgress()) as work:
        make(work, request, "new")
    return work


def said(path: Path) -> str:
    return SpeakerFolder.open_(path).report.read_text()


# -- consent ---------------------------------------------------------------------------------------


def test_consent_for_one_video_is_never_taken_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, bob, out = (tmp_path / name for name in ("alice.mp4", "bob.mp4", "speaker"))
    alice.write_bytes(b"alice")
    bob.write_bytes(b"bob")
    stated = PrepareConfig(consent="stated")
    make(out, Request(file_sha256(alice), stated))
    assert consent_stated(alice, out, False, ask=False)
    assert "likeness" not in capsys.readouterr().err
    assert not consent_stated(bob, out, False, ask=False)
    assert "likeness" in capsys.readouterr().err
    request = Request(file_sha256(bob), PrepareConfig())
    assert keep_consent(request, SpeakerFolder.open_(out)) == request


def test_consent_outlives_a_stop_between_the_last_two_renames(tmp_path: Path) -> None:
    stated = replace(REQUEST, config=PrepareConfig(consent="stated"))
    make_finished_work(tmp_path / "speaker", stated)
    again = keep_consent(REQUEST, finished_work(tmp_path / "speaker"))
    assert again.config.consent == "stated"


def test_consent_stated_later_is_also_in_the_answer(tmp_path: Path) -> None:
    speaker = make(tmp_path / "speaker")
    stated = replace(REQUEST, config=PrepareConfig(consent="stated"))
    assert stored_answer(speaker, stated)["consent"] == "stated"
    assert SpeakerFolder.open_(speaker.path).stage("prepare")["config"]["consent"] == "stated"


# -- what may be replaced --------------------------------------------------------------------------


def test_only_what_prepare_makes_is_replaceable(tmp_path: Path) -> None:
    speaker = make(tmp_path / "speaker")
    for name in SCRATCH:
        (speaker.path / name).touch()
    (speaker.path / "fit").mkdir()
    assert not is_precious(speaker.path)


@pytest.mark.parametrize(
    "name",
    [
        *("fit/gaussians.safetensors", "renders/hello/video.mp4", "scores/held-out.json"),
        *("notes.txt", "head_motion.npz", "media/original.mov", "media/frames/best.png"),
        "replaced/mine.txt",
    ],
)
def test_a_speaker_with_anything_else_in_it_is_moved_aside(tmp_path: Path, name: str) -> None:
    out = tmp_path / "speaker"
    make(out, said="old")
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("hours of work")
    kept = publish(make_finished_work(out), out)
    assert kept == tmp_path / "speaker.old-1"
    assert (kept / name).read_text() == "hours of work"
    assert said(out) == "new"


def test_a_linked_folder_in_a_speaker_is_precious(tmp_path: Path) -> None:
    speaker = make(tmp_path / "speaker")
    (tmp_path / "elsewhere").mkdir()
    (speaker.path / "fit").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert is_precious(speaker.path)


@pytest.mark.parametrize("file", ["thesis.txt", "work.json", None])
def test_a_folder_named_partial_that_is_somebodys_own_is_never_touched(
    tmp_path: Path, file: str | None
) -> None:
    own = tmp_path / "keep.partial"
    if file is None:
        own.write_text("a file")
    else:
        own.mkdir()
        (own / file).write_text("{}")
    with pytest.raises(UsageError, match=r"keep\.partial is in the way"):
        require_place(tmp_path / "keep")
    with (
        pytest.raises(UsageError, match=r"keep\.partial is in the way"),
        work_folder(tmp_path / "keep", REQUEST, SilentProgress()),
    ):
        pass
    assert own.is_file() or (own / str(file)).is_file()


@pytest.mark.parametrize("left", [(), ("work.partial.json",)])
def test_work_that_was_stopped_in_its_first_moment_is_begun_again(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    work = tmp_path / "speaker.partial"
    work.mkdir()
    for name in left:
        (work / name).touch()
    with work_folder(tmp_path / "speaker", REQUEST, SilentProgress()) as opened:
        assert json.loads((opened / WORK_FILE).read_text()) == REQUEST.work_key


def test_unfinished_work_of_another_video_is_deleted_with_a_word(tmp_path: Path) -> None:
    notes: list[str] = []
    listener = SilentProgress()
    listener.note = notes.append  # type: ignore[method-assign]
    with work_folder(tmp_path / "speaker", REQUEST, SilentProgress()) as work:
        (work / "landmarks").touch()
    other = replace(REQUEST, video_sha256="b" * 64)
    with work_folder(tmp_path / "speaker", other, listener) as work:
        assert not (work / "landmarks").exists()
    assert any("another video" in note for note in notes)


@pytest.mark.parametrize("out", [".", "..", "inner/.."])
def test_the_folder_one_is_in_is_refused_as_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "here" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="the folder you are in") as caught:
        require_place(Path(out))
    assert "--out" in str(caught.value.hint)


def test_a_place_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text in UTF-8"):
        require_place(tmp_path / os.fsdecode(b"sp\xe9"))


def test_an_empty_folder_and_a_link_to_one_become_the_speaker(tmp_path: Path) -> None:
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    link = tmp_path / "speaker"
    link.symlink_to(tmp_path / "disk" / "empty", target_is_directory=True)
    assert publish(make_finished_work(link), link) is None
    assert link.is_symlink()
    assert said(link) == "new"


@pytest.mark.parametrize("change", [{"a_field_of_tomorrow": 1}, {"crop_size": 7}, None])
def test_a_speaker_of_another_version_is_refused_with_the_way_out(
    tmp_path: Path, change: dict | None
) -> None:
    speaker = make(tmp_path / "speaker")
    record = speaker.stage("prepare")
    record["config"] = {**record["config"], **change} if change else {}
    if change is None:
        del record["config"]
    with pytest.raises(UsageError, match="another version") as caught:
        stored_answer(speaker, REQUEST)
    assert "--force" in str(caught.value.hint)


def test_a_speaker_whose_manifest_is_damaged_can_be_replaced(tmp_path: Path) -> None:
    speaker = make(tmp_path / "speaker")
    SpeakerFolder.manifest_path(speaker.path).write_text("{")
    assert finished_speaker(speaker.path, force=True) is None


# -- stopped at any moment -------------------------------------------------------------------------


def stop_at(moment: int, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Raise Ctrl-C in place of the n-th change of the disk that publishing makes."""
    count = 0

    def stopping(change: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == moment + 1:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return counted

    patch.setattr(prepare_publish.os, "rename", stopping(prepare_publish.os.rename))
    patch.setattr(prepare_publish.shutil, "rmtree", stopping(shutil.rmtree))
    patch.setattr(Path, "unlink", stopping(Path.unlink))
    return lambda: count


@pytest.mark.parametrize("precious", [False, True])
@pytest.mark.parametrize("moment", range(8))
def test_publishing_stopped_anywhere_leaves_a_whole_speaker_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precious: bool, moment: int
) -> None:
    out = tmp_path / "speaker"
    make(out, said="old")
    if precious:
        (out / "notes.txt").write_text("mine")
    work = make_finished_work(out)
    with monkeypatch.context() as patch:
        count = stop_at(moment, patch)
        try:
            publish(work, out)
        except KeyboardInterrupt:
            pass
        else:
            assert count() <= moment
    assert [said(path) for path in (out, work) if path.exists()]
    if work.exists():  # the same command continues there
        with work_folder(out, REQUEST, SilentProgress()) as again:
            assert said(again) == "new"
        publish(again, out)
    elif just_published(out, REQUEST):
        stored_answer(SpeakerFolder.open_(out), REQUEST)
    assert said(out) == "new"
    assert not work.exists()
    assert not (out / REPLACED).exists()
    assert not (out / WORK_FILE).exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"speaker", "speaker.old-1"}
    if precious:
        assert said(tmp_path / "speaker.old-1") == "old"


def test_work_beside_is_finished_when_all_goes_well() -> None:
    with Beside() as beside:
        found = beside.submit(lambda: list(beside.watched(range(3))))
    assert found.result() == [0, 1, 2]


def test_ctrl_c_ends_the_work_beside_at_its_next_step_and_begins_nothing_new() -> None:
    begun, stopped = threading.Event(), threading.Event()

    def long_fit() -> None:
        with beside.stage("Fitting", 10) as advance:
            begun.set()
            stopped.wait(10)
            advance(1)

    beside = Beside()
    fit, sound = beside.submit(long_fit), beside.submit(lambda: None)
    begun.wait(10)
    threading.Timer(0.05, stopped.set).start()
    with pytest.raises(KeyboardInterrupt), beside:
        raise KeyboardInterrupt
    with pytest.raises(Stopped):
        fit.result()
    with pytest.raises(CancelledError):
        sound.result()


def test_watched_sound_ends_when_it_is_time() -> None:
    beside = Beside()
    items = beside.watched(range(3))
    assert next(items) == 0
    with pytest.raises(KeyboardInterrupt), beside:
        raise KeyboardInterrupt
    with pytest.raises(Stopped):
        next(items)


def test_a_work_key_names_the_version(tmp_path: Path) -> None:
    with work_folder(tmp_path / "speaker", REQUEST, SilentProgress()) as work:
        (work / "landmarks").touch()
    write_json(work / WORK_FILE, {**REQUEST.work_key, "talkgs": "0.0.0"})
    with work_folder(tmp_path / "speaker", REQUEST, SilentProgress()) as work:
        assert not (work / "landmarks").exists()
