"""`speak`: audio in, a video of the fitted speaker saying it out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli import __version__
from talkgs_cli.config import SpeakConfig, to_json
from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import Progress, peak_rss_mb, require_writable, write_json
from talkgs_cli.speaker import SpeakerFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.avatar import Avatar
    from talkgs_cli.types import HeadMotion

CHUNK_BYTES = 192 * 1024 * 1024  # original frames held while the clip plays backwards


def speak(
    speaker: SpeakerFolder,
    audio: Path,
    out: Path | None,
    config: SpeakConfig,
    progress: Progress,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Render the speaker saying `audio`; writes OUT and renders/NAME/render.json.

    Raises:
        BadInput: the speaker is not fitted or has no lip model, or the audio can't be used.
    """
    import torch

    from talkgs_cli.avatar import Avatar
    from talkgs_cli.compositing import Compositor
    from talkgs_cli.media.audio import SAMPLE_RATE_HZ, read_audio
    from talkgs_cli.media.video import VideoWriter
    from talkgs_cli.rendering.warm_up import compile_kernels

    started = time.monotonic()
    speaker.require_fit()
    torch.set_num_threads(1)  # torch's own threads fight the rasteriser's (docs/rendering.md)
    compile_kernels(progress, backward=False)
    samples = read_audio(audio, SAMPLE_RATE_HZ)
    record_file = speaker.renders / audio.stem / "render.json"
    video = out or record_file.with_name("video.mp4")
    require_writable(video.parent)
    request = {
        "audio_sha256": hashlib.sha256(audio.read_bytes()).hexdigest(),
        "config": to_json(config),
        "fit": (speaker.stage("fit") or {}).get("finished"),
        "talkgs": __version__,
        "video": str(video),
    }
    if not force and (done := _already_done(record_file, video, request)):
        return done
    clock = Clock()
    avatar, compositor = Avatar.load(speaker), Compositor(speaker.crop)
    frame_count = frames_of(Fraction(len(samples), SAMPLE_RATE_HZ), speaker.frame_rate)
    if frame_count < 1:
        raise BadInput(f"{audio} is shorter than one frame.", hint="Use a longer recording.")
    references = reference_frames(speaker, avatar, frame_count)
    with clock.part("audio"), progress.stage("Listening", None):
        motion = drive(speaker, avatar, samples, references)
    with (
        VideoWriter(
            video, speaker.size, speaker.frame_rate, audio, crf=config.crf, metadata=SYNTHETIC
        ) as writer,
        progress.stage("Speaking", frame_count) as advance,
    ):
        rendered = avatar.render(motion)
        originals = clock.over("read", original_frames(speaker, references))
        for index, original in zip(references, originals, strict=True):
            with clock.part("render"):
                rgb, alpha = next(rendered)
            with clock.part("composite"):
                frame = compositor.paste(rgb, alpha, original, speaker.label(index))
            with clock.part("encode"):
                writer.write(frame)
            advance(1)
    result = {
        "video": str(video),
        "frames": frame_count,
        "frame_rate": str(speaker.frame_rate),
        "duration_s": round(float(frame_count / speaker.frame_rate), 3),
        "fps_end_to_end": round(frame_count / (time.monotonic() - started), 2),
        "parts_s": clock.parts(),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "translator": (speaker.stage("fit") or {}).get("result", {}).get("translator"),
    }
    write_json(record_file, {"request": request, "result": result})
    return result


SYNTHETIC = {
    "title": "Synthetic talking head",
    "comment": f"AI-generated video: face and lips synthesised by talkgs {__version__}.",
}
"""Container metadata of every video: it says that it is synthetic."""


def frames_of(duration_s: Fraction, frame_rate: Fraction) -> int:
    """Frames that show a sound of this length: duration x rate, rounded half up.

    >>> frames_of(Fraction(7, 1), Fraction(30000, 1001))
    210
    """
    return int(duration_s * frame_rate + Fraction(1, 2))


def reference_frames(speaker: SpeakerFolder, avatar: Avatar, count: int) -> list[int]:
    """Which of the speaker's frames lie under the rendered ones: there and back, without a jump.

    The longest run of frames with a face in the training part is played forwards and backwards.
    """
    train, _ = speaker.splits()
    valid = avatar.tracking.valid.tolist()
    best = range(0)
    start: int | None = None
    for t in range(train.start, train.stop + 1):
        inside = t < train.stop and valid[t]
        if inside and start is None:
            start = t
        elif not inside and start is not None:
            if t - start > len(best):
                best = range(start, t)
            start = None
    if not best:
        raise BadInput(f"No frame of {speaker.path} shows a face.", hint="Prepare another clip.")
    return [best[ping_pong(k, len(best))] for k in range(count)]


def ping_pong(step: int, length: int) -> int:
    """Position after `step` steps of walking to and fro over `length` places.

    >>> [ping_pong(k, 3) for k in range(6)]
    [0, 1, 2, 1, 0, 1]
    """
    if length == 1:
        return 0
    turn = step % (2 * length - 2)
    return turn if turn < length else 2 * length - 2 - turn


def drive(
    speaker: SpeakerFolder,
    avatar: Avatar,
    samples: NDArray[np.float32],
    references: list[int],
) -> HeadMotion:
    """Head motion for the sound: the mouth from the translator, all else from the references."""
    import torch

    from talkgs_cli.networks.audio_encoder import load_encoder
    from talkgs_cli.networks.motion_translator import MotionTranslator
    from talkgs_cli.types import unpack_mouth

    if not speaker.translator.is_file():
        raise BadInput(
            f"{speaker.path} has no lip model: its video came without sound.",
            hint="Prepare and fit a clip with sound.",
        )
    translator = MotionTranslator.load(speaker.translator)
    features = load_encoder(translator.about.encoder).encode(samples)
    mouth = translator.predict(features, len(references), speaker.frame_rate)
    rest = avatar.tracking.motion.at(torch.tensor(references))
    return unpack_mouth(
        mouth, rest, avatar.head.head.mouth_expression, avatar.tracking.mouth_correctives
    )


def original_frames(speaker: SpeakerFolder, references: list[int]) -> Iterator[NDArray[np.uint8]]:
    """The original frames of `references` (steps of one, either way), a chunk in memory at most."""
    from talkgs_cli.media.video import read_frames

    height, width = speaker.size
    longest = max(1, CHUNK_BYTES // (height * width * 3))
    for first, last in _runs(references, longest):
        low, high = min(first, last), max(first, last)
        start_s = float(low / speaker.frame_rate)
        frames = read_frames(speaker.video, start_s=start_s, frames=high - low + 1)
        if last >= first:
            yield from frames
        else:
            yield from reversed(list(frames))


def _runs(references: list[int], longest: int) -> Iterator[tuple[int, int]]:
    """Cut the walk into straight pieces; those that go backwards are at most `longest` long."""
    start = 0
    for k in range(1, len(references) + 1):
        step = references[k] - references[k - 1] if k < len(references) else 0
        direction = references[start + 1] - references[start] if k - start > 1 else step
        full = direction < 0 and k - start >= longest
        if abs(step) != 1 or step != direction or full:
            yield references[start], references[k - 1]
            start = k


def _already_done(record_file: Path, video: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    import json

    if not (video.is_file() and record_file.is_file()):
        return None
    record = json.loads(record_file.read_text(encoding="utf-8"))
    return {**record["result"], "already_done": True} if record["request"] == request else None


class Clock:
    """Adds up the seconds spent in named parts."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def part(self, name: str) -> _Part:
        """Time a `with` block under `name`."""
        return _Part(self._seconds, name)

    def over(self, name: str, items: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Time how long each item takes to arrive."""
        while True:
            with self.part(name):
                item = next(items, None)
            if item is None:
                return
            yield item

    def parts(self) -> dict[str, float]:
        """Seconds by part."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}


class _Part:
    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = time.monotonic() - self._started
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + spent
