"""`speak`: audio in, a video of the fitted speaker saying it out."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from talkgs_cli.config import SpeakConfig
from talkgs_cli.errors import UsageError
from talkgs_cli.media.credentials import credentials_for
from talkgs_cli.media.marking import SYNTHETIC, mark, require_signing
from talkgs_cli.runtime import Progress, SilentProgress, peak_rss_mb, require_writable
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.speak_record import RenderRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.media.audio import SoundStream
    from talkgs_cli.stages.speak_frames import Performance

LOST_S = 0.1  # sound that a file promises and does not hold: less is rounding


def speak(
    speaker: SpeakerFolder,
    audio: Path,
    out: Path | None,
    config: SpeakConfig,
    progress: Progress,
    *,
    name: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Render the speaker saying `audio`; writes OUT and renders/NAME/render.json.

    Args:
        speaker: A fitted speaker.
        audio: What it says.
        out: The video; None: renders/NAME/video.mp4, or .mov with a transparent background.
        config: How it talks.
        progress: Gets counts and notes.
        name: NAME; None: the sound's.
        force: Do it again although it is done.

    Raises:
        BadInput: the speaker is not fitted or has no lip model, or the audio can't be used.
        UsageError: options that don't fit together, or another file is in the way.
    """
    from talkgs_cli.media.encoding import VideoWriter, format_for
    from talkgs_cli.media.ffmpeg import require_file
    from talkgs_cli.stages.translator_choice import settled_to_speak

    started = time.monotonic()
    speaker.require_fit()
    require_file(audio, "sound")
    config = settled_to_speak(config, progress)
    record = RenderRecord(speaker, audio, out, config, name)
    video = record.video
    kind = format_for(video, config.background == "alpha")
    require_writable(video.parent)
    if not force:
        if done := record.finished():
            return done
        record.require_free()
    credentials = credentials_for(config.c2pa_cert, config.c2pa_key)
    require_signing(video, credentials)
    performance = _performance(speaker, config, progress)
    sound = _sound(audio, config)
    clock, rate = performance.clock, performance.frame_rate
    frame_count, first_frame_s = 0, 0.0
    with (
        VideoWriter(
            video,
            performance.size,
            rate,
            audio,
            crf=config.crf,
            preset=config.preset,
            metadata=SYNTHETIC,
            kind=kind,
            audio_start_s=sound.start_s,
            audio_duration_s=sound.duration_s,
        ) as writer,
        progress.stage("Speaking", _expected_frames(sound, rate)) as advance,
        closing(performance.frames(sound)) as frames,
    ):
        for frame in frames:
            first_frame_s = first_frame_s or time.monotonic() - started
            with clock.part("encode"):
                writer.write(frame)
            frame_count += 1
            advance(1)
    record.claim()  # if signing fails, the video that stays is ours
    with clock.part("mark"):
        marks = mark(video, credentials)
    result = {
        "video": str(video),
        "marks": marks,
        "frames": frame_count,
        "frame_rate": str(rate),
        "duration_s": round(float(frame_count / rate), 3),
        "size": list(performance.size),
        "sound": _heard(sound, progress),
        "fps_end_to_end": round(frame_count / (time.monotonic() - started), 2),
        "first_frame_s": round(first_frame_s, 3),
        "parts_s": clock.parts(),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "translator": _translator_told(speaker, config),
    }
    record.keep(result)
    return result


def stream(
    speaker: SpeakerFolder,
    audio: Path,
    to: BinaryIO,
    kind: str,
    config: SpeakConfig,
    progress: Progress,
) -> None:
    """Write frames (and sound) to a pipe as they are made.

    Args:
        speaker: A fitted speaker.
        audio: What it says.
        to: An open file, such as standard output.
        kind: A name of `media.encoding.STREAMS`, or "raw": the bytes of the frames, no sound.
        config: How it talks.
        progress: Gets counts and notes.

    Raises:
        BrokenPipeError: whoever reads has enough.
    """
    from talkgs_cli.media.encoding import STREAMS, VideoWriter

    if kind != "raw" and kind not in STREAMS:
        raise UsageError(
            f"There is no stream {kind!r}.", hint=f"Known: {', '.join([*STREAMS, 'raw'])}."
        )
    if config.background == "alpha" and kind != "raw":
        raise UsageError(
            f"A {kind} stream can't hold a transparent background.",
            hint="Use --stream-format raw: RGBA frames.",
        )
    performance = _performance(speaker, config, progress)
    sound = _sound(audio, config)
    total = _expected_frames(sound, performance.frame_rate)
    with (
        progress.stage("Speaking", total) as advance,
        closing(performance.frames(sound)) as frames,
    ):
        if kind == "raw":
            for frame in frames:
                to.write(frame.tobytes())
                to.flush()
                advance(1)
            return
        with VideoWriter(
            to,
            performance.size,
            performance.frame_rate,
            audio,
            crf=config.crf,
            preset=config.preset,
            metadata=SYNTHETIC,
            kind=STREAMS[kind],
            audio_start_s=sound.start_s,
            audio_duration_s=sound.duration_s,
        ) as writer:
            for frame in frames:
                writer.write(frame)
                advance(1)
    _heard(sound, progress)


def frames_of_speech(
    speaker: SpeakerFolder, audio: Path, config: SpeakConfig
) -> Generator[NDArray[np.uint8]]:
    """The finished frames one by one; what `talkgs_cli.speak` yields."""
    performance = _performance(speaker, config, SilentProgress())
    yield from performance.frames(_sound(audio, config))


def _performance(speaker: SpeakerFolder, config: SpeakConfig, progress: Progress) -> Performance:
    import torch

    from talkgs_cli.stages.speak_frames import Performance
    from talkgs_cli.stages.translator_choice import settled_to_speak

    speaker.require_fit()
    torch.set_num_threads(1)  # torch's own threads fight the rasteriser's (docs/rendering.md)
    return Performance(speaker, settled_to_speak(config, progress), progress)


def _translator_told(speaker: SpeakerFolder, config: SpeakConfig) -> dict[str, Any] | None:
    """Whose mouth it was: what the fit told of it, or the base translator taken in its place."""
    if config.translator is not None:
        return {"base": config.translator, "sha256": config.translator_sha256}
    fitted: dict[str, Any] = (speaker.stage("fit") or {}).get("result", {})
    return fitted.get("translator")


def _sound(audio: Path, config: SpeakConfig) -> SoundStream:
    from talkgs_cli.media.audio import SoundStream

    return SoundStream(
        audio,
        start_s=Fraction(str(config.start_s)),
        duration_s=None if config.duration_s is None else Fraction(str(config.duration_s)),
    )


def _promised_s(sound: SoundStream) -> Fraction | None:
    """Length of the part of the sound that is asked for, as the file tells it; it may be wrong."""
    from talkgs_cli.media.probe import sound_duration_s

    whole_s = sound_duration_s(sound.path)
    if whole_s is None:
        return sound.duration_s
    rest_s = max(Fraction(0), Fraction(whole_s) - sound.start_s)
    return rest_s if sound.duration_s is None else min(rest_s, sound.duration_s)


def _expected_frames(sound: SoundStream, frame_rate: Fraction) -> int | None:
    promised_s = _promised_s(sound)
    return None if promised_s is None else max(1, round(promised_s * frame_rate))


def _heard(sound: SoundStream, progress: Progress) -> dict[str, Any]:
    """What was used of the sound; tells the user where it is less than the file promises."""
    used_s, promised_s = sound.samples / sound.sample_rate_hz, _promised_s(sound)
    lost_s = max(0.0, float(promised_s) - used_s) if promised_s is not None else 0.0
    if lost_s > LOST_S:
        progress.note(
            f"{sound.path} is damaged or cut off: {used_s:.2f} s of {float(promised_s or 0):.2f} s "
            "of sound could be read and were used."
        )
    elif sound.damage:
        progress.note(f"{sound.path} is damaged in places ({sound.damage}); the rest was used.")
    return {
        "used_s": round(used_s, 3),
        "lost_s": round(lost_s, 3) if lost_s > LOST_S else 0.0,
        "damage": sound.damage,
    }
