"""`prepare`: a video in, a speaker folder out: tracked, cropped, labelled, head and sound fitted.

Every step leaves its file in OUT.partial, so that an interrupted run continues there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkgs_cli.config import PrepareConfig, to_json
from talkgs_cli.runtime import Progress, atomic_path, file_sha256, one_thread, peak_rss_mb
from talkgs_cli.speaker import SpeakerFolder, crop_to_json
from talkgs_cli.stages.prepare_beside import Beside
from talkgs_cli.stages.prepare_folder import (
    Request,
    finished_speaker,
    finished_work,
    just_published,
    keep_consent,
    require_place,
    stored_answer,
    work_folder,
)
from talkgs_cli.stages.prepare_publish import LANDMARK_TRACK, OBSERVATIONS, SHARPNESS, publish
from talkgs_cli.stages.prepare_stored import stored_rate, stored_size, what_is_reduced
from talkgs_cli.stages.prepare_verdict import (
    refuse_too_little_face,
    refuse_too_short,
    refuse_without_face,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from talkgs_cli.stages.prepare_sound import Sound
    from talkgs_cli.stages.prepare_tracking import Observations
    from talkgs_cli.types import Crop, HeadModel, Tracking, VideoInfo

NEAR_LOSSLESS_CRF = 12


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
        force: Replace a speaker made from another video or with other settings. One that holds
            more than `prepare` makes is moved to OUT.old-N, not deleted.

    Returns:
        The JSON answer (docs/design.md).

    Raises:
        BadInput: not a video, no face, too short.
        UsageError: `out` holds something else and `force` is not given, or can't be a speaker.
        MachineLacks: `out` can't be written.
    """
    from talkgs_cli.media.probe import probe
    from talkgs_cli.networks.audio_encoder import require_encoder
    from talkgs_cli.stages.flame import head_for, head_name
    from talkgs_cli.stages.prepare_assess import assess
    from talkgs_cli.stages.prepare_look import quarter_turns
    from talkgs_cli.stages.prepare_report import write_report
    from talkgs_cli.stages.prepare_second_opinion import second_opinion
    from talkgs_cli.stages.prepare_timeline import measure_timeline

    started = time.monotonic()
    out = Path(out)
    info = probe(video)
    refuse_too_short(video, info.duration_s)
    require_encoder(config.encoder)
    request = Request(file_sha256(video), replace(config, head=head_name(config.head)))
    previous = finished_speaker(out, force=force)
    if previous is not None and (not force or just_published(out, request)):
        return stored_answer(previous, request)
    require_place(out)
    request = keep_consent(keep_consent(request, previous), finished_work(out))
    head = head_for(config.head, progress)
    with one_thread():
        turns = quarter_turns(video, info)
    if turns % 2:
        info = replace(info, size=info.size[::-1])

    with one_thread(), work_folder(out, request, progress) as work:
        speaker = SpeakerFolder.create(work, {"video_sha256": request.video_sha256})
        rate, size = stored_rate(info, config), stored_size(info, config)
        if said := what_is_reduced(info, rate, size):
            progress.note(said)
        _copy_video(video, info, speaker, rate, size, turns, progress)
        observations = _track(video, speaker, rate, progress)
        sound = _extract_sound(video, info, speaker, observations, rate, config, progress)
        with Beside() as beside:
            # Neither needs the crops: they run while those are made.
            fitted = beside.submit(_fit_head, head, speaker, observations, size, rate, beside)
            encoded = beside.submit(_encode_sound, speaker, sound, config.encoder, beside)
            crop, sharpness = _crop_and_label(speaker, observations, size, config, progress)
            with progress.stage("Fitting the head", None):
                landmark_track = fitted.result()
            tracking = _align(head, speaker, landmark_track, crop, config, progress)
            seen, used = int(observations.valid.sum()), int(tracking.valid.sum())
            refuse_too_little_face(video, used, len(tracking), float(rate), seen - used)
            encoded.result()

    speaker.manifest |= {
        "frame_rate": str(rate),
        "frames": len(tracking),
        "size": list(size),
        "crop": crop_to_json(crop),
        "has_audio": sound is not None,
    }
    with one_thread():
        timeline = measure_timeline(
            head, tracking, observations, sharpness, sound.energy if sound else None, rate
        )
        result = assess(
            head,
            tracking,
            observations,
            sound,
            timeline,
            fix_offset=config.fix_offset,
            picture_turned_deg=90 * turns,
            fan=second_opinion(speaker, head, tracking, progress),
        )
        result |= {
            "speaker": str(out),
            "report": str(out / speaker.report.name),
            "frames": len(tracking),
            "frame_rate": str(rate),
            "head": config.head.partition(":")[0],
            "consent": request.config.consent,
            "encoder": config.encoder if sound else None,
        }
        write_report(video.name, speaker, head, tracking, timeline, result, progress)
    result |= {
        "seconds_per_video_second": round((time.monotonic() - started) / info.duration_s, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    speaker.save_splits()
    speaker.finish_stage("prepare", {"config": to_json(request.config), "result": result})
    kept = publish(work, out)
    if kept is not None:
        progress.note(f"The speaker that was at {out} is now at {kept}.")
    return result


# -- what is stored --------------------------------------------------------------------------------


def _copy_video(
    video: Path,
    info: VideoInfo,
    speaker: SpeakerFolder,
    rate: Fraction,
    size: tuple[int, int],
    quarter_turns: int,
    progress: Progress,
) -> None:
    """media/video.mp4: what all later stages see, at a constant rate."""
    from talkgs_cli.media.video import transcode

    if speaker.video.is_file():
        progress.note("Continuing an interrupted preparation.")
        return
    expected = round(info.duration_s * rate)
    with progress.stage("Reading the video", expected) as advance:
        transcode(
            video,
            speaker.video,
            size,
            rate,
            NEAR_LOSSLESS_CRF,
            advance=advance,
            quarter_turns=quarter_turns,
        )


def _track(video: Path, speaker: SpeakerFolder, rate: Fraction, progress: Progress) -> Observations:
    """Landmarks of every frame."""
    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.probe import probe
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.stages.prepare_tracking import Observations, observe
    from talkgs_cli.tracking.landmarks import FaceLandmarker

    file = speaker.path / OBSERVATIONS
    if file.is_file():
        return Observations.load(file)
    landmarker = FaceLandmarker(fetch_file("face_landmarker"))
    expected = round(probe(speaker.video).duration_s * rate)
    with progress.stage("Tracking the face", expected) as advance:
        found = observe(read_frames(speaker.video), landmarker, file, advance)
    valid_frames = int(found.valid.sum())
    refuse_without_face(video, valid_frames, len(found.valid))
    refuse_too_little_face(video, valid_frames, len(found.valid), float(rate))
    return found


def _extract_sound(
    video: Path,
    info: VideoInfo,
    speaker: SpeakerFolder,
    observations: Observations,
    rate: Fraction,
    config: PrepareConfig,
    progress: Progress,
) -> Sound | None:
    """media/audio.wav; None without a sound."""
    from talkgs_cli.stages.prepare_sound import extract_sound

    if not info.has_audio:
        return None
    sound = extract_sound(video, speaker, observations, rate, fix_offset=config.fix_offset)
    if sound is not None and sound.earlier_s:
        progress.note(f"Moving the sound by {-sound.earlier_s:+.2f} s, to meet the mouth.")
    return sound


def _crop_and_label(
    speaker: SpeakerFolder,
    observations: Observations,
    size: tuple[int, int],
    config: PrepareConfig,
    progress: Progress,
) -> tuple[Crop, NDArray[np.float32]]:
    """media/frames and media/labels; how sharp the face is in each."""
    from safetensors.numpy import load_file, save_file

    from talkgs_cli.assets import fetch_file
    from talkgs_cli.media.video import read_frames
    from talkgs_cli.stages.prepare_tracking import write_crops
    from talkgs_cli.tracking.crop import choose_crop
    from talkgs_cli.tracking.matting import PersonMatting

    crop = choose_crop(observations.landmarks, size, config.crop_size, observations.valid)
    finished = speaker.path / SHARPNESS
    if finished.is_file():
        return crop, load_file(finished)["sharpness"]
    matting = PersonMatting(fetch_file("selfie_segmenter"))
    with progress.stage("Cropping and labelling", len(observations.valid)) as advance:
        frames = read_frames(speaker.video)
        sharpness = write_crops(frames, observations.landmarks, crop, matting, speaker, advance)
    with atomic_path(finished) as partial:
        save_file({"sharpness": sharpness}, partial)
    return crop, sharpness


def _fit_head(
    head: HeadModel,
    speaker: SpeakerFolder,
    observations: Observations,
    size: tuple[int, int],
    rate: Fraction,
    beside: Beside,
) -> Tracking:
    """The track from landmarks alone, or the finished one where it is there."""
    from talkgs_cli.landmark_points import BLENDSHAPE_NAMES
    from talkgs_cli.tracking.head_fitting import fit_head

    landmark_track = speaker.path / LANDMARK_TRACK
    for file in (speaker.tracking_file, landmark_track):
        if file.is_file():
            return speaker.load_tracking(file)
    tracking = fit_head(
        head,
        observations.landmarks,
        observations.blendshapes,
        BLENDSHAPE_NAMES,
        observations.valid,
        size,
        float(rate),
        beside,
        cuts=observations.cuts(),
    )
    speaker.save_tracking(tracking, landmark_track)
    return tracking


def _align(
    head: HeadModel,
    speaker: SpeakerFolder,
    tracking: Tracking,
    crop: Crop,
    config: PrepareConfig,
    progress: Progress,
) -> Tracking:
    """tracking.safetensors."""
    from talkgs_cli.tracking.photometric import photometric_refinement

    if speaker.tracking_file.is_file():
        return tracking
    if config.photometric:
        tracking = photometric_refinement(
            head, tracking, crop, speaker.frame, speaker.label, progress
        )
    speaker.save_tracking(tracking)
    return tracking


def _encode_sound(speaker: SpeakerFolder, sound: Sound | None, name: str, beside: Beside) -> None:
    """media/audio_features.safetensors."""
    from talkgs_cli.media.audio import SoundStream
    from talkgs_cli.networks.audio_encoder import load_encoder, measure_loudness

    if sound is None or speaker.audio_features.is_file():
        return
    encoder = load_encoder(name)
    loudness = measure_loudness(beside.watched(SoundStream(speaker.audio)))
    features = encoder.encode_stream(beside.watched(SoundStream(speaker.audio)), loudness)
    speaker.save_audio_features(features, encoder.name)
