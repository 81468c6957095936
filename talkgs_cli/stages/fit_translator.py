"""The step of `fit` that trains the voice-to-mouth model on the clip's own sound."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import torch

from talkgs_cli.avatar import speaker_head
from talkgs_cli.config import TranslatorConfig
from talkgs_cli.frame_rows import first_rows
from talkgs_cli.heads.speaker_head import SpeakerHead
from talkgs_cli.landmark_points import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LIPS_INNER,
    LIPS_OUTER,
)
from talkgs_cli.media.audio import read_audio
from talkgs_cli.networks.audio_encoder import load_encoder
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.networks.timing import FEATURE_RATE_HZ
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.fit_folder import FitJob
from talkgs_cli.stages.translator_choice import load_base
from talkgs_cli.training.translator import train_translator
from talkgs_cli.training.translator_data import silence_features
from talkgs_cli.types import HeadMotion, Tracking, pack_mouth, unpack_mouth

LIP_POINTS = (*LIPS_OUTER, *LIPS_INNER)
OPENING = (LIP_POINTS.index(INNER_LIP_UPPER), LIP_POINTS.index(INNER_LIP_LOWER))
CORNERS = (0, 10)
"""Right and left corner among `LIP_POINTS`."""
# Pauses are made to follow excerpts of this much of the speaker's sound: an hour of it is as good.
OWN_VOICE_S = Fraction(120)
# A longer clip is listened to for so long, of frames that may be learnt from: more than that hardly
# teaches anything new, and what is learnt from lies in memory.
LESSON_S = 600


def fit_translator(job: FitJob, config: TranslatorConfig) -> dict[str, Any] | None:
    """Make the voice-to-mouth model from the clip's own sound and a base translator.

    Args:
        job: The fit.
        config: Settled settings.

    Returns:
        What the fit tells of it; None for a silent clip without a translator to start from.
    """
    speaker, tracking, progress = job.speaker, job.tracking, job.progress
    if speaker.translator.is_file():  # an interrupted fit got this far
        return _told(MotionTranslator.load(speaker.translator), config)
    base = load_base(config)
    if not speaker.has_audio and base is None:
        progress.note("The clip has no sound: this speaker can't be driven by audio yet.")
        return None
    heard = speaker.has_audio
    translator = translator_of(speaker, tracking, config, base, progress, heard=heard)
    translator.save(speaker.translator)
    return _told(translator, config)


def translator_of(
    speaker: SpeakerFolder,
    tracking: Tracking,
    config: TranslatorConfig,
    base: BaseTranslator | None,
    progress: Progress,
    *,
    heard: bool,
) -> MotionTranslator:
    """The voice-to-mouth model of a speaker.

    Args:
        speaker: Prepared.
        tracking: Its track.
        config: Settings.
        base: What to start from.
        progress: Told of the work.
        heard: Learn from the clip's sound; otherwise the base is taken as it is, with these lips.
    """
    head = speaker_head(tracking)
    mouth = pack_mouth(tracking.motion, head.head.mouth_expression, tracking.mouth_correctives)
    chosen = tracking.valid.clone()
    chosen[speaker.splits()[0].stop :] = False
    frames = lesson_frames(chosen, speaker.frame_rate)
    features, silence = None, []
    if heard:
        encoder = load_encoder(config.encoder)
        stored = speaker.load_audio_features()
        same = stored.encoder == encoder.name
        lesson_s = frames / speaker.frame_rate + 1  # a mouth may lag behind its sound
        if same:
            features = first_rows(stored.values, ceil(lesson_s * FEATURE_RATE_HZ))
        else:
            features = encoder.encode(read_audio(speaker.audio, duration_s=lesson_s))
        own_voice = read_audio(speaker.audio, duration_s=OWN_VOICE_S)
        silence = silence_features(encoder, own_voice)
    return train_translator(
        features,
        mouth[:frames],
        lip_basis(head, tracking.motion.at(chosen), tracking.mouth_correctives),
        OPENING,
        chosen[:frames],
        speaker.frame_rate,
        config,
        progress,
        silence=silence,
        base=base,
        corner_pair=CORNERS,
    )


def lesson_frames(usable: torch.Tensor, frame_rate: Fraction) -> int:
    """How many of a clip's frames to look at: up to the one that makes `LESSON_S` of usable ones.

    >>> lesson_frames(torch.ones(20_000, dtype=torch.bool), Fraction(25))
    15000
    """
    enough = torch.nonzero(usable.cumsum(0) >= round(LESSON_S * frame_rate))
    return int(enough[0]) + 1 if len(enough) else len(usable)


def _told(translator: MotionTranslator, config: TranslatorConfig) -> dict[str, Any]:
    about = translator.about
    return {"encoder": about.encoder, "base": config.translator, **about.figures}


def lip_basis(head: SpeakerHead, motion: HeadMotion, mouth_correctives: int) -> torch.Tensor:
    """[M, P, 3] metres that each number of the mouth vector moves each lip point, at the mean."""
    mouth = pack_mouth(motion, head.head.mouth_expression, mouth_correctives).mean(0)
    count = len(mouth)
    rest = motion.at(torch.zeros(count + 1, dtype=torch.long))
    nudged = mouth.repeat(count + 1, 1)
    nudge = 0.1  # of a unit: the jaw's arc is nearly straight over it
    nudged[1:] += nudge * torch.eye(count)
    moved = unpack_mouth(nudged, rest, head.head.mouth_expression, mouth_correctives)
    points = head.landmarks(moved.expression, moved.jaw, moved.corrective)  # [M + 1, L, 3]
    row = {int(index): k for k, index in enumerate(head.head.landmark_index)}
    lips = points[:, [row[index] for index in LIP_POINTS]]
    return (lips[1:] - lips[0]) / nudge
