"""The same speech from another throat, microphone and room; nothing here moves a phone in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from talkgs_cli.networks.audio_encoder import SAMPLE_RATE_HZ

Sound = NDArray[np.float32]

FFT = 512
HOP = 128
# Cepstral coefficients that make up the envelope (formants) rather than the pitch's harmonics.
ENVELOPE_COEFFICIENTS = 28


def transform(samples: Sound, rng: np.random.Generator) -> Sound:
    """Pitch, formants, tone, room and noise, each drawn at random.

    Args:
        samples: [n] speech, 16 kHz.
        rng: Source of chance.

    Returns:
        [n].
    """
    semitones = float(rng.uniform(-4, 4))
    formants = float(np.exp(rng.uniform(-0.16, 0.16)))
    changed = shift_voice(samples, semitones, formants, tilt_db=float(rng.uniform(-9, 9)))
    if rng.random() < 0.5:
        changed = in_room(changed, float(rng.uniform(0.15, 0.6)), float(rng.uniform(0.1, 0.6)), rng)
    if rng.random() < 0.7:
        changed = add_noise(changed, float(rng.uniform(8, 35)), rng)
    return changed


def shift_voice(samples: Sound, semitones: float, formants: float, tilt_db: float = 0.0) -> Sound:
    """Move pitch and formants independently, and tilt the spectrum.

    Args:
        samples: [n].
        semitones: Of the pitch.
        formants: Factor on the formants' frequencies; above 1 is a shorter throat.
        tilt_db: Gain at 8 kHz against that at 0.
    """
    import librosa

    moved = librosa.effects.pitch_shift(samples, sr=SAMPLE_RATE_HZ, n_steps=semitones, n_fft=1024)
    # The pitch shift took the formants along: undo that and apply the wanted factor.
    factor = formants / 2 ** (semitones / 12)
    spectrum = librosa.stft(moved, n_fft=FFT, hop_length=HOP)
    log = np.log(np.abs(spectrum) + 1e-6)
    cepstrum = np.fft.irfft(log, axis=0)
    cepstrum[ENVELOPE_COEFFICIENTS : FFT - ENVELOPE_COEFFICIENTS + 1] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real  # [bins, frames]
    bins = np.arange(len(envelope))
    source = np.clip(bins / factor, 0, len(bins) - 1)
    low = np.minimum(source.astype(int), len(bins) - 2)
    share = (source - low)[:, None]
    warped = envelope[low] * (1 - share) + envelope[low + 1] * share
    tilt = tilt_db / 20 * np.log(10) * bins[:, None] / len(bins)
    gain = np.exp(np.clip(warped - envelope + tilt, -4, 4))
    changed = librosa.istft(spectrum * gain, hop_length=HOP, length=len(samples))
    return np.asarray(changed, np.float32)


def in_room(samples: Sound, decay_s: float, amount: float, rng: np.random.Generator) -> Sound:
    """Add a diffuse echo that falls by 60 dB in `decay_s`, with `amount` of the direct energy."""
    time_s = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail[: int(0.004 * SAMPLE_RATE_HZ)] = 0
    tail *= np.sqrt(amount / np.square(tail).sum())
    echo = fftconvolve(samples, tail)[: len(samples)]
    return np.asarray(samples + echo, np.float32)


def add_noise(samples: Sound, snr_db: float, rng: np.random.Generator) -> Sound:
    """Add coloured noise at a ratio of the speech's mean power to the noise's."""
    noise = coloured_noise(len(samples), float(rng.uniform(-0.5, 2.0)), rng)
    level = np.sqrt(np.square(samples).mean() / 10 ** (snr_db / 10))
    return np.asarray(samples + level * noise, np.float32)


def coloured_noise(count: int, slope: float, rng: np.random.Generator) -> Sound:
    """[count] noise of unit power whose power falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ), 40.0)
    noise = np.fft.irfft(spectrum * (hertz / 40.0) ** (-slope / 2), count)
    return np.asarray(noise / (noise.std() + 1e-9), np.float32)


def music(duration_s: float, rng: np.random.Generator) -> Sound:
    """Chords, a tune and a beat of synthetic instruments: what a mouth should not follow."""
    count = int(duration_s * SAMPLE_RATE_HZ)
    sound = np.zeros(count + SAMPLE_RATE_HZ)
    beat_s = float(rng.uniform(0.3, 0.7))
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) + int(rng.integers(40, 56))
    brightness = float(rng.uniform(0.6, 1.8))
    plucked = rng.random() < 0.5
    at = 0.0
    while at < duration_s:
        root = int(rng.integers(0, 6))
        notes = [(scale[root + step], beat_s * 4, 0.3) for step in (0, 2, 4)]
        for beat in range(4):
            tune = scale[int(rng.integers(0, len(scale)))] + 12
            _add(sound, at + beat * beat_s, _note(tune, beat_s, 0.4, brightness, plucked))
            if rng.random() < 0.8:
                burst = coloured_noise(2400, float(rng.choice([-0.5, 2.0])), rng)
                decay = np.exp(-np.arange(2400) / 500)
                _add(sound, at + beat * beat_s, 0.3 * burst * decay)
        for midi, length_s, level in notes:
            _add(sound, at, _note(midi, length_s, level, brightness, plucked))
        at += 4 * beat_s
    whole = sound[:count]
    return np.asarray(0.1 * whole / (whole.std() + 1e-9), np.float32)


def _note(
    midi: float, length_s: float, level: float, brightness: float, plucked: bool
) -> NDArray[np.float64]:
    time_s = np.arange(int(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    hertz = 440 * 2 ** ((midi - 69) / 12)
    tone = np.zeros(len(time_s))
    for harmonic in range(1, 13):
        if harmonic * hertz < 7000:
            vibrato = 0.003 * np.sin(2 * np.pi * 5 * time_s)
            phase = 2 * np.pi * harmonic * hertz * (time_s + vibrato / 5)
            tone += harmonic**-brightness * np.sin(phase)
    attack = np.minimum(time_s / 0.01, 1)
    fall = np.exp(-4 * time_s) if plucked else np.minimum((length_s - time_s) / 0.05, 1)
    return np.asarray(level * tone * attack * fall)


def _add(sound: NDArray[np.float64], at_s: float, part: NDArray[np.floating]) -> None:
    start = int(at_s * SAMPLE_RATE_HZ)
    length = max(0, min(len(part), len(sound) - start))
    sound[start : start + length] += part[:length]
