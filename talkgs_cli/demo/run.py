"""`talkgs demo`: makes its own speaker, runs the four stages on it, and compares with the truth.

Each stage knows by itself what is done, so an interrupted demo continues when it is run again.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli import __version__
from talkgs_cli.config import (
    FIT_PRESETS,
    PrepareConfig,
    ScoreConfig,
    SpeakConfig,
    inpainting_of,
    to_json,
)
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.runtime import require_writable, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talkgs_cli.config import DemoConfig
    from talkgs_cli.runtime import Progress

MARGIN_S = 0.3  # silence around the new sentence
SUMMARY_REGION = "face"


class DemoFolder:
    """folder/: video.mp4 and its truth, speaker/, new_sentence.wav, talking.mp4, demo.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.video = path / "video.mp4"
        self.speaker = path / "speaker"
        self.new_sentence = path / "new_sentence.wav"
        self.talking = path / "talking.mp4"
        self.record = path / "demo.json"


def demo(folder: Path, config: DemoConfig, progress: Progress) -> dict[str, Any]:
    """Make the demo speaker in `folder` and let it say a new sentence.

    Returns:
        video: the new sentence spoken; input_video: what the speaker was made from; speaker;
        seconds: of each stage; prepare: its verdict and errors; score: the face region of each
        row and the lips' behaviour; truth: `truth_error` of the tracking.

    Raises:
        UsageError: the folder holds a demo made with other settings.
    """
    from talkgs_cli.demo.truth import DemoTruth, truth_error, truth_path
    from talkgs_cli.speaker import SpeakerFolder
    from talkgs_cli.stages.fit import fit
    from talkgs_cli.stages.prepare import prepare
    from talkgs_cli.stages.score import score
    from talkgs_cli.stages.speak import speak

    files = DemoFolder(folder)
    require_writable(folder)
    record = _open_record(files, config)
    if "result" in record and files.talking.is_file():
        return {**record["result"], "already_done": True}
    with _timed(record, "video", files):
        _make_input(files, config, progress)
    with _timed(record, "prepare", files):
        consent = PrepareConfig(consent="stated")
        prepared = prepare(files.video, files.speaker, consent, progress)
    speaker = SpeakerFolder.open_(files.speaker)
    with _timed(record, "fit", files):
        inpainting = inpainting_of(config.preset, FIT_PRESETS[config.preset].seed)
        fit(speaker, FIT_PRESETS[config.preset], progress, inpainting_config=inpainting)
    with _timed(record, "speak", files):
        speak(speaker, files.new_sentence, files.talking, SpeakConfig(), progress)
    with _timed(record, "score", files):
        scored = score(speaker, ScoreConfig(), progress)
    truth = truth_error(DemoTruth.load(truth_path(files.video)), speaker.load_tracking())
    result = {
        "video": str(files.talking),
        "input_video": str(files.video),
        "speaker": str(files.speaker),
        "seconds": record["seconds"],
        "prepare": {key: prepared[key] for key in ("verdict", "landmark_error_iod", "frames")},
        "score": _summary(scored),
        "truth": {name: round(value, 4) for name, value in truth.items()},
    }
    write_json(files.record, {**record, "result": result})
    return result


def _open_record(files: DemoFolder, config: DemoConfig) -> dict[str, Any]:
    """What an earlier run noted, or a fresh note."""
    fresh = {"talkgs": __version__, "config": to_json(config), "seconds": {}}
    if not files.record.is_file():
        return fresh
    try:
        record: dict[str, Any] = json.loads(files.record.read_text(encoding="utf-8"))
        same = record["config"] == fresh["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{files.record} can't be read.", hint=f"Remove {files.path} and run: talkgs demo"
        ) from error
    if not same:
        raise UsageError(
            f"{files.path} holds a demo made with other settings.",
            hint="Choose another place with --folder, or remove that folder.",
        )
    return record


@contextmanager
def _timed(record: dict[str, Any], name: str, files: DemoFolder) -> Iterator[None]:
    """Note how long a stage took; a stage that was done before keeps its first figure."""
    started = time.monotonic()
    yield
    record["seconds"].setdefault(name, round(time.monotonic() - started, 1))
    write_json(files.record, record)


def _make_input(files: DemoFolder, config: DemoConfig, progress: Progress) -> None:
    """The demo video with its truth, and the sentence the video does not contain."""
    import numpy as np

    from talkgs_cli.demo.generator import make_demo_video
    from talkgs_cli.demo.speech import SAMPLE_RATE_HZ, synthesize
    from talkgs_cli.demo.truth import truth_path
    from talkgs_cli.media.audio import write_wav

    if not files.new_sentence.is_file():
        (sentence,) = synthesize([config.new_sentence], config.voice)
        silence = np.zeros(round(MARGIN_S * SAMPLE_RATE_HZ), np.float32)
        sound = np.concatenate([silence, sentence, silence])
        write_wav(files.new_sentence, sound, SAMPLE_RATE_HZ)
    if not (files.video.is_file() and truth_path(files.video).is_file()):
        make_demo_video(files.video, config, progress)


def _summary(scored: dict[str, Any]) -> dict[str, Any]:
    """The face region of each row, and how the lips behave."""
    rows = {name: regions.get(SUMMARY_REGION) for name, regions in scored["rows"].items()}
    return {
        "region": SUMMARY_REGION,
        "frames": scored["frames"],
        "rows": rows,
        "behaviour": scored["behaviour"],
    }
