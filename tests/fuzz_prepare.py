"""Damages small videos in many ways and prepares them: no traceback, no hang, nothing half-written.

    python tests/fuzz_prepare.py CLIP --count 300 --seed 0

A case is a child process forked after the imports, so that it costs little more than the work.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from input_variants import AAC, H264, Variant, make_variant

LIMIT_S = 180.0
HEAVY = (
    "ai_edge_litert.interpreter",
    "ctranslate2",
    "skimage.metrics",
    "talkgs_cli.networks.audio_encoder",
    "talkgs_cli.stages.prepare_assess",
    "talkgs_cli.stages.prepare_report",
    "talkgs_cli.tracking.head_fitting",
    "talkgs_cli.tracking.photometric",
)
EXPECTED = {0, 3}  # a damaged file is used or refused; anything else is our mistake
SMALL = "scale=176:176"
SOURCES = (
    Variant("mp4", SMALL),
    Variant("mp4 with its index in front", SMALL, video=(*H264, "-movflags", "+faststart")),
    Variant("mkv", SMALL, suffix=".mkv"),
    Variant("mov", SMALL, audio=("-c:a", "pcm_s16le"), suffix=".mov"),
    Variant(
        "avi",
        SMALL,
        audio=("-c:a", "libmp3lame"),
        suffix=".avi",
        video=("-c:v", "mpeg4", "-q:v", "4"),
    ),
    Variant(
        "webm",
        SMALL,
        audio=("-c:a", "libopus"),
        suffix=".webm",
        video=("-c:v", "libvpx", "-b:v", "400k", "-deadline", "realtime"),
    ),
    Variant("ts", SMALL, audio=AAC, suffix=".ts"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file."""

    case: int
    damage: str
    source: str
    code: int | None  # None: it hung
    wrong: str  # "" where all is well
    seconds: float


def damage(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One of eleven kinds of damage to a file's bytes."""
    size = len(data)
    kind = rng.choice(
        (
            "flip bits",
            "flip many bits",
            "truncate",
            "truncate hard",
            "cut out",
            "double",
            "zero",
            "header",
            "shuffle",
            "append",
            "tail",
        )
    )
    spoilt = bytearray(data)
    a = rng.randrange(size)
    b = min(size, a + rng.randrange(1, max(2, size // 4)))
    if kind == "flip bits":
        for _ in range(rng.randrange(1, 20)):
            spoilt[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "flip many bits":
        for _ in range(size // 200):
            spoilt[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del spoilt[a:]
    elif kind == "truncate hard":
        del spoilt[rng.randrange(0, 64) :]
    elif kind == "cut out":
        del spoilt[a:b]
    elif kind == "double":
        spoilt[a:a] = data[a:b]
    elif kind == "zero":
        spoilt[a:b] = bytes(b - a)
    elif kind == "header":
        for _ in range(rng.randrange(1, 8)):
            spoilt[rng.randrange(min(size, 600))] = rng.randrange(256)
    elif kind == "shuffle":
        c, d = rng.randrange(size), rng.randrange(size)
        length = min(4096, size - max(c, d))
        spoilt[c : c + length] = data[d : d + length]
    elif kind == "append":
        spoilt += rng.randbytes(rng.randrange(1, 5000))
    else:  # the index at the end of the file
        for _ in range(rng.randrange(1, 12)):
            spoilt[size - 1 - rng.randrange(min(size, 3000))] = rng.randrange(256)
    return bytes(spoilt), kind


def _child(video: Path, out: Path, log: Path) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from talkgs_cli.app import main

    sys.argv = ["talkgs", "prepare", str(video), "--out", str(out), "--consent"]
    main()


def check(code: int | None, out: Path, said: str) -> str:
    """What is wrong with how a run ended; "" if nothing is."""
    if code is None:
        return "it hung"
    if code not in EXPECTED:
        return f"exit code {code}: {said[-300:]}"
    if "Traceback" in said:
        return "a traceback"
    if code == 0:
        from talkgs_cli.speaker import SpeakerFolder

        speaker = SpeakerFolder.open_(out)
        if len(speaker.load_tracking()) != len(list(speaker.frames.glob("*.png"))):
            return "half-written: frames and tracking differ"
    else:
        left = [path.name for path in out.parent.iterdir() if path.name.startswith(out.name)]
        if left:
            return f"refused, but left {', '.join(left)}"
        if "Error" not in said and "error" not in said and len(said.strip()) < 10:
            return "refused without a word"
    return ""


def run_case(case: int, seed: int, sources: list[tuple[str, Path]], scratch: Path) -> Outcome:
    """Damage a source, prepare it, look at what is left."""
    rng = random.Random(f"{seed}-{case}")
    name, source = rng.choice(sources)
    data, kind = damage(source.read_bytes(), rng)
    folder = scratch / f"case-{case}"
    folder.mkdir()
    suffix = rng.choice([source.suffix] * 4 + [".mp4"])
    video, out, log = folder / f"video{suffix}", folder / "speaker", folder / "log"
    video.write_bytes(data)
    started = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_child, args=(video, out, log))
    process.start()
    process.join(LIMIT_S)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    code = None if hung else process.exitcode
    wrong = check(code, out, log.read_text(errors="replace") if log.is_file() else "")
    if not wrong:
        shutil.rmtree(folder)
    return Outcome(case, kind, name, code, wrong, time.monotonic() - started)


def fuzz(clip: Path, cases: range, seed: int, scratch: Path) -> list[Outcome]:
    """Run the cases one after the other; those that went wrong keep their folder in `scratch`."""
    for module in HEAVY:  # once, for all children
        importlib.import_module(module)
    sources = [
        (variant.name, make_variant(variant, clip, scratch / f"source-{k}", 2.4))
        for k, variant in enumerate(SOURCES)
    ]
    outcomes = []
    for case in cases:
        outcomes.append(run_case(case, seed, sources, scratch))
        if len(outcomes) % 25 == 0:
            bad = sum(bool(outcome.wrong) for outcome in outcomes)
            print(f"{len(outcomes)} cases, {bad} wrong", file=sys.stderr, flush=True)
    return outcomes


def main() -> None:
    """Fuzz, and print a table and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="talkgs-fuzz-"))
    cases = range(options.first, options.first + options.count)
    outcomes = fuzz(options.clip, cases, options.seed, scratch)
    table = collections.Counter((o.damage, o.code) for o in outcomes)
    print(
        json.dumps(
            {f"{kind}: exit {code}": n for (kind, code), n in sorted(table.items(), key=str)},
            indent=1,
        )
    )
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    for outcome in wrong:
        print(outcome)
    slowest = max(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} cases, {len(wrong)} wrong, slowest {slowest:.1f} s, kept in {scratch}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
