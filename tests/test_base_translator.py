from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from test_translator import OPENING_PAIR, QUICK, envelope, lawful_speaker, syllables

from talkgs_cli.assets.translators import read_release
from talkgs_cli.config import BaseConfig
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.audio_encoder import LogMelEncoder
from talkgs_cli.networks.base_translator import BaseTranslator
from talkgs_cli.networks.motion_translator import NATURAL_LEAD_S, MotionTranslator
from talkgs_cli.networks.mouth_networks import build_network, run_in_pieces
from talkgs_cli.networks.timing import frame_times_s
from talkgs_cli.runtime import SilentProgress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.train_translator import train_translator_base
from talkgs_cli.training.adaptation import interpolated
from talkgs_cli.training.base import measure_base, train_base
from talkgs_cli.training.corpus import Corpus, Recording
from talkgs_cli.training.synthetic_speech import drawn_with
from talkgs_cli.training.translator import train_translator
from talkgs_cli.training.translator_lag import lag_by_heard_opening_s

TOY = BaseConfig(
    encoder="log-mel",
    components=24,
    width=32,
    iterations=120,
    batch=6,
    window_samples=100,
    hold_out=("last",),
)
CORNERS = (2, 3)


def recording(seed: int, voice: str) -> Recording:
    """Noise bursts whose loudness opens the mouth, then a pause."""
    sound = np.concatenate([syllables(6.0, seed), np.zeros(24_000, np.float32)])
    features = LogMelEncoder().encode(sound)
    loud = envelope(sound, np.arange(len(features)) / 50) / 0.1
    active = (np.arange(len(features)) < 300).astype(np.float32)
    curves = np.stack([0.5 * loud, -0.3 * loud], 1).astype(np.float32)
    return Recording(voice, features, features, curves, active)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    voices = ["a", "b", "c", "d", "e", "last"]
    return Corpus("log-mel", [recording(10 + k, voice) for k, voice in enumerate(voices)])


@pytest.fixture(scope="module")
def base(corpus: Corpus) -> BaseTranslator:
    return train_base(corpus, TOY, SilentProgress(), hold_out=TOY.hold_out)


def adapted(
    base: BaseTranslator | None, seconds: float, *, heard: bool = True, lead_s: float = 0.0
) -> MotionTranslator:
    samples, mouth, basis = lawful_speaker(seconds, Fraction(25), lead_s, seed=3)
    return train_translator(
        LogMelEncoder().encode(samples) if heard else None,
        mouth,
        basis,
        OPENING_PAIR,
        np.ones(len(mouth), bool),
        Fraction(25),
        replace(QUICK, networks=2),
        SilentProgress(),
        base=base,
        corner_pair=CORNERS,
    )


@pytest.fixture(scope="module")
def speaker(base: BaseTranslator) -> MotionTranslator:
    return adapted(base, 8.0)


def follows(translator: MotionTranslator) -> float:
    """Correlation with the true mouth on a recording nobody learnt from."""
    samples, mouth, _ = lawful_speaker(8.0, Fraction(25), seed=21)
    guess = translator.predict(LogMelEncoder().encode(samples), len(mouth), Fraction(25)).numpy()
    return float(np.corrcoef(guess[:, 0], mouth[:, 0])[0, 1])


def test_a_base_knows_voices_it_never_heard(base: BaseTranslator, corpus: Corpus) -> None:
    figures = measure_base(base, corpus.recordings[-1:])
    assert figures["opening_r"] > 0.85
    assert figures["active_accuracy"] > 0.9


def test_a_silent_clip_speaks_with_its_own_lips(base: BaseTranslator) -> None:
    translator = adapted(base, 6.0, heard=False)
    assert follows(translator) > 0.8
    low, high = translator.opening_range.tolist()
    samples, mouth, _ = lawful_speaker(8.0, Fraction(25), seed=21)
    guess = translator.predict(LogMelEncoder().encode(samples), len(mouth), Fraction(25))
    opening = guess @ translator.opening
    assert low - 1e-6 <= float(opening.min())
    assert float(opening.max()) <= high + 1e-6


def test_a_second_of_the_speaker_is_enough_with_a_base(base: BaseTranslator) -> None:
    translator = adapted(base, 1.2)
    assert follows(translator) > 0.85
    assert len(translator.networks) == 1  # what has no share is not learnt


@pytest.mark.parametrize("lead_s", [-0.06, 0.1])
def test_three_seconds_tell_the_lag_by_the_lips_that_a_base_hears(
    base: BaseTranslator, lead_s: float
) -> None:
    found = adapted(base, 3.0, lead_s=lead_s)
    assert found.about.lag_s == pytest.approx(lead_s, abs=0.021)


def test_what_a_base_does_not_hear_leaves_the_natural_lead() -> None:
    rng = np.random.default_rng(0)
    times_s = frame_times_s(75, Fraction(25))
    heard, opening = rng.standard_normal(150), rng.standard_normal(75)
    lag_s = lag_by_heard_opening_s(heard, times_s, opening, np.ones(75, bool))
    assert lag_s == pytest.approx(NATURAL_LEAD_S, abs=0.06)
    flat = lag_by_heard_opening_s(0 * heard, times_s, opening, np.ones(75, bool))
    assert flat == pytest.approx(NATURAL_LEAD_S, abs=0.011)


def test_a_silent_clip_leads_the_sound_as_mouths_do(base: BaseTranslator) -> None:
    assert adapted(base, 6.0, heard=False).about.lag_s == NATURAL_LEAD_S


def test_a_clip_without_sound_and_without_a_base_is_refused() -> None:
    with pytest.raises(BadInput, match="no sound"):
        adapted(None, 4.0, heard=False)


def test_a_stream_gives_the_frames_of_the_whole(speaker: MotionTranslator) -> None:
    features = torch.from_numpy(LogMelEncoder().encode(syllables(7.3, 8)))
    rate = Fraction(30000, 1001)
    count = int(len(features) / 50 * rate + Fraction(1, 2))
    whole = speaker.predict(features, count, rate)
    mean = speaker.base.voice_mean(features, speaker.feature_mean)
    chunks = torch.split(features, [1, 40, 7, 100, 3, len(features) - 151])
    streamed = torch.cat(list(speaker.stream(chunks, rate, voice_mean=mean)))
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=1e-4)


def test_a_stream_runs_no_further_behind_than_it_says(speaker: MotionTranslator) -> None:
    features = torch.from_numpy(LogMelEncoder().encode(syllables(6.0, 8)))
    made = 0
    for k, frames in enumerate(speaker.stream(torch.split(features, 10), Fraction(25))):
        made += len(frames)
        heard_s = min(10 * (k + 1), len(features)) / 50
        assert frame_times_s(made + 1, Fraction(25))[-1] > heard_s - speaker.look_ahead_s - 0.0401


def test_the_memory_of_a_stream_does_not_grow(speaker: MotionTranslator) -> None:
    from talkgs_cli.networks.mouth_stream import MouthStream

    state = MouthStream(speaker, Fraction(25), 1.0, None)
    chunk = torch.from_numpy(LogMelEncoder().encode(syllables(2.0, 8)))
    kept = []
    for _ in range(12):
        state.hear(chunk)
        kept.append(len(state.kept))
    assert max(kept[6:]) <= max(kept[:6])


def test_gain_opens_wider_but_not_beyond_the_speaker(speaker: MotionTranslator) -> None:
    features = LogMelEncoder().encode(syllables(6.0, 8))
    plain, wide, still = (
        speaker.predict(features, 150, Fraction(25), gain=gain) @ speaker.opening
        for gain in (1.0, 1.5, 0.0)
    )
    assert wide.std() > plain.std()
    assert float(wide.max()) <= float(speaker.opening_range[1]) + 1e-6
    assert float(still.std()) < 1e-6


def test_weights_between_base_and_tuned_are_a_line() -> None:
    start, tuned = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}
    assert interpolated(start, tuned, 0.25)["w"].tolist() == [0.25, 2.5]


def test_a_release_comes_back_as_it_was(base: BaseTranslator, tmp_path: Path) -> None:
    base.save(tmp_path / "release")
    again = BaseTranslator.load(tmp_path / "release")
    assert again.about == base.about
    components = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        again.curves(components), base.curves(components), atol=2e-2, rtol=2e-2
    )
    (tmp_path / "release" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadInput, match="can't be read"):
        BaseTranslator.load(tmp_path / "release")


def test_a_speaker_file_carries_its_base(speaker: MotionTranslator, tmp_path: Path) -> None:
    speaker.save(tmp_path / "translator.safetensors")
    assert follows(MotionTranslator.load(tmp_path / "translator.safetensors")) == pytest.approx(
        follows(speaker)
    )


@pytest.mark.parametrize("architecture", ["conv", "paper"])
def test_borders_of_pieces_are_invisible(architecture: str) -> None:
    torch.manual_seed(0)
    network = build_network(architecture, 12, 3, 16).eval()
    sound = torch.randn(260, 12)
    with torch.no_grad():
        whole = run_in_pieces(network, sound, network.reach, 1000)
        pieces = run_in_pieces(network, sound, network.reach, 90)
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=1e-4)


def test_the_papers_network_has_its_sizes_and_learns(corpus: Corpus) -> None:
    network = build_network("paper", 128, 3, 96)
    assert len(network.encoder.layers) == 4
    assert network.encoder.layers[0].linear1.out_features == 1024
    small = Corpus("log-mel", corpus.recordings[:2])
    config = replace(TOY, architecture="paper", iterations=12, batch=2, lr=3e-4)
    about = train_base(small, config, SilentProgress()).about
    assert about.architecture == "paper"
    with pytest.raises(UsageError, match="architecture"):
        replace(TOY, architecture="lstm")


def test_a_speaker_can_be_adapted_from_the_papers_network(corpus: Corpus) -> None:
    small = Corpus("log-mel", corpus.recordings[:2])
    config = replace(TOY, architecture="paper", iterations=4, batch=2, lr=3e-4)
    base = train_base(small, config, SilentProgress())
    samples, mouth, basis = lawful_speaker(3.0, Fraction(25))
    translator = train_translator(
        LogMelEncoder().encode(samples),
        mouth,
        basis,
        OPENING_PAIR,
        np.ones(len(mouth), bool),
        Fraction(25),
        replace(QUICK, iterations=4),
        SilentProgress(),
        base=base,
        corner_pair=CORNERS,
    )
    guess = translator.predict(LogMelEncoder().encode(samples), 75, Fraction(25))
    assert guess.isfinite().all()


def test_a_base_for_other_features_is_refused(base: BaseTranslator) -> None:
    samples, mouth, basis = lawful_speaker(3.0, Fraction(25))
    with pytest.raises(BadInput, match=r"log-mel features, not on whisper-tiny\.en"):
        train_translator(
            LogMelEncoder().encode(samples),
            mouth,
            basis,
            OPENING_PAIR,
            np.ones(len(mouth), bool),
            Fraction(25),
            replace(QUICK, encoder="whisper-tiny.en"),
            SilentProgress(),
            base=base,
            corner_pair=CORNERS,
        )


def test_a_corpus_comes_back_as_it_was(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path / "corpus.safetensors")
    again = Corpus.load(tmp_path / "corpus.safetensors")
    assert [item.voice for item in again.recordings] == [item.voice for item in corpus.recordings]
    np.testing.assert_allclose(
        again.recordings[2].curves, corpus.recordings[2].curves, atol=2e-3, rtol=2e-3
    )


def test_the_same_seed_trains_the_same_base(corpus: Corpus) -> None:
    config = replace(TOY, iterations=5)
    one, two = (train_base(corpus, config, SilentProgress()) for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


@pytest.mark.slow
def test_a_prepared_speaker_teaches_a_release(prepared_speaker: Path, tmp_path: Path) -> None:
    speaker = SpeakerFolder.open_(prepared_speaker)
    config = replace(TOY, iterations=3, hold_out=())
    answer = train_translator_base([speaker], tmp_path / "mine", config, SilentProgress())
    release = read_release(tmp_path / "mine", "mine")
    assert answer["recordings"] == 1
    assert BaseTranslator.load(release.folder).about.encoder == "log-mel"
    with pytest.raises(UsageError, match="nothing to train on"):
        train_translator_base([], tmp_path / "none", config, SilentProgress())


def test_speech_made_before_is_used_again(corpus: Corpus, tmp_path: Path) -> None:
    made = replace(corpus, made_with=drawn_with(6, "log-mel", seed=1))
    made.save(tmp_path / "mine-speech" / "part-1.safetensors")
    config = replace(TOY, iterations=3, recordings=(6,))
    train_translator_base([], tmp_path / "mine", config, SilentProgress(), synthetic=True)
    figures = BaseTranslator.load(tmp_path / "mine").about.figures
    assert set(figures) == {"opening_r", "width_r", "active_accuracy"}


def test_speech_made_with_other_settings_is_made_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.save(tmp_path / "mine-speech" / "part-1.safetensors")
    made: list[int] = []

    def draw(recordings: int, encoder: object, progress: object, seed: int) -> Corpus:
        made.append(recordings)
        return replace(corpus, made_with=drawn_with(recordings, "log-mel", seed))

    monkeypatch.setattr("talkgs_cli.stages.train_translator.synthetic_corpus", draw)
    config = replace(TOY, iterations=3, recordings=(6,))
    train_translator_base([], tmp_path / "mine", config, SilentProgress(), synthetic=True)
    again = {"synthetic": True, "force": True}
    train_translator_base([], tmp_path / "mine", config, SilentProgress(), **again)
    assert made == [6]


def test_a_translator_that_is_there_is_kept_unless_forced(
    base: BaseTranslator, tmp_path: Path
) -> None:
    base.save(tmp_path / "mine")
    with pytest.raises(UsageError, match="holds a translator already"):
        train_translator_base([], tmp_path / "mine", TOY, SilentProgress(), synthetic=True)


def test_a_voice_that_is_not_there_can_not_be_held_out(corpus: Corpus, tmp_path: Path) -> None:
    made = replace(corpus, made_with=drawn_with(6, "log-mel", seed=1))
    made.save(tmp_path / "mine-speech" / "part-1.safetensors")
    config = replace(TOY, recordings=(6,), hold_out=("lsat",))
    with pytest.raises(UsageError, match="no voice lsat"):
        train_translator_base([], tmp_path / "mine", config, SilentProgress(), synthetic=True)
