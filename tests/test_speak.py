"""Claims about speak: which frames lie underneath, how long the video is, what it refuses."""

import doctest
import itertools
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages import speak as module
from talkgs_cli.stages.speak import _runs, frames_of, original_frames, ping_pong, speak


def voice(path: Path, seconds: float, rate_hz: int = 16000) -> Path:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)
    write_wav(path, 0.3 * envelope * np.sin(2 * np.pi * 180 * t), rate_hz)
    return path


def test_doctests():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_the_walk_never_jumps_and_stays_inside(length: int):
    walk = [ping_pong(k, length) for k in range(50)]
    assert set(walk) == set(range(length))
    assert all(abs(b - a) <= 1 for a, b in itertools.pairwise(walk))


@pytest.mark.parametrize("longest", [1, 2, 5, 100])
@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_runs_cover_the_walk_exactly(length: int, longest: int):
    walk = [10 + ping_pong(k, length) for k in range(40)]
    covered: list[int] = []
    for first, last in _runs(walk, longest):
        step = 1 if last >= first else -1
        piece = list(range(first, last + step, step))
        assert step > 0 or len(piece) <= longest
        covered += piece
    assert covered == walk


def test_frame_count_is_duration_times_rate():
    assert frames_of(Fraction(10), Fraction(30000, 1001)) == 300
    assert frames_of(Fraction(1, 100), Fraction(25)) == 0


def test_frames_come_back_in_the_order_asked_for(prepared_speaker: Path):
    speaker = SpeakerFolder.open_(prepared_speaker)
    forwards = list(read_frames(speaker.video))
    walk = [3, 4, 5, 6, 5, 4, 3, 2]
    for index, frame in zip(walk, original_frames(speaker, walk), strict=True):
        assert np.array_equal(frame, forwards[index]), index


def test_a_sentence_becomes_a_video_of_its_length(fitted_speaker: Path, speaker_copy, tmp_path):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    sound = voice(tmp_path / "a voice é.wav", 1.3)
    result = speak(speaker, sound, None, SpeakConfig(), SilentProgress())
    video = Path(result["video"])
    info = probe(video)
    assert result["frames"] == frames_of(Fraction(13, 10), speaker.frame_rate)
    assert len(list(read_frames(video))) == result["frames"]
    assert info.has_audio
    assert info.size == speaker.size
    assert not list(speaker.path.rglob("*.partial*"))
    again = speak(speaker, sound, None, SpeakConfig(), SilentProgress())
    assert again["already_done"]
    other = replace(SpeakConfig(), crf=30)
    assert "already_done" not in speak(speaker, sound, None, other, SilentProgress())


def test_every_video_says_that_it_is_synthetic(fitted_speaker: Path, speaker_copy, tmp_path):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    out = tmp_path / "talk.mp4"
    speak(speaker, voice(tmp_path / "v.wav", 0.5), out, SpeakConfig(), SilentProgress())
    assert b"AI-generated" in out.read_bytes()


def test_an_unfitted_speaker_is_refused_with_the_next_command(prepared_speaker: Path, tmp_path):
    speaker = SpeakerFolder.open_(prepared_speaker)
    with pytest.raises(BadInput) as failure:
        speak(speaker, voice(tmp_path / "v.wav", 1), None, SpeakConfig(), SilentProgress())
    assert "talkgs fit" in str(failure.value.hint)


def test_a_fit_without_lip_model_is_refused(fitted_speaker: Path, speaker_copy, tmp_path):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    speaker.translator.unlink()
    with pytest.raises(BadInput, match="no lip model"):
        speak(speaker, voice(tmp_path / "v.wav", 1), None, SpeakConfig(), SilentProgress())
    assert not list(speaker.path.rglob("*.partial*"))


def test_the_record_names_the_audio(fitted_speaker: Path, speaker_copy, tmp_path):
    speaker = SpeakerFolder.open_(speaker_copy(fitted_speaker))
    speak(speaker, voice(tmp_path / "v.wav", 0.5), None, SpeakConfig(), SilentProgress())
    record = json.loads((speaker.renders / "v" / "render.json").read_text())
    assert len(record["request"]["audio_sha256"]) == 64
