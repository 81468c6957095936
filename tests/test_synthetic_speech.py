import shutil

import numpy as np
import pytest

from talkgs_cli.errors import MachineLacks
from talkgs_cli.networks.audio_encoder import LogMelEncoder
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.training import voices
from talkgs_cli.training.phone_names import from_espeak, from_flite
from talkgs_cli.training.sentences import WORDS, sentences
from talkgs_cli.training.synthetic_speech import synthetic_corpus
from talkgs_cli.training.timbre import add_noise, in_room, music, shift_voice
from talkgs_cli.training.visemes import PAUSE, VISEMES, Phone, lip_curves, speaking

TIMES_S = np.arange(0, 1.2, 0.02)


def word(*names: str, length_s: float = 0.12) -> list[Phone]:
    return [Phone(n, 0.3 + k * length_s, 0.3 + (k + 1) * length_s) for k, n in enumerate(names)]


def test_lips_close_between_vowels_for_a_bilabial() -> None:
    opening = lip_curves(word("AA", "M", "AA"), TIMES_S)[:, 0]
    middle = opening[(TIMES_S > 0.36) & (TIMES_S < 0.46)].min()
    assert middle < 0.05 < 0.4 < opening.max()


def test_lips_stand_at_the_middle_of_their_sound() -> None:
    opening = lip_curves(word("M", "AA", "M"), TIMES_S)[:, 0]
    opening[(TIMES_S < 0.25) | (TIMES_S > 0.6)] = 0
    assert TIMES_S[opening.argmax()] == pytest.approx(0.3 + 0.18, abs=0.03)


def test_rounding_spreads_into_the_neighbours() -> None:
    width = lip_curves(word("T", "UW", "T"), TIMES_S)[:, 1]
    plain = lip_curves(word("T", "IY", "T"), TIMES_S)[:, 1]
    assert width.min() < -0.4 < 0.3 < plain.max()
    assert width[TIMES_S.searchsorted(0.26)] < plain[TIMES_S.searchsorted(0.26)]


def test_only_long_pauses_are_silence() -> None:
    phones = [Phone("AA", 0, 0.3), Phone(PAUSE, 0.3, 0.45), Phone("AA", 0.45, 0.6)]
    assert speaking(phones, TIMES_S).all()
    phones = [Phone("AA", 0, 0.3), Phone(PAUSE, 0.3, 1.1), Phone("AA", 1.1, 1.2)]
    assert speaking(phones, TIMES_S)[TIMES_S.searchsorted(0.7)] == 0


def test_every_name_of_a_phone_is_known() -> None:
    assert from_flite("aa") == "AA"
    assert from_flite("pau") == PAUSE
    assert from_espeak("tS") == "CH"
    assert from_espeak("nonsense") in VISEMES


def test_sentences_repeat_with_the_seed_and_use_the_language() -> None:
    one, two = (sentences("de", 3, np.random.default_rng(4)) for _ in range(2))
    assert one == two
    known = {w.lower() for w in WORDS["de"].split()}
    assert all(w.strip(",.?").lower() in known for w in " ".join(one).split())


def vowel(hertz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    tone = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 20))
    return (0.1 * tone * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32)


def test_another_throat_keeps_the_times() -> None:
    sound = vowel(120)
    moved = shift_voice(sound, 4.0, 1.1)
    assert len(moved) == len(sound)
    loud = [np.convolve(s**2, np.ones(400) / 400, "same")[::160] for s in (sound, moved)]
    assert np.corrcoef(loud[0] > 1e-4, loud[1] > 1e-4)[0, 1] > 0.8
    spectrum = np.abs(np.fft.rfft(moved[:2400] * np.hanning(2400), 32_000))
    peak_hz = spectrum[100:600].argmax() / 2 + 50
    assert peak_hz % (120 * 2 ** (4 / 12)) == pytest.approx(0, abs=8) or peak_hz == pytest.approx(
        120 * 2 ** (4 / 12), rel=0.05
    )


def test_noise_has_the_ratio_asked_for_and_rooms_ring_on() -> None:
    rng = np.random.default_rng(0)
    sound = vowel(120)
    noise = add_noise(sound, 10.0, rng) - sound
    assert 10 * np.log10((sound**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.1)
    click = np.zeros(16_000, np.float32)
    click[100] = 1
    assert np.square(in_room(click, 0.4, 0.5, rng)[200:]).sum() == pytest.approx(0.5, rel=0.2)


def test_music_is_sound_of_the_length_asked_for() -> None:
    for seed in range(12):
        tune = music(2.0, np.random.default_rng(seed))
        assert len(tune) == 32_000
        assert 0.05 < tune.std() < 0.2


def test_missing_synthesisers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices.shutil, "which", lambda name: None)
    with pytest.raises(MachineLacks, match="flite"):
        voices.require_synthesisers()


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_says_when_its_phones_are() -> None:
    said = voices.flite([voices.Request("slt", "Mama.")])[0]
    names = [phone.name for phone in said.phones]
    assert names.count("M") == 2
    assert said.phones[-1].end_s == pytest.approx(len(said.samples) / 16_000, abs=0.1)


@pytest.mark.skipif(
    shutil.which("flite") is None or voices.ctypes.util.find_library("espeak-ng") is None,
    reason="flite and espeak-ng are not installed",
)
def test_a_corpus_has_speech_of_each_synthesiser_and_what_is_none() -> None:
    corpus = synthetic_corpus(8, LogMelEncoder(), SilentProgress())
    said = {item.voice for item in corpus.recordings}
    assert said & {"kal16", "awb", "rms", "slt"}
    assert said & {"en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT"}
    assert "not speech" in said
    for item in corpus.recordings:
        assert len(item.features) == len(item.shifted) == len(item.curves) == len(item.active)
        if item.voice != "not speech":
            level = item.features.mean(1)
            assert level[item.active > 0.5].mean() > level[item.active < 0.5].mean() + 0.1
