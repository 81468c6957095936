"""What a file says of its picture, and what is refused as no video."""

from __future__ import annotations

import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_media import (
    NTSC,
    patches,
    run_ffmpeg,
    text_file,
    tone,
    write_video,
)

from talkgs_cli.errors import BadInput
from talkgs_cli.media import probe
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.probe import probe as probe_video
from talkgs_cli.media.video import read_frames


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
