"""Sound in and out: what is read, where it starts, what is refused."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_media import (
    counting_frames,
    patches,
    run_ffmpeg,
    text_file,
    tone,
    write_video,
)

from talkgs_cli.errors import BadInput
from talkgs_cli.media.audio import read_audio, write_wav
from talkgs_cli.media.probe import probe as probe_video
from talkgs_cli.media.video import read_frames, transcode


def test_an_mp3_named_wav_is_read_for_what_it_is(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", tone(1.0))
    run_ffmpeg("-i", str(tmp_path / "tone.wav"), str(tmp_path / "t.mp3"))
    named = (tmp_path / "t.mp3").rename(tmp_path / "named.wav")
    samples = read_audio(named)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * 16_000 / len(samples) == pytest.approx(440, abs=2)
    assert len(samples) == pytest.approx(16_000, abs=1200)


def test_two_loud_channels_do_not_clip(tmp_path: Path) -> None:
    both = np.repeat((tone(0.5, 48_000) * 1.9 * 32767).astype("<i2"), 2)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(both.tobytes())
    samples = read_audio(tmp_path / "stereo.wav")
    assert len(samples) == 8000
    assert np.abs(samples).max() == pytest.approx(0.95, abs=0.02)


def test_sound_starts_where_the_picture_does(tmp_path: Path) -> None:
    """A click at 1 s stays at 1 s although its stream starts 0.5 s late."""
    click = np.zeros(16_000)
    click[8_000:8_080] = 0.9
    write_wav(tmp_path / "click.wav", click)
    silent = write_video(tmp_path / "v.mp4", [patches()] * 50)
    late = tmp_path / "late.mkv"
    run_ffmpeg(
        *("-i", str(silent), "-itsoffset", "0.5", "-i", str(tmp_path / "click.wav")),
        *("-c:v", "copy", "-c:a", "pcm_s16le", str(late)),
    )
    assert np.abs(read_audio(late)).argmax() / 16_000 == pytest.approx(1.0, abs=0.01)
    transcode(late, tmp_path / "t.mp4", (96, 128), Fraction(25))
    assert np.abs(read_audio(tmp_path / "t.mp4")).argmax() / 16_000 == pytest.approx(1.0, abs=0.01)


def test_written_sound_reads_back(tmp_path: Path) -> None:
    samples = np.clip(tone(0.25) * 3, -1.2, 1.2)
    write_wav(tmp_path / "t.wav", samples)
    assert np.abs(read_audio(tmp_path / "t.wav") - np.clip(samples, -1, 1)).max() < 1e-4


@pytest.mark.parametrize("what", ["absent", "empty file", "no samples", "text", "silent video"])
def test_what_holds_no_sound_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    if what == "empty file":
        path.touch()
    elif what == "no samples":
        write_wav(path, np.zeros(0))
    elif what == "text":
        path.write_text("no sound\n" * 50)
    elif what == "silent video":
        path = write_video(tmp_path / "v.mp4", [patches()] * 3)
    with pytest.raises(BadInput) as caught:
        read_audio(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 3


def test_sound_that_is_no_sound_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"text\.mp4 has no sound"):
        write_video(tmp_path / "v.mp4", [patches()] * 80, audio=text_file(tmp_path))
    assert not (tmp_path / "v.mp4").exists()


def test_a_sound_without_a_single_packet_does_not_cost_the_picture(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", tone(1), 16_000)
    source = write_video(tmp_path / "v.mp4", counting_frames(25), audio=tmp_path / "tone.wav")
    data = bytearray(source.read_bytes())
    sizes = data.rindex(b"stsz") + 12  # the last track is the sound: it now has no samples
    data[sizes : sizes + 4] = bytes(4)
    source.write_bytes(data)
    assert probe_video(source).has_audio
    transcode(source, tmp_path / "t.mp4", (32, 48), Fraction(25))
    assert len(list(read_frames(tmp_path / "t.mp4"))) == 25
    assert not probe_video(tmp_path / "t.mp4").has_audio
