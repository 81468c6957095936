"""Videos as people have them, made from one clip with ffmpeg.

`python tests/input_variants.py CLIP` prepares every one with the command and prints a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from talkgs_cli.media.ffmpeg import ffmpeg_program

H264 = ("-c:v", "libx264", "-crf", "16", "-preset", "veryfast", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac")
SKIN = "0xc08a70"


@dataclass(frozen=True)
class Variant:
    """One kind of input.

    Attributes:
        name: What it is.
        filters: Video filters, comma-separated; a `filter_complex` where it holds a semicolon.
        audio: ffmpeg's options for the sound.
        video: ffmpeg's options for the picture.
        suffix: Container.
        before: Options before `-i`.
        file: Name of the file without suffix.
        after: ffmpeg options of a second pass that copies the streams (rotation flags).
    """

    name: str
    filters: str = "null"
    audio: tuple[str, ...] = AAC
    video: tuple[str, ...] = H264
    suffix: str = ".mp4"
    before: tuple[str, ...] = ()
    file: str = "clip"
    after: tuple[str, ...] = field(default=())


def _fps(rate: str) -> Variant:
    return Variant(f"{rate} fps", f"fps={rate}")


def _sound(name: str, *options: str, suffix: str = ".mp4") -> Variant:
    return Variant(name, audio=options, suffix=suffix)


HDR = ("-c:v", "libx265", "-crf", "18", "-preset", "ultrafast", "-x265-params", "log-level=error")
VARIANTS = (
    Variant("as it is"),
    _fps("24"),
    _fps("30000/1001"),
    _fps("30"),
    _fps("50"),
    _fps("60"),
    Variant(
        "variable frame rate",
        "select='not(eq(mod(n,7),3))*not(eq(mod(n,11),5))'",
        video=(*H264, "-fps_mode", "vfr"),
        suffix=".mkv",
    ),
    Variant("rotation flag 90", "transpose=1", after=("-display_rotation", "90")),
    Variant("rotation flag 180", "hflip,vflip", after=("-display_rotation", "180")),
    Variant("rotation flag 270", "transpose=2", after=("-display_rotation", "270")),
    Variant("portrait 1080x1920", "scale=1080:1080,pad=1080:1920:0:420:color=gray"),
    Variant("4K", "scale=1600:1600,pad=3840:2160:1100:300:color=gray"),
    Variant("tiny, 160 px", "scale=160:160"),
    Variant("odd size", "scale=257:255", video=(*H264[:-1], "yuv444p")),
    Variant("wide pixels", "scale=iw/2:ih,setsar=2"),
    Variant("letterbox", "pad=iw:ih*4/3:0:ih/6"),
    Variant(
        "interlaced",
        "interlace",
        video=(*H264, "-flags", "+ilme+ildct", "-x264-params", "tff=1"),
    ),
    Variant(
        "HDR (HLG, 10 bit)",
        "scale=out_color_matrix=bt2020,format=yuv420p10le,"
        "setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc=arib-std-b67",
        video=(*HDR, "-pix_fmt", "yuv420p10le"),
    ),
    Variant(
        "HDR (PQ, 10 bit)",
        "scale=out_color_matrix=bt2020,format=yuv420p10le,eq=brightness=-0.1,"
        "setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084",
        video=(*HDR, "-pix_fmt", "yuv420p10le"),
    ),
    Variant("yuv444p", video=(*H264[:-1], "yuv444p")),
    Variant("yuv422p10", video=(*H264[:-1], "yuv422p10le"), suffix=".mov"),
    Variant("full range (yuvj420p)", "scale=out_range=full", video=(*H264[:-1], "yuvj420p")),
    Variant("grey", "format=gray", video=(*H264[:-1], "gray")),
    Variant("RGB, lossless", video=("-c:v", "ffv1", "-pix_fmt", "bgr0"), suffix=".mkv"),
    Variant(
        "VP9 in WebM",
        audio=("-c:a", "libopus"),
        suffix=".webm",
        video=("-c:v", "libvpx-vp9", "-crf", "30", "-b:v", "0", "-deadline", "realtime"),
    ),
    Variant(
        "MPEG-4 in AVI",
        audio=("-c:a", "libmp3lame"),
        suffix=".avi",
        video=("-c:v", "mpeg4", "-q:v", "3"),
    ),
    Variant(
        "Motion JPEG in MOV",
        audio=("-c:a", "pcm_s16le"),
        suffix=".mov",
        video=("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj422p"),
    ),
    _sound("mono, 8 kHz", "-ac", "1", "-ar", "8000", *AAC),
    _sound("stereo, 16 kHz", "-ac", "2", "-ar", "16000", *AAC),
    _sound("5.1, 48 kHz", "-ac", "6", "-ar", "48000", *AAC),
    _sound("44.1 kHz", "-ar", "44100", *AAC),
    _sound("no sound", "-an"),
    _sound("sound half as long", "-af", "atrim=end=1.6", *AAC),
    _sound("sound longer", "-af", "apad=pad_dur=2", *AAC),
    _sound("sound starts late", "-af", "adelay=700:all=1", *AAC),
    Variant(
        "scene cut",
        "[0:v]split[a][b];[a]trim=end=1.6,setpts=PTS-STARTPTS[x];"
        "[b]trim=start=1.6,setpts=PTS-STARTPTS,hflip,eq=brightness=0.2[y];[x][y]concat=n=2[v]",
    ),
    Variant(
        "hand before the mouth",
        f"color={SKIN}:s=200x200:r=25,format=yuva420p,"
        "geq=lum='lum(X,Y)+10*sin(X/9)':cb='cb(X,Y)':cr='cr(X,Y)':"
        "a='255*lt(hypot(X-100,Y-100),98)',scale=iw*0.8:ih*0.55[h];"
        "[0:v][h]overlay=x='W*0.5-80+20*sin(9*t)':y='H*0.52':enable='between(t,1.2,1.9)':"
        "shortest=1[v]",
    ),
    Variant("no face for a while", "drawbox=color=gray:t=fill:enable='between(t,1.2,1.9)'"),
    Variant("two faces", "[0:v]split[a][b];[b]hflip[c];[a][c]hstack[v]"),
    Variant("Unicode and spaces in the name", file="Frau Müller – 日本語 (1) 'x'"),
    Variant("half a second frozen", "loop=loop=12:size=1:start=40"),
    Variant("upside down, no flag", "hflip,vflip"),
    Variant("black and silent", "drawbox=color=black:t=fill", audio=("-af", "volume=0", *AAC)),
)


def make_variant(variant: Variant, clip: Path, folder: Path, seconds: float = 3.2) -> Path:
    """Write a variant of the first seconds of a clip; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (variant.file + variant.suffix)
    filters = (
        ["-filter_complex", variant.filters, "-map", "[v]", "-map", "0:a?"]
        if ";" in variant.filters
        else ["-vf", variant.filters, "-map", "0:v", "-map", "0:a?"]
    )
    read = [*variant.before, "-t", str(seconds), "-i", str(clip)]
    _ffmpeg(*read, *filters, *variant.video, *variant.audio, str(path))
    if variant.after:
        flat = path.rename(path.with_stem("flat"))
        _ffmpeg(*variant.after, "-i", str(flat), "-c", "copy", str(path))
    return path


def _ffmpeg(*arguments: str) -> None:
    command = [ffmpeg_program(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def prepare_json(video: Path, out: Path) -> tuple[int, dict, str]:
    """Exit code, answer and stderr of `talkgs prepare`."""
    command = [sys.executable, "-m", "talkgs_cli", "prepare", str(video), "--out", str(out)]
    said = subprocess.run(
        [*command, "--consent", "--json"], capture_output=True, text=True, timeout=600
    )
    return said.returncode, json.loads(said.stdout or "{}"), said.stderr


def main(clip: Path) -> None:
    """Print one row for each variant."""
    print("| input | exit | verdict | rate | frames | landmark error, % | says |\n|" + "---|" * 7)
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as scratch:
            video = make_variant(variant, clip, Path(scratch) / "in")
            code, answer, _ = prepare_json(video, Path(scratch) / "speaker")
        if code:
            error = answer.get("error", {})
            cells = [code, "refused", "", "", "", error.get("message", "")]
        else:
            mean = 100 * answer["landmark_error_iod"]["mean"]
            cells = [code, answer["verdict"], answer["frame_rate"], answer["frames"]]
            cells += [f"{mean:.2f}", " ".join(answer["advice"])]
        text = " | ".join(str(cell) for cell in cells).replace(scratch, "")
        print(f"| {variant.name} | {text} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
