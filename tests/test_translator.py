from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from talkgs_cli.config import TranslatorConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.audio_encoder import LogMelEncoder
from talkgs_cli.networks.motion_translator import MotionTranslator
from talkgs_cli.networks.smoothing import smooth
from talkgs_cli.networks.timing import frame_times_s, sample_at
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.training.translator import train_translator
from talkgs_cli.training.translator_data import LipCode, closed_mouth, silence_features

QUICK = TranslatorConfig(encoder="log-mel", iterations=80, networks=1, components=24, width=32)
OPENING_PAIR = (0, 1)


def syllables(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise bursts of changing loudness and colour, 16 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    knots = np.arange(0, seconds + 1, 0.15)
    loud = np.interp(time, knots, np.maximum(rng.random(len(knots)) - 0.2, 0))
    noise = rng.standard_normal(len(time))
    return (0.2 * loud * noise + 1e-5 * noise).astype(np.float32)


def envelope(samples: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """RMS of 60 ms around each time, straight from the waveform."""
    power = np.convolve(samples**2, np.ones(960) / 960, "same")
    index = np.clip((times_s * 16_000).astype(int), 0, len(samples) - 1)
    return np.sqrt(power[index])


def lawful_speaker(seconds: float, rate: Fraction, lead_s: float = 0.0, seed: int = 0):
    """Sound, and a 4-number mouth that opens as the loudness has it `lead_s` later."""
    samples = syllables(seconds, seed)
    times_s = frame_times_s(int(seconds * rate), rate)
    loud = envelope(samples, times_s + lead_s) / 0.1
    mouth = np.stack([loud, 0.5 * loud, 0.1 * np.sin(times_s), np.zeros_like(loud)], axis=1)
    basis = np.zeros((4, 6, 3), np.float32)
    basis[0, 0, 1], basis[0, 1, 1] = 0.002, -0.008  # lips part
    basis[1, 2:4, 0] = 0.003  # corners move
    basis[2, 4:, 2] = 0.001
    return samples, mouth.astype(np.float32), basis


def taught(seconds: float, rate: Fraction, unseen_from: float = 1.0, **law) -> tuple:
    samples, mouth, basis = lawful_speaker(seconds, rate, **law)
    encoder = LogMelEncoder()
    valid = np.arange(len(mouth)) < unseen_from * len(mouth)
    translator = train_translator(
        encoder.encode(samples),
        mouth,
        basis,
        OPENING_PAIR,
        valid,
        rate,
        QUICK,
        SilentProgress(),
        silence=silence_features(encoder, samples),
    )
    return translator, samples, mouth, basis


@pytest.fixture(scope="module")
def speaker() -> tuple:
    return taught(24.0, Fraction(25), unseen_from=0.8, lead_s=0.06)


def test_a_lawful_mouth_is_recovered_on_sound_never_heard(speaker: tuple) -> None:
    translator, samples, mouth, _ = speaker
    guess = translator.predict(LogMelEncoder().encode(samples), len(mouth), Fraction(25)).numpy()
    unseen = slice(int(0.82 * len(mouth)), None)
    assert np.corrcoef(guess[unseen, 0], mouth[unseen, 0])[0, 1] > 0.9
    assert 0.7 < guess[unseen, 0].std() / mouth[unseen, 0].std() < 1.2


def test_the_rehearsal_reports_what_the_model_is_worth(speaker: tuple) -> None:
    figures = speaker[0].about.figures
    assert figures["opening_r"] > 0.9
    assert figures["opening_error_m"] < 0.5 * figures["opening_error_mean_m"]


def test_another_recording_drives_the_same_law(speaker: tuple) -> None:
    translator = speaker[0]
    samples, mouth, _ = lawful_speaker(8.0, Fraction(25), lead_s=0.06, seed=5)
    guess = translator.predict(LogMelEncoder().encode(samples), len(mouth), Fraction(25)).numpy()
    assert np.corrcoef(guess[:, 0], mouth[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("lead_s", [0.0, 0.14])
def test_the_lag_between_sound_and_mouth_is_found(lead_s: float) -> None:
    translator, *_ = taught(12.0, Fraction(30000, 1001), lead_s=lead_s)
    assert translator.about.lag_s == pytest.approx(lead_s, abs=0.031)


def test_a_clip_with_late_sound_does_not_pass_that_on() -> None:
    translator, samples, mouth, _ = taught(12.0, Fraction(25), lead_s=0.2)
    features = LogMelEncoder().encode(samples)
    assert translator.clip_offset_s > 0.1
    kept = translator.predict(features, len(mouth), Fraction(25), clip_timing=True).numpy()[:, 0]
    mended = translator.predict(features, len(mouth), Fraction(25)).numpy()[:, 0]
    shifts = range(-6, 7)
    r = [np.corrcoef(np.roll(kept, k)[10:-10], mended[10:-10])[0, 1] for k in shifts]
    assert abs(shifts[int(np.argmax(r))] - translator.clip_offset_s * 25) <= 1


def test_silence_shuts_the_mouth(speaker: tuple) -> None:
    translator, _, mouth, basis = speaker
    opening = (basis[:, 0, 1] - basis[:, 1, 1]).astype(np.float32)
    real = mouth @ opening
    for level in (0.0, 1e-4):
        noise = np.random.default_rng(9).standard_normal(48_000).astype(np.float32) * level
        still = translator.predict(LogMelEncoder().encode(noise), 75, Fraction(25)).numpy()
        rest = float(translator.rest.numpy() @ opening)
        assert np.abs(still @ opening - rest).max() < 0.25 * (np.quantile(real, 0.95) - rest)


def test_other_frame_rates_read_the_same_curve(speaker: tuple) -> None:
    translator, samples, *_ = speaker
    features = LogMelEncoder().encode(samples)
    slow = translator.predict(features, 500, Fraction(25)).numpy()
    rate = Fraction(30000, 1001)
    fast = translator.predict(features, 599, rate).numpy()
    again = np.array(
        [np.interp(frame_times_s(500, Fraction(25)), frame_times_s(599, rate), fast[:, 0])]
    )
    assert np.corrcoef(slow[:, 0], again[0])[0, 1] > 0.97


def test_long_sound_is_the_same_in_one_piece_or_several(
    speaker: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator, samples, *_ = speaker
    features = LogMelEncoder().encode(samples)
    whole = translator.predict(features, 600, Fraction(25))
    monkeypatch.setattr("talkgs_cli.networks.motion_translator.PIECE", 130)
    pieces = translator.predict(features, 600, Fraction(25))
    torch.testing.assert_close(whole, pieces, atol=1e-4, rtol=1e-4)


def test_the_mouth_never_opens_further_than_the_speaker_did(speaker: tuple) -> None:
    translator, samples, *_ = speaker
    features = LogMelEncoder().encode(samples)
    wild = translator.predict(features * 5, 600, Fraction(25)) @ translator.opening
    low, high = translator.opening_range.tolist()
    assert low - 1e-6 <= float(wild.min())
    assert float(wild.max()) <= high + 1e-6


def test_same_seed_same_translator_and_another_seed_another() -> None:
    one, samples, mouth, basis = taught(5.0, Fraction(25))
    two, *_ = taught(5.0, Fraction(25))
    torch.manual_seed(99)
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other = train_translator(
        LogMelEncoder().encode(samples),
        mouth,
        basis,
        OPENING_PAIR,
        np.ones(len(mouth), bool),
        Fraction(25),
        replace(QUICK, seed=1),
        SilentProgress(),
    )
    assert not torch.equal(one.networks[0].enter.weight, other.networks[0].enter.weight)


def test_save_and_load_give_the_same_mouth(speaker: tuple, tmp_path: Path) -> None:
    translator, samples, *_ = speaker
    features = LogMelEncoder().encode(samples)
    translator.save(tmp_path / "translator.safetensors")
    loaded = MotionTranslator.load(tmp_path / "translator.safetensors", encoder="log-mel")
    assert loaded.about == translator.about
    assert torch.equal(
        loaded.predict(features, 100, Fraction(30)), translator.predict(features, 100, Fraction(30))
    )


def test_features_of_another_encoder_are_refused(speaker: tuple, tmp_path: Path) -> None:
    speaker[0].save(tmp_path / "translator.safetensors")
    with pytest.raises(BadInput, match=r"log-mel.*not on whisper-tiny\.en"):
        MotionTranslator.load(tmp_path / "translator.safetensors", encoder="whisper-tiny.en")
    with pytest.raises(BadInput, match="shape"):
        speaker[0].predict(np.zeros((50, 464), np.float32), 25, Fraction(25))


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no translator"):
        MotionTranslator.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(BadInput, match="can't be read"):
        MotionTranslator.load(tmp_path / "bad.safetensors")


def test_material_that_teaches_nothing_is_refused() -> None:
    samples, mouth, basis = lawful_speaker(4.0, Fraction(25))
    features = LogMelEncoder().encode(samples)

    def teach(mouth: np.ndarray, valid: np.ndarray) -> None:
        train_translator(
            features, mouth, basis, OPENING_PAIR, valid, Fraction(25), QUICK, SilentProgress()
        )

    with pytest.raises(BadInput, match="Only 10 frames"):
        teach(mouth, np.arange(len(mouth)) < 10)
    with pytest.raises(BadInput, match="never moves"):
        teach(np.zeros_like(mouth), np.ones(len(mouth), bool))
    with pytest.raises(UsageError, match="linear_share"):
        TranslatorConfig(linear_share=2.0)


def test_invalid_frames_teach_nothing() -> None:
    samples, mouth, basis = lawful_speaker(5.0, Fraction(25))
    valid = np.ones(len(mouth), bool)
    valid[40:60] = False
    spoiled = mouth.copy()
    spoiled[40:60] = 50.0
    features = LogMelEncoder().encode(samples)
    one, two = (
        train_translator(
            features, given, basis, OPENING_PAIR, valid, Fraction(25), QUICK, SilentProgress()
        )
        for given in (mouth, spoiled)
    )
    torch.testing.assert_close(
        one.predict(features, 125, Fraction(25)), two.predict(features, 125, Fraction(25))
    )


def test_lip_codes_give_the_mouth_back() -> None:
    _, mouth, basis = lawful_speaker(6.0, Fraction(25))
    rng = np.random.default_rng(0)
    mouth = mouth + 0.05 * rng.standard_normal(mouth.shape).astype(np.float32)
    code = LipCode.fit(mouth, basis, 0.01)
    np.testing.assert_allclose(
        code.encode(mouth) @ code.decoder + code.mean, mouth, atol=1e-3 * np.abs(mouth).max()
    )


def test_rest_is_closed_but_not_pressed() -> None:
    amount = np.linspace(-1, 9, 1000, dtype=np.float32)
    rest = closed_mouth(np.stack([amount, amount], 1), np.array([1.0, 0.0], np.float32))
    assert -0.7 < rest[0] < 0.5


def test_smoothing_keeps_a_constant_and_halves_nothing_slow() -> None:
    assert torch.allclose(smooth(torch.full((9, 2), 3.0), 0.02), torch.full((9, 2), 3.0))
    wave = torch.sin(2 * torch.pi * 2 * torch.arange(200) / 50)[:, None]
    assert smooth(wave, 0.02).abs().max() > 0.95


def test_features_are_read_where_the_frames_are() -> None:
    ramp = np.arange(100, dtype=np.float32)[:, None]
    np.testing.assert_allclose(
        sample_at(ramp, frame_times_s(3, Fraction(25)))[:, 0], [1, 3, 5], atol=1e-5
    )
