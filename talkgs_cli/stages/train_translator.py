"""`translator train`: a base translator from synthetic speech, prepared speakers, or both."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from talkgs_cli.config import BaseConfig, to_json
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.audio_encoder import load_encoder
from talkgs_cli.runtime import Progress, peak_rss_mb, require_writable, write_json
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.training.base import measure_base, train_base
from talkgs_cli.training.corpus import Corpus, Recording
from talkgs_cli.training.synthetic_speech import drawn_with, synthetic_corpus

# Rules keep to about this range of their 0..1 and -1..1 in running speech.
RULE_RANGE = ((0.0, 0.6), (-0.25, 0.25))


def train_translator_base(
    speakers: list[SpeakerFolder],
    out: Path,
    config: BaseConfig,
    progress: Progress,
    *,
    synthetic: bool = False,
    accelerator: Any = None,
    force: bool = False,
) -> dict[str, Any]:
    """Train and write a release folder; the synthetic speech beside it is kept and used again.

    Raises:
        UsageError: neither speakers nor synthetic speech, or a translator is in `out` already.
        BadInput: a speaker without sound.
        MachineLacks: the synthesisers are missing.
    """
    if not speakers and not synthetic:
        raise UsageError(
            "There is nothing to train on.", hint="Name prepared speakers, or add --synthetic."
        )
    if (out / "config.json").is_file() and not force:
        raise UsageError(
            f"{out} holds a translator already.",
            hint="Add --force to replace it, or name another folder with --out.",
        )
    require_writable(out)
    started = time.monotonic()
    main = accelerator is None or accelerator.is_main_process
    corpus = Corpus(config.encoder)
    if synthetic:
        corpus.recordings += _synthetic(out, config, progress, accelerator).recordings
    corpus.recordings += [_of_speaker(speaker, config) for speaker in speakers]
    if unknown := sorted(set(config.hold_out) - {item.voice for item in corpus.recordings}):
        voices = ", ".join(sorted({item.voice for item in corpus.recordings}))
        raise UsageError(
            f"There is no voice {', '.join(unknown)} to hold out.", hint=f"There are: {voices}."
        )
    base = train_base(corpus, config, progress, accelerator=accelerator, hold_out=config.hold_out)
    left_out = [item for item in corpus.recordings if item.voice in config.hold_out]
    figures = measure_base(base, left_out) if left_out else {}
    minutes = corpus.duration_s / 60
    kinds = [f"{len(speakers)} prepared speakers"] if speakers else []
    kinds += ["synthetic speech (flite, NanoTTS, espeak-ng)"] if synthetic else []
    base.about = replace(
        base.about, trained_on=f"{minutes:.0f} minutes: {', '.join(kinds)}", figures=figures
    )
    if main:
        base.save(out)
        write_json(out / "training.json", to_json(config))
        _seal(out)
    return {
        "translator": str(out),
        "minutes": round(minutes, 1),
        "recordings": len(corpus.recordings),
        "figures": figures,
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def _seal(out: Path) -> None:
    from talkgs_cli.assets.translators import seal

    seal(out)


def _synthetic(out: Path, config: BaseConfig, progress: Progress, accelerator: Any) -> Corpus:
    """The corpus, part by part, each made once; other processes wait for the first."""
    folder = out.parent / f"{out.name}-speech"
    files = [folder / f"part-{k + 1}.safetensors" for k in range(len(config.recordings))]
    if accelerator is None or accelerator.is_main_process:
        for index, (path, count) in enumerate(zip(files, config.recordings, strict=True)):
            seed = config.seed + index + 1
            wanted = drawn_with(count, config.encoder, seed)
            if path.is_file():
                if Corpus.origin(path) == wanted:
                    progress.note(f"Using the synthetic speech in {path}.")
                    continue
                progress.note(f"{path} was made with other settings; it is made again.")
            synthetic_corpus(count, load_encoder(config.encoder), progress, seed).save(path)
    if accelerator is not None:
        accelerator.wait_for_everyone()
    corpus = Corpus(config.encoder)
    for path in files:
        corpus.recordings += Corpus.load(path).recordings
    return corpus


def _of_speaker(speaker: SpeakerFolder, config: BaseConfig) -> Recording:
    """What a prepared clip's training part teaches: its lips, in the rules' units."""
    from talkgs_cli.avatar import speaker_head
    from talkgs_cli.media.audio import SAMPLE_RATE_HZ, read_audio
    from talkgs_cli.networks.timing import FEATURE_RATE_HZ, frame_times_s
    from talkgs_cli.stages.fit_translator import CORNERS, OPENING, lip_basis
    from talkgs_cli.training.timbre import transform
    from talkgs_cli.training.translator_data import (
        SoundSpace,
        opening_direction,
        width_direction,
    )
    from talkgs_cli.training.translator_lag import LAG_COMPONENTS, best_lag_s
    from talkgs_cli.types import pack_mouth

    if not speaker.has_audio:
        raise BadInput(f"{speaker.path} has no sound.", hint="Leave it out.")
    encoder = load_encoder(config.encoder)
    samples = read_audio(speaker.audio)
    tracking = speaker.load_tracking()
    train, _ = speaker.splits()
    samples = samples[: round(train.stop / speaker.frame_rate * SAMPLE_RATE_HZ)]
    features = encoder.encode(samples)
    head = speaker_head(tracking)
    mouth = pack_mouth(tracking.motion, head.head.mouth_expression, tracking.mouth_correctives)
    basis = lip_basis(head, tracking.motion, tracking.mouth_correctives).numpy()
    grid_s = np.arange(len(features)) / FEATURE_RATE_HZ
    usable = tracking.valid[: train.stop].numpy()
    seen = np.flatnonzero(usable)
    directions = (opening_direction(basis, OPENING), width_direction(basis, CORNERS))
    space = SoundSpace.fit(features, LAG_COMPONENTS)
    times_s = frame_times_s(train.stop, speaker.frame_rate)
    opening = mouth.numpy()[: train.stop] @ directions[0]
    # Lips beside their sound, as the rules have them: how early they were is this clip's own.
    heard_s = times_s[seen] + best_lag_s(space(features), times_s, opening, usable)
    curves = np.zeros((len(features), 2), np.float32)
    for column, direction in enumerate(directions):
        values = mouth.numpy()[seen] @ direction
        bottom, top = np.quantile(values, [0.05, 0.95])
        low, high = RULE_RANGE[column]
        share = (values - bottom) / max(float(top - bottom), 1e-9)
        curves[:, column] = np.interp(grid_s, heard_s, low + share * (high - low))
    shifted = encoder.encode(transform(samples, np.random.default_rng(config.seed)))
    return Recording(speaker.path.name, features, shifted, curves, _loud(samples, len(features)))


def _loud(samples: Any, count: int) -> Any:
    """[count] 1 where the sound is less than 30 dB below its own loud level, held for 0.2 s."""
    from scipy.ndimage import maximum_filter1d

    from talkgs_cli.networks.audio_encoder import SAMPLES_PER_FEATURE

    padded = np.pad(np.square(samples), (0, count * SAMPLES_PER_FEATURE))
    power = padded[: count * SAMPLES_PER_FEATURE].reshape(count, -1).mean(1)
    level_db = 10 * np.log10(power + 1e-10)
    loud = level_db > np.quantile(level_db, 0.95) - 30
    return maximum_filter1d(loud.astype(np.float32), 11)
