"""Video out and in again: frames, colours, rates, tags, full disks, and processes that end."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_media import (
    NTSC,
    PATCHES,
    children,
    counting_frames,
    patches,
    run_ffmpeg,
    tone,
    write_video,
)

from talkgs_cli.errors import BadInput, MachineLacks
from talkgs_cli.media import ffmpeg
from talkgs_cli.media.audio import write_wav
from talkgs_cli.media.encoding import VideoWriter, even_size
from talkgs_cli.media.ffmpeg import failure, ffmpeg_program
from talkgs_cli.media.probe import probe as probe_video
from talkgs_cli.media.probe import probe_stream
from talkgs_cli.media.video import frame_count, read_frames, transcode


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


def test_a_video_whose_name_is_no_text_is_read_and_copied(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", counting_frames(5))
    latin = path.rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    transcode(latin, tmp_path / "copy.mp4", probe_video(latin).size, Fraction(25))
    assert len(list(read_frames(latin))) == len(list(read_frames(tmp_path / "copy.mp4"))) == 5


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


@pytest.mark.parametrize(
    ("matrix", "tags"),
    [
        ("bt601", ""),
        ("bt601", "range=tv:colorspace=bt470bg:color_primaries=bt470bg:color_trc=smpte170m"),
        ("bt601", "range=tv:colorspace=smpte170m"),
        ("bt601", "range=pc:colorspace=smpte170m"),
        ("bt709", "range=tv:colorspace=bt709"),
    ],
)
def test_transcoding_keeps_the_colours_of_any_tags(matrix: str, tags: str, tmp_path: Path) -> None:
    tagged = write_video(tmp_path / "tagged.mp4", [patches()] * 3, crf=4)
    source = tmp_path / "source.mp4"
    levels = "pc" if "range=pc" in tags else "tv"
    change = f"scale=in_color_matrix=bt709:out_color_matrix={matrix}:in_range=tv:out_range={levels}"
    tag = f"setparams={tags}" if tags else "setparams=colorspace=unknown:color_primaries=unknown"
    run_ffmpeg(
        *("-i", str(tagged), "-vf", f"{change},format=yuv420p,{tag}"),
        *("-c:v", "libx264", "-crf", "4", str(source)),
    )
    transcode(source, tmp_path / "copy.mp4", (96, 128), Fraction(25))
    frame = next(iter(read_frames(tmp_path / "copy.mp4")))
    assert np.abs(frame[48, 16::32].astype(int) - PATCHES).max() <= 6
    assert "bt709" in probe_stream(tmp_path / "copy.mp4").matrix


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


def test_the_file_appears_only_when_all_went_well(tmp_path: Path) -> None:
    before = children()
    writer = VideoWriter(tmp_path / "v.mp4", (96, 128), Fraction(25))
    with pytest.raises(ZeroDivisionError), writer:
        writer.write(np.full((96, 128, 3), 1 // 0, np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert children() == before


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


def hlg_through(folder: Path, matrix: str, primaries: str) -> np.ndarray:
    """One colour of HLG in BT.2020, copied to BT.709: RGB."""
    path = folder / f"{matrix}-{primaries}.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "color=c=0xC83C28:s=96x96:r=25:d=0.2", "-vf"),
        "scale=out_color_matrix=bt2020,format=yuv420p10le,"
        f"setparams=colorspace={matrix}:color_primaries={primaries}:color_trc=arib-std-b67",
        *("-c:v", "libx264", "-crf", "4", str(path)),
    )
    stream = probe_stream(path)
    assert (stream.matrix or "unknown", stream.primaries or "unknown") == (matrix, primaries)
    transcode(path, folder / "out.mp4", (96, 96), Fraction(25))
    return next(iter(read_frames(folder / "out.mp4")))[48, 48].astype(int)


def test_high_dynamic_range_with_tags_missing_is_read_as_if_they_were_there(tmp_path: Path) -> None:
    wanted = hlg_through(tmp_path, "bt2020nc", "bt2020")
    for tags in (("bt2020nc", "unknown"), ("unknown", "bt2020"), ("unknown", "unknown")):
        assert np.abs(hlg_through(tmp_path, *tags) - wanted).max() <= 1, tags


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("turns", [0, 1])
def test_an_odd_row_or_column_is_left_out_and_the_rest_not_resampled(
    tmp_path: Path, matrix: str, turns: int
) -> None:
    source, target = tmp_path / "odd.mkv", tmp_path / "even.mp4"
    run_ffmpeg(
        *("-f", "lavfi", "-i", "nullsrc=s=161x121:r=25:d=0.2", "-vf"),
        "format=gray,geq=lum='80+80*mod(X+Y,2)',"
        f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p",
        *("-c:v", "ffv1", str(source)),
    )
    size = (160, 120) if turns else (120, 160)
    transcode(source, target, size, Fraction(25), crf=1, quarter_turns=turns)
    frame = next(iter(read_frames(target))).astype(int)
    assert frame.shape[:2] == size
    sides = frame[::2, ::2], frame[1::2, ::2]
    assert np.abs(sides[0].mean() - sides[1].mean()) > 70  # a checkerboard of one pixel
    assert max(side.std() for side in sides) < 6
