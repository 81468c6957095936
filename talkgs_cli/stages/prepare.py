"""`prepare`: a video in, a speaker folder out: tracked, cropped, labelled, head and sound fitted.

Every step leaves its file in OUT.partial, so that an interrupted run continues there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli.config import PrepareConfig, to_json
from talkgs_cli.errors import BadInput
from talkgs_cli.runtime import Progress, peak_rss_mb, write_json
from talkgs_cli.speaker import SpeakerFolder, crop_to_json
from talkgs_cli.stages.prepare_folder import (
    Request,
    file_sha256,
    finished_speaker,
    keep_consent,
    publish,
    stored_answer,
    work_folder,
)
from talkgs_cli.stages.prepare_verdict import (
    Evidence,
    judge,
    refuse_too_little_face,
    refuse_too_short,
    refuse_without_face,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.stages.prepare_tracking import Observations
    from talkgs_cli.types import Crop, HeadModel, Tracking, VideoInfo

QUICK_LOOKS = 12
NEAR_LOSSLESS_CRF = 12
ENCODER = "whisper-tiny.en"
SILENCE = 1e-4  # largest sample of a track that is as good as none


def prepare(
    video: Path,
    out: Path,
    config: PrepareConfig,
    progress: Progress,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Make a speaker folder from a video.

    Args:
        video: One person talking; any format ffmpeg reads.
        out: The folder to make.
        config: Settings.
        progress: Told about every stage.
        force: Replace a speaker made from another video or with other settings. One that was
            fitted, or spoke, is moved to OUT.old-N, not deleted.

    Returns:
        The JSON answer (docs/design.md).

    Raises:
        BadInput: not a video, no face, too short.
        UsageError: `out` holds something else and `force` is not given.
        MachineLacks: `out` can't be written.
    """
    from talkgs_cli.heads import load_head
    from talkgs_cli.media.probe import probe

    started = time.monotonic()
    out = Path(out)
    info = probe(video)
    refuse_too_short(video, info.duration_s)
    request = Request(file_sha256(video), config)
    previous = finished_speaker(out)
    if previous is not None and not force:
        done = stored_answer(previous, request)
        if done is not None:
            return done
    request = keep_consent(request, previous)
    head = load_head(config.head)

    with work_folder(out, request) as work:
        speaker = SpeakerFolder.create(work, {"video_sha256": request.video_sha256})
        rate, size = stored_rate(info, config), stored_size(info, config)
        _copy_video(video, info, speaker, rate, size, progress)
        observations = _track(video, speaker, rate, progress)
        samples = _extract_sound(video, info, speaker, len(observations.valid), rate)
        crop = _crop_and_label(speaker, observations, size, config, progress)
        tracking = _fit_head(head, speaker, observations, size, rate, progress)
        _encode_sound(speaker, samples, progress)

    result = _assess(head, tracking, observations, samples, rate)
    result |= {
        "speaker": str(out),
        "frames": len(tracking),
        "frame_rate": str(rate),
        "seconds_per_video_second": round((time.monotonic() - started) / info.duration_s, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "head": config.head.partition(":")[0],
        "consent": request.config.consent,
    }
    speaker.manifest |= {
        "frame_rate": str(rate),
        "frames": len(tracking),
        "size": list(size),
        "crop": crop_to_json(crop),
        "has_audio": samples is not None,
    }
    speaker.save_splits()
    speaker.finish_stage("prepare", {"config": to_json(request.config), "result": result})
    _observations_file(speaker).unlink(missing_ok=True)
    kept = publish(work, out)
    if kept is not None:
        progress.note(f"The speaker that was at {out} is now at {kept}.")
    return result


# -- what is stored --------------------------------------------------------------------------------


def stored_rate(info: VideoInfo, config: PrepareConfig) -> Fraction:
    """The constant frame rate of the speaker: the video's own, halved until it is low enough.

    A varying rate becomes the nearest usual one, so that time stays exact.
    """
    from talkgs_cli.media.probe import STANDARD_RATES

    rate = info.frame_rate
    if not info.constant_rate:
        rate = min(STANDARD_RATES, key=lambda usual: abs(usual / rate - 1))
    while rate > config.max_frame_rate:
        rate /= 2
    return rate


def stored_size(info: VideoInfo, config: PrepareConfig) -> tuple[int, int]:
    """(height, width) of the stored frames: even, and not above `max_short_side`."""
    from talkgs_cli.media.video import even_size

    short = min(info.size)
    if short <= config.max_short_side:
        return even_size(info.size)
    height, width = (round(length * config.max_short_side / short) for length in info.size)
    return even_size((height, width))


def _observations_file(speaker: SpeakerFolder) -> Path:
    return speaker.path / "observations.safetensors"


def _copy_video(
    video: Path,
    info: VideoInfo,
    speaker: SpeakerFolder,
    rate: Fraction,
    size: tuple[int, int],
    progress: Progress,
) -> None:
    """media/video.mp4: what all later stages see, at a constant rate."""
    from talkgs_cli.media.video import transcode

    if speaker.video.is_file():
        progress.note("Continuing an interrupted preparation.")
        return
    _look_for_a_face(video, info)
    expected = round(info.duration_s * rate)
    with progress.stage("Reading the video", expected) as advance:
        transcode(video, speaker.video, size, rate, NEAR_LOSSLESS_CRF, advance=advance)


def _look_for_a_face(video: Path, info: VideoInfo) -> None:
    """Refuse a video without a face after a second instead of minutes."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    looked_at = 0
    for look in range(QUICK_LOOKS):
        start_s = info.duration_s * (look + 0.5) / QUICK_LOOKS
        for frame in read_frames(video, start_s=start_s, frames=1):
            looked_at += 1
            landmarker.reset()
            if landmarker.track(frame) is not None:
                return
    refuse_without_face(video, 0, looked_at)


def _track(video: Path, speaker: SpeakerFolder, rate: Fraction, progress: Progress) -> Observations:
    """Landmarks of every frame."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.probe import probe
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.stages.prepare_tracking import Observations, observe
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    file = _observations_file(speaker)
    if file.is_file():
        return Observations.load(file)
    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    expected = round(probe(speaker.video).duration_s * rate)
    with progress.stage("Tracking the face", expected) as advance:
        found = observe(read_frames(speaker.video), landmarker, advance)
    valid_frames = int(found.valid.sum())
    refuse_without_face(video, valid_frames, len(found.valid))
    refuse_too_little_face(video, valid_frames, len(found.valid), float(rate))
    found.save(file)
    return found


def _extract_sound(
    video: Path, info: VideoInfo, speaker: SpeakerFolder, frames: int, rate: Fraction
) -> NDArray[np.float32] | None:
    """media/audio.wav: as long as the picture to the sample; None without a sound."""
    import numpy as np

    from talkgs_cli.media.audio import SAMPLE_RATE_HZ, read_audio, write_wav

    if not info.has_audio:
        return None
    try:
        samples = read_audio(video)
    except BadInput:  # a sound stream without a single packet
        return None
    length = round(frames / rate * SAMPLE_RATE_HZ)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    if np.abs(samples).max() < SILENCE:
        return None
    write_wav(speaker.audio, samples)
    return samples


def _crop_and_label(
    speaker: SpeakerFolder,
    observations: Observations,
    size: tuple[int, int],
    config: PrepareConfig,
    progress: Progress,
) -> Crop:
    """media/frames and media/labels."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.stages.prepare_tracking import write_crops
    from talkgs_cli.tracking.crop import choose_crop
    from talkgs_cli.tracking.matting import PersonMatting

    crop = choose_crop(observations.landmarks[observations.valid], size, config.crop_size)
    finished = speaker.media / "crop.json"  # says that all frames of this crop are there
    if finished.is_file():
        return crop
    matting = PersonMatting(fetch_file("selfie_segmenter"))
    with progress.stage("Cropping and labelling", len(observations.valid)) as advance:
        frames = read_frames(speaker.video)
        write_crops(frames, observations.landmarks, crop, matting, speaker, advance)
    write_json(finished, asdict(crop))
    return crop


def _fit_head(
    head: HeadModel,
    speaker: SpeakerFolder,
    observations: Observations,
    size: tuple[int, int],
    rate: Fraction,
    progress: Progress,
) -> Tracking:
    """tracking.safetensors."""
    from talkgs_cli.tracking.head_fitting import fit_head
    from talkgs_cli.tracking.landmarks import BLENDSHAPE_NAMES

    if speaker.tracking_file.is_file():
        return speaker.load_tracking()
    with _one_torch_thread():
        tracking = fit_head(
            head,
            observations.landmarks,
            observations.blendshapes,
            BLENDSHAPE_NAMES,
            observations.valid,
            size,
            float(rate),
            progress,
        )
    speaker.save_tracking(tracking)
    return tracking


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """The fit's many small matrices: two threads took 71 s where one took 24, on two busy cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _encode_sound(
    speaker: SpeakerFolder, samples: NDArray[np.float32] | None, progress: Progress
) -> None:
    """media/audio_features.safetensors."""
    from talkgs_cli.networks.audio_encoder import load_encoder

    if samples is None or speaker.audio_features.is_file():
        return
    with progress.stage("Encoding the sound", 1) as advance:
        encoder = load_encoder(ENCODER)
        speaker.save_audio_features(encoder.encode(samples), encoder.name)
        advance(1)


def _assess(
    head: HeadModel,
    tracking: Tracking,
    observations: Observations,
    samples: NDArray[np.float32] | None,
    rate: Fraction,
) -> dict[str, Any]:
    """The figures, the verdict and the advice."""
    from talkgs_cli.media.audio import SAMPLE_RATE_HZ
    from talkgs_cli.stages.prepare_sync import estimate_offset_s
    from talkgs_cli.tracking.crop import face_height_px
    from talkgs_cli.tracking.head_fitting import reprojection_error

    valid = observations.valid
    with _one_torch_thread():
        error = reprojection_error(head, tracking)
    landmark_error = {name: round(error[name] / 100, 5) for name in ("mean", "p95", "lips")}
    offset_s = None
    if samples is not None:
        offset_s = estimate_offset_s(observations.landmarks, valid, samples, SAMPLE_RATE_HZ, rate)
    evidence = Evidence(
        frames=len(valid),
        valid_frames=int(valid.sum()),
        frame_rate=float(rate),
        face_height_px=face_height_px(observations.landmarks[valid]),
        other_faces_share=float((observations.faces_seen > 1).mean()),
        jumps=observations.jumps(),
        has_audio=samples is not None,
        av_offset_s=offset_s,
        landmark_error_iod=landmark_error["mean"],
    )
    judgement = judge(evidence)
    return {
        "valid_share": round(evidence.valid_share, 4),
        "face_height_px": round(evidence.face_height_px, 1),
        "other_faces_share": round(evidence.other_faces_share, 4),
        "jumps": evidence.jumps,
        "landmark_error_iod": landmark_error,
        "jitter_px": round(error["jitter_px"], 4),
        "raw_jitter_px": round(error["raw_jitter_px"], 4),
        "av_offset_s": offset_s,
        "verdict": judgement.verdict,
        "advice": judgement.advice,
    }
