"""The demo's voice and what is read off it."""

from fractions import Fraction

import numpy as np
import pytest

from talkgs_cli.config import DemoConfig
from talkgs_cli.demo.articulation import articulate
from talkgs_cli.demo.speech import SAMPLE_RATE_HZ, SENTENCES, monologue, synthesize
from talkgs_cli.errors import MachineLacks, UsageError

RATE = Fraction(25)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return monologue(8.0, "en-US", seed=0)


def test_same_words_sound_the_same_every_time(sound):
    assert np.array_equal(sound, monologue(8.0, "en-US", seed=0))


def test_monologue_has_the_asked_length_and_rests_at_both_ends(sound):
    assert len(sound) == 8 * SAMPLE_RATE_HZ
    assert np.abs(sound[: SAMPLE_RATE_HZ // 2]).max() == 0
    assert np.abs(sound[-SAMPLE_RATE_HZ // 4 :]).max() == 0
    assert 0.2 < np.abs(sound).max() < 0.99, "the voice must be loud and must not clip"


def test_long_monologue_speaks_to_its_end():
    long = monologue(60.0, "en-US", seed=0)
    assert np.abs(long[-8 * SAMPLE_RATE_HZ :]).max() > 0.1


def test_unknown_voice_is_refused_by_name():
    with pytest.raises(MachineLacks, match="voice"):
        synthesize(["Hello."], "xx-YY")


def test_new_sentence_is_not_in_the_video():
    assert DemoConfig().new_sentence not in " ".join(SENTENCES)


@pytest.mark.parametrize(
    "wrong", [{"duration_s": 1.0}, {"size": 100}, {"preset": "no"}, {"new_sentence": " "}]
)
def test_impossible_demo_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        DemoConfig(**wrong)


def test_mouth_is_closed_in_silence_and_moves_in_speech(sound):
    mouth = articulate(sound, SAMPLE_RATE_HZ, RATE)
    assert len(mouth.opening) == 200
    assert mouth.opening[:12].max() < 0.02
    assert mouth.opening[-5:].max() < 0.02
    assert mouth.opening.max() > 0.7
    assert mouth.opening.std() > 0.15


def test_open_vowels_open_the_mouth_more_than_spread_ones():
    wide, narrow = synthesize(
        ["Ah, a car, a bar, a farm.", "She sees these three green trees."], "en-US"
    )
    together = articulate(np.concatenate([wide, narrow]), SAMPLE_RATE_HZ, RATE)
    border = round(len(wide) / SAMPLE_RATE_HZ * 25)
    assert together.opening[:border].mean() > 1.3 * together.opening[border:].mean()
    assert together.width[:border].mean() < together.width[border:].mean()


def test_hiss_keeps_the_jaw_nearly_shut():
    rng = np.random.default_rng(0)
    noise = np.diff(rng.normal(0, 0.1, SAMPLE_RATE_HZ + 1)).astype(np.float32)
    tone = np.zeros(SAMPLE_RATE_HZ, np.float32)
    for harmonic in range(1, 8):
        tone += 0.1 * np.sin(2 * np.pi * 150 * harmonic * np.arange(len(tone)) / SAMPLE_RATE_HZ)
    mouth = articulate(np.concatenate([noise, tone]), SAMPLE_RATE_HZ, RATE)
    assert mouth.hiss[5:20].min() > 0.8
    assert mouth.hiss[30:].max() < 0.1
    assert mouth.opening[5:20].max() < 0.25


def test_sound_later_by_a_second_gives_the_same_mouth_later(sound):
    mouth = articulate(sound, SAMPLE_RATE_HZ, RATE)
    late = np.concatenate([np.zeros(SAMPLE_RATE_HZ, np.float32), sound])
    moved = articulate(late, SAMPLE_RATE_HZ, RATE)
    assert np.abs(moved.opening[25 + 10 :] - mouth.opening[10:]).max() < 0.1
