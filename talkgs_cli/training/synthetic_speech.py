"""Recordings of synthetic voices with the lips that rules give them, and of what isn't speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from talkgs_cli.networks.audio_encoder import SAMPLE_RATE_HZ, AudioEncoder, LogMelEncoder
from talkgs_cli.runtime import Progress
from talkgs_cli.training.corpus import Corpus, Recording
from talkgs_cli.training.sentences import sentences
from talkgs_cli.training.timbre import coloured_noise, music, transform
from talkgs_cli.training.visemes import PAUSE, Phone, lip_curves, speaking
from talkgs_cli.training.voices import (
    Request,
    Utterance,
    espeak,
    flite,
    nanotts,
    require_synthesisers,
)

Sound = NDArray[np.float32]

SENTENCES_A_RECORDING = 4
LOUD = 0.004  # samples below this at an utterance's ends are not speech
FLITE_VOICES = ("kal16", "awb", "rms", "slt")
# NanoTTS' voices with the espeak-ng voice that tells them when each phone is.
NANO_VOICES = {
    "en-US": "en-us",
    "en-GB": "en-gb",
    "de-DE": "de",
    "es-ES": "es",
    "fr-FR": "fr-fr",
    "it-IT": "it",
}
ESPEAK_VOICES = (
    "en-us",
    "en-us+f2",
    "en-us+f4",
    "en-us+m3",
    "en-us+m7",
    "en-gb+f3",
    "en-gb-scotland+m5",
    "de",
    "de+f2",
    "es+m3",
    "fr-fr+f4",
    "it+f5",
)
FLITE_SHARE, NANO_SHARE = 0.5, 0.25  # of the recordings; the rest is espeak-ng's
# Louder syllables open wider: log of the factor for one standard deviation of loudness, over 80 ms.
STRESS = 0.25
STRESS_SMOOTHING = 4
NOT_SPEECH_SHARE = 0.12  # recordings of noise and music beside the speech


@dataclass
class _Draft:
    voice: str
    samples: Sound
    phones: list[Phone]


def drawn_with(recordings: int, encoder: str, seed: int) -> str:
    """What decides a corpus, in words."""
    return f"{recordings} recordings, {encoder}, seed {seed}, lips at the middle of their sound"


def synthetic_corpus(
    recordings: int, encoder: AudioEncoder, progress: Progress, seed: int = 0
) -> Corpus:
    """Speak, transform, encode.

    Args:
        recordings: How many of about 15 s.
        encoder: Of the features.
        progress: Told of the work.
        seed: Of texts, voices and everything else drawn.

    Raises:
        MachineLacks: flite or espeak-ng is missing.
    """
    require_synthesisers()
    corpus = Corpus(encoder.name, made_with=drawn_with(recordings, encoder.name, seed))
    silent = round(NOT_SPEECH_SHARE * recordings)
    with progress.stage("Making speech", recordings + silent) as advance:
        for index, draft in enumerate(_drafts(recordings, encoder, seed)):
            rng = np.random.default_rng((seed, 1, index))
            corpus.recordings.append(_encoded(draft, encoder, rng))
            advance(1)
        for index in range(silent):
            rng = np.random.default_rng((seed, 2, index))
            corpus.recordings.append(_not_speech(index, encoder, rng))
            advance(1)
    return corpus


def _drafts(recordings: int, encoder: AudioEncoder, seed: int) -> Iterator[_Draft]:
    flite_count, nano_count = round(FLITE_SHARE * recordings), round(NANO_SHARE * recordings)
    rng = np.random.default_rng((seed, 0))
    for index in range(recordings):
        say: Callable[[Sequence[Request]], list[Utterance]]
        if index < flite_count:
            voice = FLITE_VOICES[index % len(FLITE_VOICES)]
            language, say = "en", flite
        elif index < flite_count + nano_count:
            voice = list(NANO_VOICES)[index % len(NANO_VOICES)]
            language, say = voice[:2], _nano_speaker(encoder)
        else:
            voice = ESPEAK_VOICES[index % len(ESPEAK_VOICES)]
            language, say = voice[:2], espeak
        requests = [
            Request(voice, text, float(rng.uniform(0.85, 1.2)), float(rng.uniform(0.85, 1.2)))
            for text in sentences(language, SENTENCES_A_RECORDING, rng)
        ]
        yield _joined(voice, say(requests), rng)


def _nano_speaker(encoder: AudioEncoder) -> Callable[[Sequence[Request]], list[Utterance]]:
    def say(requests: Sequence[Request]) -> list[Utterance]:
        guides = espeak([Request(NANO_VOICES[r.voice], r.text, r.speed, r.pitch) for r in requests])
        return nanotts(requests, [_trimmed(guide) for guide in guides], encoder)

    return say


def _joined(voice: str, utterances: list[Utterance], rng: np.random.Generator) -> _Draft:
    """Sentences with pauses of silence or faint noise around them."""
    sounds: list[Sound] = []
    phones: list[Phone] = []
    at = 0.0

    def pause(length_s: float) -> None:
        nonlocal at
        count = round(length_s * SAMPLE_RATE_HZ)
        sounds.append(np.zeros(count, np.float32))
        phones.append(Phone(PAUSE, at, at + length_s))
        at += count / SAMPLE_RATE_HZ

    pause(float(rng.uniform(0.1, 0.8)))
    for utterance in map(_trimmed, utterances):
        sounds.append(utterance.samples)
        phones += [Phone(p.name, at + p.start_s, at + p.end_s) for p in utterance.phones]
        at += len(utterance.samples) / SAMPLE_RATE_HZ
        pause(float(rng.choice([rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.6)])))
    samples = np.concatenate(sounds)
    hiss = 10 ** (rng.uniform(-80, -50) / 20)
    return _Draft(
        voice, samples + np.float32(hiss) * coloured_noise(len(samples), 1.0, rng), phones
    )


def _trimmed(utterance: Utterance) -> Utterance:
    """Without the silence at both ends, whose length depends on the synthesiser."""
    loud = np.flatnonzero(np.abs(utterance.samples) > LOUD)
    if not len(loud):
        return utterance
    first, last = int(loud[0]), int(loud[-1]) + 1
    start_s, stop_s = first / SAMPLE_RATE_HZ, last / SAMPLE_RATE_HZ
    kept = [
        Phone(p.name, max(p.start_s, start_s) - start_s, min(p.end_s, stop_s) - start_s)
        for p in utterance.phones
        if p.end_s > start_s and p.start_s < stop_s
    ]
    while kept and kept[0].name == PAUSE:
        kept.pop(0)
    while kept and kept[-1].name == PAUSE:
        kept.pop()
    return Utterance(utterance.samples[first:last], kept)


def _encoded(draft: _Draft, encoder: AudioEncoder, rng: np.random.Generator) -> Recording:
    features = encoder.encode(draft.samples)
    shifted = encoder.encode(transform(draft.samples, rng))
    times_s = np.arange(len(features)) / encoder.rate_hz
    active = speaking(draft.phones, times_s)
    curves = _stressed(lip_curves(draft.phones, times_s), active, draft.samples)
    return Recording(draft.voice, features, shifted, curves, active)


def _stressed(curves: Sound, active: Sound, samples: Sound) -> Sound:
    """Open wider where the voice is raised, and less where it is dropped."""
    speech = active > 0.5
    if not speech.any():
        return curves
    level = gaussian_filter1d(LogMelEncoder().encode(samples).mean(1), STRESS_SMOOTHING)
    raised = (level - level[speech].mean()) / (level[speech].std() + 1e-6)
    factor = np.where(curves[:, 0] > 0.1, np.exp(STRESS * np.clip(raised, -2, 2)), 1.0)
    return np.asarray(curves * np.stack([factor, np.ones_like(factor)], 1), np.float32)


def _not_speech(index: int, encoder: AudioEncoder, rng: np.random.Generator) -> Recording:
    """Twelve seconds of silence, noise, hum or music: the mouth rests."""
    count = 12 * SAMPLE_RATE_HZ
    kind = index % 4
    if kind == 0:
        sound = 10 ** (rng.uniform(-90, -25) / 20) * coloured_noise(
            count, float(rng.uniform(-0.5, 2.5)), rng
        )
    elif kind == 1:
        hertz = float(rng.choice([50, 60, 100, 120, 440]))
        hum = np.sin(2 * np.pi * hertz * np.arange(count) / SAMPLE_RATE_HZ)
        sound = 10 ** (rng.uniform(-60, -20) / 20) * hum
        sound = sound + 1e-4 * coloured_noise(count, 1.0, rng)
    else:
        sound = music(12.0, rng)
    features = encoder.encode(np.asarray(sound, np.float32))
    nothing = np.zeros((len(features), 2), np.float32)
    return Recording("not speech", features, features, nothing, nothing[:, 0])
