"""Claims about speak: how long the video is, what it does with any sound, what it refuses."""

import io
import json
import shutil
import subprocess
import sys
import threading
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import talkgs_cli
from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.media.audio import SoundStream, read_audio, write_wav
from talkgs_cli.media.ffmpeg import ffmpeg_program
from talkgs_cli.media.probe import probe
from talkgs_cli.media.video import read_frames
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.speak import speak, stream
from talkgs_cli.stages.speak_sound import frames_of
from talkgs_cli.stages.verify import verify

DEFAULT = SpeakConfig()


def voice(path: Path, seconds: float, rate_hz: int = 16000) -> Path:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)
    write_wav(path, 0.3 * envelope * np.sin(2 * np.pi * 180 * t), rate_hz)
    return path


class Notes(SilentProgress):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def speaker(fitted_speaker: Path, speaker_copy) -> SpeakerFolder:
    return SpeakerFolder.open_(speaker_copy(fitted_speaker))


def say(speaker: SpeakerFolder, sound: Path, out: Path | None = None, **options) -> dict:
    return speak(speaker, sound, out, SpeakConfig(**options), SilentProgress())


# -- length and rate -----------------------------------------------------------------------------


def test_frame_count_is_duration_times_rate() -> None:
    assert frames_of(Fraction(10), Fraction(30000, 1001)) == 300
    assert frames_of(Fraction(1, 100), Fraction(25)) == 0


def test_a_sentence_becomes_a_video_of_its_length(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "a voice é.wav", 1.3)
    result = say(speaker, sound)
    video = Path(result["video"])
    info = probe(video)
    assert result["frames"] == frames_of(Fraction(13, 10), speaker.frame_rate)
    assert len(list(read_frames(video))) == result["frames"]
    assert info.has_audio
    assert info.size == speaker.size
    assert not list(speaker.path.rglob("*.partial*"))
    assert set(result["parts_s"]) == {"audio", "read", "render", "composite", "encode", "mark"}
    assert say(speaker, sound)["already_done"]
    other = replace(DEFAULT, crf=30)
    assert "already_done" not in speak(speaker, sound, None, other, SilentProgress())


def test_any_frame_rate_and_any_part_of_the_sound(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "v.wav", 3.0)
    result = say(speaker, sound, frame_rate="59.94", start_s=0.5, duration_s=1.5)
    assert result["frames"] == 90
    assert result["frame_rate"] == "60000/1001"
    info = probe(Path(result["video"]))
    assert info.duration_s == pytest.approx(1.5, abs=0.03)
    assert say(speaker, sound, start_s=2.9)["frames"] == frames_of(
        Fraction(1, 10), speaker.frame_rate
    )


def test_a_sound_of_many_windows_has_no_seam_and_the_right_length(speaker, tmp_path) -> None:
    from talkgs_cli.stages.speak_frames import load_voice
    from talkgs_cli.stages.speak_sound import mouths

    translator, encoder = load_voice(speaker)
    t = np.arange(45 * 16000) / 16000
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 2.7 * t)
    samples = (0.2 * envelope * np.sin(2 * np.pi * 150 * t)).astype(np.float32)
    write_wav(tmp_path / "long.wav", samples)
    rate, sound = Fraction(30000, 1001), SoundStream(tmp_path / "long.wav")
    made = np.concatenate([m.numpy() for m in mouths(translator, encoder, sound, rate)])
    whole = translator.predict(encoder.encode(read_audio(sound.path)), len(made), rate).numpy()
    assert np.abs(made - whole).max() < 0.02 * np.abs(whole - whole.mean(0)).max()
    assert len(made) == frames_of(Fraction(45), rate)
    steps = np.linalg.norm(np.diff(made, axis=0), axis=1)
    assert steps[60:-60].max() <= 1.5 * np.quantile(steps[60:-60], 0.99)


def test_sounds_of_the_same_name_keep_their_videos(speaker, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    first = say(speaker, voice(tmp_path / "v.wav", 0.3))
    second = say(speaker, voice(tmp_path / "other" / "v.wav", 0.4))
    assert Path(first["video"]).is_file()
    assert first["video"] != second["video"]
    assert say(speaker, tmp_path / "v.wav")["already_done"]
    assert say(speaker, tmp_path / "other" / "v.wav")["already_done"]


def test_a_file_in_the_way_is_kept(speaker, tmp_path) -> None:
    sound, out = voice(tmp_path / "v.wav", 0.3), tmp_path / "holiday.mp4"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        say(speaker, sound, out)
    assert out.read_text() == "mine"
    speak(speaker, sound, out, DEFAULT, SilentProgress(), force=True)
    assert "already_done" not in say(speaker, sound, out, crf=30)  # its own may be replaced
    out.with_name("talk.mp4").write_bytes(out.read_bytes())
    with pytest.raises(UsageError, match="the sound itself"):
        say(speaker, out.with_name("talk.mp4"), out.with_name("talk.mp4"))


# -- where it goes -------------------------------------------------------------------------------


def test_every_video_says_that_it_is_synthetic(speaker, tmp_path) -> None:
    out = tmp_path / "talk.mp4"
    answer = say(speaker, voice(tmp_path / "v.wav", 0.5), out)
    assert b"AI-generated" in out.read_bytes()
    seen = verify(out)
    assert seen["synthetic"]
    if answer["marks"]["c2pa"]:
        assert seen["intact"]
        assert seen["c2pa"]["digital_source_type"] == "trainedAlgorithmicMedia"


def test_the_crop_alone_is_what_the_whole_frame_holds_there(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "v.wav", 0.4)
    whole = list(talkgs_cli.speak(speaker.path, sound))
    square = list(talkgs_cli.speak(speaker.path, sound, crop=True))
    crop = speaker.crop
    rows, columns = (slice(a, a + crop.side) for a in (crop.top, crop.left))
    for a, b in zip(whole, square, strict=True):
        assert b.shape == (crop.side, crop.side, 3)
        assert np.array_equal(a[rows, columns], b)


@pytest.mark.parametrize("name", ["head.mov", "head.webm"])
def test_a_head_on_nothing_keeps_its_transparency(speaker, tmp_path, name: str) -> None:
    out = tmp_path / name
    say(speaker, voice(tmp_path / "v.wav", 0.3), out, background="alpha", crop=True)
    decoder = ["-c:v", "libvpx-vp9"] if name.endswith("webm") else []
    command = [ffmpeg_program(), "-v", "error", *decoder, "-i", str(out), "-f", "rawvideo"]
    raw = subprocess.run(
        [*command, "-pix_fmt", "rgba", "-"], capture_output=True, check=True
    ).stdout
    side = speaker.crop.side
    alpha = np.frombuffer(raw, np.uint8).reshape(-1, side, side, 4)[0, ..., 3]
    assert alpha[:4].max() < 20
    assert alpha[side // 2, side // 2] > 230


def test_formats_that_cannot_hold_what_they_must_are_refused(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "v.wav", 0.3)
    with pytest.raises(UsageError, match="transparent"):
        say(speaker, sound, tmp_path / "a.mp4", background="alpha")
    with pytest.raises(UsageError, match="what kind"):
        say(speaker, sound, tmp_path / "video.xyz")
    with pytest.raises(UsageError, match="neither a file nor a colour"):
        say(speaker, sound, tmp_path / "a.mp4", background="no-such-colour")
    assert not list(tmp_path.glob("a*"))


def test_a_stream_is_a_video_with_sound_that_other_programs_read(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "v.wav", 0.6)
    count = frames_of(Fraction(6, 10), speaker.frame_rate)
    raw = io.BytesIO()
    stream(speaker, sound, raw, "raw", DEFAULT, SilentProgress())
    height, width = speaker.size
    frames = np.frombuffer(raw.getvalue(), np.uint8).reshape(-1, height, width, 3)
    assert len(frames) == count
    for kind in ("nut", "mp4"):
        path = tmp_path / f"stream.{kind}"
        with path.open("wb") as file:
            stream(speaker, sound, file, kind, DEFAULT, SilentProgress())
        read = list(read_frames(path))
        assert len(read) == count
        if kind == "nut":
            assert np.array_equal(read[-1], frames[-1])
        assert probe(path).has_audio


@pytest.mark.parametrize("kind", ["nut", "raw"])
def test_a_reader_that_has_enough_is_no_error(speaker, tmp_path, kind: str) -> None:
    sound = voice(tmp_path / "v.wav", 2.0)
    command = [sys.executable, "-m", "talkgs_cli", "speak", str(speaker.path)]
    options = ["--audio", str(sound), "--stream", "-", "--stream-format", kind]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout.read(1000)
        run.stdout.close()
        said = run.stderr.read().decode()
    assert run.returncode == 0, said
    assert "Traceback" not in said
    assert "Exception" not in said


# -- from Python ---------------------------------------------------------------------------------


def test_importing_talkgs_loads_nothing_heavy() -> None:
    code = (
        "import sys, talkgs_cli; talkgs_cli.speak\n"
        "print(','.join({'torch', 'cv2', 'numpy', 'numba'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_leaving_the_loop_ends_threads_and_programs(speaker, tmp_path) -> None:
    frames = talkgs_cli.speak(str(speaker.path), str(voice(tmp_path / "v.wav", 3.0)))
    assert next(frames).dtype == np.uint8
    frames.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("talkgs-mouths")]
    assert not [t for t in threading.enumerate() if t.name == "talkgs-read"]


def test_wrong_use_is_told_before_the_first_frame(speaker, tmp_path) -> None:
    sound = voice(tmp_path / "v.wav", 0.5)
    with pytest.raises(UsageError, match="no option colour"):
        talkgs_cli.speak(speaker.path, sound, colour="red")
    with pytest.raises(BadInput, match="There is no file"):
        talkgs_cli.speak(speaker.path, tmp_path / "nothing.wav")


# -- sounds that are not what one hopes for ------------------------------------------------------


def test_silence_keeps_the_mouth_shut_and_is_no_error(speaker, tmp_path) -> None:
    write_wav(tmp_path / "s.wav", np.zeros(32000))
    assert say(speaker, tmp_path / "s.wav")["frames"] == round(2 * speaker.frame_rate)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (96000, 6)])
def test_any_sample_rate_and_any_number_of_channels(speaker, tmp_path, rate_hz, channels) -> None:
    path = tmp_path / "v.wav"
    tone = (8000 * np.sin(np.arange(rate_hz) * 1000 / rate_hz)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.repeat(tone[:, None], channels, axis=1).tobytes())
    assert say(speaker, path)["frames"] == round(speaker.frame_rate)


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_a_sound_that_breaks_off_is_used_as_far_as_it_goes(speaker, tmp_path, kind) -> None:
    whole = voice(tmp_path / "v.wav", 4.0)
    broken = tmp_path / f"broken.{kind}"
    subprocess.run([ffmpeg_program(), "-v", "error", "-i", str(whole), str(broken)], check=True)
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    notes = Notes()
    result = speak(speaker, broken, None, DEFAULT, notes)
    assert 10 < result["frames"] < 90
    assert result["sound"]["lost_s"] > 1
    assert any("cut off" in said for said in notes.said)
    assert len(list(read_frames(Path(result["video"])))) == result["frames"]


def test_the_name_does_not_matter_the_content_does(speaker, tmp_path) -> None:
    shutil.copy(voice(tmp_path / "v.wav", 0.5), tmp_path / "v.mp3")
    assert say(speaker, tmp_path / "v.mp3")["frames"] == frames_of(
        Fraction(1, 2), speaker.frame_rate
    )


@pytest.mark.parametrize("fault", ["missing", "empty", "text", "folder", "short", "picture only"])
def test_what_is_no_sound_is_refused_and_leaves_nothing(speaker, tmp_path, fault: str) -> None:
    path = tmp_path / "v.wav"
    if fault == "empty":
        path.touch()
    elif fault == "text":
        path.write_text("This is not a sound.\n" * 100)
    elif fault == "folder":
        path.mkdir()
    elif fault == "short":
        write_wav(path, np.zeros(100))
    elif fault == "picture only":
        command = [ffmpeg_program(), "-v", "error", "-f", "lavfi", "-i", "testsrc=d=0.2"]
        subprocess.run([*command, str(tmp_path / "p.mp4")], check=True)
        shutil.move(tmp_path / "p.mp4", path)
    with pytest.raises(BadInput) as failure:
        say(speaker, path)
    assert str(path) in str(failure.value)
    assert failure.value.hint
    assert not list(speaker.path.rglob("*.partial*"))
    assert not list(speaker.renders.rglob("*.mp4"))


def test_a_start_behind_the_end_is_refused(speaker, tmp_path) -> None:
    with pytest.raises(BadInput, match="no sound from 9 s on"):
        say(speaker, voice(tmp_path / "v.wav", 1.0), start_s=9)


# -- speakers ------------------------------------------------------------------------------------


def test_an_unfitted_speaker_is_refused_with_the_next_command(
    prepared_speaker: Path, tmp_path
) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    with pytest.raises(BadInput) as failure:
        say(speaker, voice(tmp_path / "v.wav", 1))
    assert "talkgs fit" in str(failure.value.hint)


def test_a_fit_without_lip_model_is_refused(speaker, tmp_path) -> None:
    speaker.translator.unlink()
    with pytest.raises(BadInput, match="no lip model"):
        say(speaker, voice(tmp_path / "v.wav", 1))
    assert not list(speaker.path.rglob("*.partial*"))


def test_the_record_names_the_audio(speaker, tmp_path) -> None:
    say(speaker, voice(tmp_path / "v.wav", 0.5))
    record = json.loads((speaker.renders / "v" / "render.json").read_text())
    assert len(record["request"]["audio_sha256"]) == 64
