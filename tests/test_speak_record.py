"""Claims about where spoken videos go and which of them are known again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.jobs import read_jobs
from talkgs_cli.stages.speak_record import RenderRecord, located

DEFAULT = SpeakConfig()
NOTHING_DONE = {"stages": {}}


@pytest.fixture
def speaker(tmp_path: Path) -> SpeakerFolder:
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "anna").mkdir()
    return SpeakerFolder(tmp_path / "anna", NOTHING_DONE)


def said(speaker: SpeakerFolder, audio: Path, out: Path | None = None, **options: Any) -> Path:
    record = RenderRecord(speaker, audio, out, replace(DEFAULT, **options))
    record.require_free()
    record.video.parent.mkdir(parents=True, exist_ok=True)
    record.video.write_bytes(b"video")
    record.keep({"video": str(record.video)})
    return record.video


def done(speaker: SpeakerFolder, audio: Path, out: Path | None = None) -> str | None:
    found = RenderRecord(speaker, audio, out, DEFAULT).finished()
    return None if found is None else found["video"]


def test_a_video_is_known_however_the_speaker_is_named_and_wherever_it_went(
    speaker: SpeakerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said(SpeakerFolder(Path("anna"), NOTHING_DONE), Path("a.wav"))
    assert done(speaker, tmp_path / "a.wav") == str(speaker.renders / "a" / "video.mp4")
    moved = SpeakerFolder(speaker.path.rename(tmp_path / "moved"), NOTHING_DONE)
    assert done(moved, tmp_path / "a.wav") == str(moved.renders / "a" / "video.mp4")


def test_a_named_video_is_known_from_another_folder_too(
    speaker: SpeakerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said(speaker, Path("a.wav"), Path("talk.mp4"))
    assert done(speaker, tmp_path / "a.wav", tmp_path / "talk.mp4") is not None


def test_a_sounds_own_folder_is_never_in_the_way_another_file_is(
    speaker: SpeakerFolder, tmp_path: Path
) -> None:
    sound, out = tmp_path / "a.wav", tmp_path / "talk.mp4"
    said(speaker, sound)
    said(speaker, sound, out)
    said(speaker, sound, mouth_gain=1.2)
    (speaker.renders / "a" / "render.json").unlink()  # stopped before it was noted
    said(speaker, sound)
    with pytest.raises(UsageError, match="exists already"):
        said(speaker, sound, out)


def test_a_video_that_could_not_be_signed_is_made_anew(
    speaker: SpeakerFolder, tmp_path: Path
) -> None:
    sound, out = tmp_path / "a.wav", tmp_path / "talk.mp4"
    record = RenderRecord(speaker, sound, out, DEFAULT)
    out.write_bytes(b"unsigned")
    record.claim()
    assert done(speaker, sound, out) is None
    assert said(speaker, sound, out) == out
    assert done(speaker, sound, out) is not None


def test_a_background_file_is_the_same_from_every_folder_and_in_a_list(
    speaker: SpeakerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("room.jpg", "white"):
        Path(name).touch()
    Path("jobs.jsonl").write_text(
        '{"audio": "a.wav", "options": {"background": "room.jpg"}}\n{"audio": "a.wav"}'
    )
    said(speaker, Path("a.wav"), background="room.jpg")
    inside = replace(DEFAULT, background="../room.jpg")
    monkeypatch.chdir(speaker.path)
    assert RenderRecord(speaker, Path("../a.wav"), None, inside).finished()
    listed = read_jobs([], Path("../jobs.jsonl"), speaker.path, None, inside)
    for job in listed:  # its own option, and the command's
        assert RenderRecord(speaker, Path(job.audio), None, job.config()).finished()
    assert located({"background": "white"}, tmp_path) == {"background": "white"}  # a colour


def test_words_are_not_taken_for_files_of_that_name(tmp_path: Path) -> None:
    for name in ("source", "still", "alpha"):
        (tmp_path / name).touch()
    for words in ({"pose": "source"}, {"pose": "still"}, {"background": "alpha"}):
        assert located(words, tmp_path) == words
    assert located({"pose": "alpha"}, tmp_path) == {"pose": str(tmp_path / "alpha")}
