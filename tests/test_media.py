"""Video and sound in and out: sizes, rates, colours, refusals, and processes that end."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkgs_cli.errors import BadInput, MachineLacks
from talkgs_cli.media import ffmpeg, probe
from talkgs_cli.media.audio import read_audio, write_wav
from talkgs_cli.media.encoding import VideoWriter, even_size
from talkgs_cli.media.ffmpeg import failure, ffmpeg_program
from talkgs_cli.media.probe import probe as probe_video
from talkgs_cli.media.video import frame_count, read_frames, transcode

NTSC = Fraction(30000, 1001)
PATCHES = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 200], [230, 190, 160]], np.uint8)


def patches(height: int = 96, width: int = 128) -> np.ndarray:
    """Four flat colours side by side."""
    return np.broadcast_to(np.repeat(PATCHES, width // 4, axis=0), (height, width, 3)).copy()


def write_video(path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(25), **options):
    with VideoWriter(path, frames[0].shape[:2], rate, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def counting_frames(count: int) -> list[np.ndarray]:
    """Frames whose grey level says which one they are."""
    return [np.full((32, 48, 3), 20 + 8 * (i % 25), np.uint8) for i in range(count)]


def tone(seconds: float, rate_hz: int = 16_000, frequency_hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def run_ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_program(), "-v", "error", "-y", *arguments], check=True)


def children() -> set[int]:
    """Process ids of our own living or zombie children."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(entry.parent.name))
    return found


# -- probing ---------------------------------------------------------------------------------------


def test_a_written_video_says_its_exact_rate_size_and_sound(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", tone(1.0))
    path = write_video(
        tmp_path / "ü and spaces: odd.mp4", [patches()] * 30, NTSC, audio=tmp_path / "tone.wav"
    )
    info = probe_video(path)
    assert info.size == (96, 128)
    assert info.frame_rate == NTSC
    assert info.has_audio
    assert info.constant_rate
    assert info.duration_s == pytest.approx(1.0, abs=0.05)


def test_an_odd_last_row_and_column_are_left_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", [np.full((97, 131, 3), 90, np.uint8)] * 3)
    assert probe_video(path).size == (96, 130)


def test_a_turned_phone_video_has_its_displayed_size(tmp_path: Path) -> None:
    upright = patches()
    upright[:48] //= 2
    path = write_video(tmp_path / "lying.mp4", [upright] * 3)
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", str(path), "-c", "copy", str(turned))
    assert probe_video(turned).size == (128, 96)
    (frame,) = read_frames(turned, frames=1)
    assert frame.shape == (128, 96, 3)
    assert np.abs(frame.astype(int) - np.rot90(upright)).mean() < 4


def test_wide_pixels_are_made_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "square.mp4", [patches()] * 3)
    wide = tmp_path / "wide.mp4"
    run_ffmpeg("-i", str(path), "-vf", "setsar=4/3", str(wide))
    assert probe_video(wide).size == (96, 171)
    assert next(iter(read_frames(wide))).shape == (96, 171, 3)


@pytest.mark.parametrize(
    ("line", "rate", "constant"),
    [
        ("Video: h264, yuv420p, 64x64, 29.97 fps, 29.97 tbr, 30k tbn", NTSC, True),
        ("Video: h264, yuv420p, 64x64, 23.98 fps, 23.98 tbr", Fraction(24000, 1001), True),
        ("Video: mpeg1video, yuv420p, 64x64, 25 fps, 50 tbr, 90k tbn", Fraction(25), True),
        ("Video: hevc, yuv420p, 64x64, 59.94 fps, 59.94 tbr", Fraction(60000, 1001), True),
        ("Video: h264, yuv420p, 64x64, 28.41 fps, 30 tbr", Fraction("28.41"), False),
        ("Video: vp8, yuv420p, 64x64, 1k tbr, 1k tbn", Fraction(1000), True),
    ],
)
def test_printed_rates_become_exact_fractions(line: str, rate: Fraction, constant: bool) -> None:
    assert probe._frame_rate(line) == (rate, constant)


def text_file(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("This is no video.\n" * 20)
    return path


def sound_file(folder: Path) -> Path:
    path = folder / "sound.mp4"
    write_wav(folder / "tone.wav", tone(0.5))
    run_ffmpeg("-i", str(folder / "tone.wav"), str(path))
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "absent.mp4", "There is no file"),
        (lambda folder: folder, "is not a file"),
        (text_file, "is not a video"),
        (empty_file, "is not a video"),
        (sound_file, "has no picture"),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(
    make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(BadInput, match=says) as caught:
        probe_video(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_playlist_cannot_make_us_reach_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1.0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/secret.ts"
        path = tmp_path / "list.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n")
        with pytest.raises(BadInput, match="playlist"):
            list(read_frames(path))
        with pytest.raises(TimeoutError):
            server.accept()


# -- frames ----------------------------------------------------------------------------------------


def test_flat_colours_survive_writing_and_reading(tmp_path: Path) -> None:
    path = write_video(tmp_path / "colours.mp4", [patches()] * 5, crf=4)
    for frame in read_frames(path):
        centres = frame[48, 16::32].astype(int)
        assert np.abs(centres - PATCHES).max() <= 3


def test_untagged_small_video_is_taken_for_bt601_and_tagged_for_what_it_says(
    tmp_path: Path,
) -> None:
    tagged = write_video(tmp_path / "tagged.mp4", [patches()] * 3, crf=4)
    old = tmp_path / "old.avi"  # BT.601, and the container can't say so
    run_ffmpeg(
        *("-i", str(tagged), "-vf", "scale=in_color_matrix=bt709:out_color_matrix=bt601"),
        *("-c:v", "mpeg4", "-q:v", "2", str(old)),
    )
    frame = next(iter(read_frames(old)))
    assert np.abs(frame[48, 16::32].astype(int) - PATCHES).max() <= 6


def test_resampling_keeps_the_duration_exactly(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting_frames(60), Fraction(30))
    assert len(list(read_frames(path, frame_rate=Fraction(25)))) == 50
    assert len(list(read_frames(path))) == 60


def test_reading_may_start_at_any_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting_frames(40), NTSC, crf=4)
    every = [int(f.mean().round()) for f in read_frames(path)]
    for first in (1, 13, 39):
        got = [int(f.mean().round()) for f in read_frames(path, start_s=float(first / NTSC))]
        assert got == every[first:]


def test_frame_count_is_duration_times_rate() -> None:
    assert frame_count(Fraction(600), NTSC) == 17982
    assert frame_count(Fraction(160_000, 16_000), Fraction(25)) == 250


def test_a_reader_that_is_left_early_leaves_no_process(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [patches()] * 50)
    before = children()
    frames = read_frames(path)
    next(frames)
    frames.close()
    assert children() == before


def test_a_video_cut_off_by_a_full_card_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", [patches()] * 50)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(BadInput):
        list(read_frames(path))


def test_transcoding_gives_a_constant_rate_the_sound_and_progress(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", tone(2.0))
    source = write_video(
        tmp_path / "s.mp4", counting_frames(120), Fraction(60), audio=tmp_path / "tone.wav"
    )
    target, steps = tmp_path / "t.mp4", []
    transcode(source, target, (32, 48), Fraction(30), advance=steps.append)
    assert sum(steps) == 60 == len(list(read_frames(target)))
    info = probe_video(target)
    assert info.frame_rate == 30
    assert info.has_audio
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


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


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_transcoding_can_turn_the_picture(turns: int, tmp_path: Path) -> None:
    picture = patches(96, 128)
    picture[:48] //= 2
    source = write_video(tmp_path / "s.mp4", [picture] * 5)
    expected = np.rot90(picture, turns)
    transcode(source, tmp_path / "t.mp4", expected.shape[:2], Fraction(25), quarter_turns=turns)
    turned = next(iter(read_frames(tmp_path / "t.mp4")))
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).mean() < 6


# -- writing ---------------------------------------------------------------------------------------


def test_the_file_appears_only_when_all_went_well(tmp_path: Path) -> None:
    before = children()
    writer = VideoWriter(tmp_path / "v.mp4", (96, 128), Fraction(25))
    with pytest.raises(ZeroDivisionError), writer:
        writer.write(np.full((96, 128, 3), 1 // 0, np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert children() == before


def test_sound_that_is_no_sound_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"text\.mp4 has no sound"):
        write_video(tmp_path / "v.mp4", [patches()] * 80, audio=text_file(tmp_path))
    assert not (tmp_path / "v.mp4").exists()


def test_tags_are_in_the_file(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "v.mp4", [patches()], metadata={"comment": "a = b", "talkgs": "x"}
    )
    said = subprocess.run(
        [ffmpeg_program(), "-i", str(path)], capture_output=True, text=True
    ).stderr
    assert "a = b" in said
    assert "talkgs" in said


def test_frames_of_another_size_are_a_bug_not_a_broken_video(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not uint8"),
        VideoWriter(tmp_path / "v.mp4", (96, 128), Fraction(25)) as writer,
    ):
        writer.write(patches(64, 64))


def test_full_disk_and_read_only_folders_are_told_apart() -> None:
    full = failure(Path("v.mp4"), "av_interleaved_write_frame(): No space left on device")
    shut = failure(Path("v.mp4"), "v.mp4: Permission denied")
    assert isinstance(full, MachineLacks)
    assert "full" in full.message
    assert "Can't write" in shut.message


def test_a_full_disk_while_renaming_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("talkgs_cli.runtime.os.replace", full)
    with pytest.raises(MachineLacks, match="full"):
        write_video(tmp_path / "v.mp4", [patches()] * 2)
    assert list(tmp_path.iterdir()) == []


# -- the program -----------------------------------------------------------------------------------


def test_a_wrong_program_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKGS_FFMPEG", "/nowhere/ffmpeg")
    with pytest.raises(MachineLacks, match="/nowhere/ffmpeg"):
        ffmpeg_program()


def test_without_any_program_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKGS_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(ffmpeg, "_bundled_program", lambda: None)
    with pytest.raises(MachineLacks, match="no ffmpeg") as caught:
        ffmpeg_program()
    assert "imageio-ffmpeg" in str(caught.value.hint)


# -- sound -----------------------------------------------------------------------------------------


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


def test_readers_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting_frames(30), crf=4)
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(len(list(read_frames(path)))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [30, 30, 30]
    assert even_size((3, 5)) == (2, 4)
