from fractions import Fraction

import numpy as np
import pytest

from talkgs_cli import assets
from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.networks.audio_encoder import (
    ENCODERS,
    SAMPLE_RATE_HZ,
    AudioEncoder,
    LogMelEncoder,
    load_encoder,
    measure_loudness,
    normalise_loudness,
)
from talkgs_cli.networks.audio_windows import Loudness, WindowedEncoder
from talkgs_cli.networks.log_mel_encoder import log_mel, mel_filters
from talkgs_cli.networks.timing import frame_times_s, sample_at
from talkgs_cli.networks.whisper_encoder import WhisperEncoder


@pytest.fixture(scope="module")
def whisper() -> WhisperEncoder:
    if not assets.is_present("whisper_tiny_en"):
        pytest.skip("whisper_tiny_en is not in the cache: talkgs assets --pull")
    return WhisperEncoder(assets.fetch("whisper_tiny_en"), threads=1)


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """A buzz whose loudness and brightness change a few times a second, with pauses."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    knots = np.arange(0, seconds + 1, 0.12)
    loud = np.interp(time, knots, rng.random(len(knots)) * (rng.random(len(knots)) > 0.2))
    pitch = 2 * np.pi * np.cumsum(110 + 30 * np.sin(time * 2)) / SAMPLE_RATE_HZ
    buzz = sum(np.sin(pitch * k) * np.exp(-(((k - 4 - 20 * loud) / 6) ** 2)) for k in range(1, 30))
    noise = rng.standard_normal(len(time))
    return (0.05 * loud * (buzz + 0.3 * noise) + 1e-4 * noise).astype(np.float32)


def test_a_click_shows_at_its_own_time_in_the_spectrogram() -> None:
    for click_s in (0.5, 1.0, 7.98, 8.0, 9.3):
        samples = np.zeros(12 * SAMPLE_RATE_HZ, np.float32)
        samples[round(click_s * SAMPLE_RATE_HZ)] = 0.9
        loudness = LogMelEncoder().encode(samples).mean(1)
        assert abs(loudness.argmax() / 50 - click_s) <= 0.0101


def test_a_click_moves_the_whisper_states_at_its_own_time(whisper: WhisperEncoder) -> None:
    sound = speechlike(12.0)
    plain = whisper.encode(sound)[:, : whisper.dim - 80]
    for click_s in (2.5, 6.0, 8.1):
        clicked = sound.copy()
        clicked[round(click_s * SAMPLE_RATE_HZ)] += 0.5
        moved = whisper.encode(clicked)[:, : whisper.dim - 80] - plain
        power = (moved**2 / plain.var(0)).mean(1)
        assert abs(power.argmax() / 50 - click_s) <= 0.0401


@pytest.mark.parametrize("count", [1, 100, 319, 320, 321, 16_000, 8 * 16_000, 100_001])
def test_one_feature_for_every_20_ms_begun(count: int) -> None:
    features = LogMelEncoder().encode(np.ones(count, np.float32) * 0.1)
    assert features.shape == (-(-count // 320), 80)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("count", [1, 500, 16_001])
def test_silence_and_scraps_of_sound_have_features(whisper: WhisperEncoder, count: int) -> None:
    features = whisper.encode(np.zeros(count, np.float32))
    assert features.shape == (-(-count // 320), whisper.dim)
    assert np.isfinite(features).all()


def test_borders_between_windows_do_not_show(whisper: WhisperEncoder) -> None:
    # The same sound 4 s later falls on other windows: differences are those of Whisper's own
    # sense of position, nowhere a jump.
    sound = speechlike(20.0)
    shifted = np.concatenate([np.zeros(4 * SAMPLE_RATE_HZ, np.float32), sound])
    one, other = whisper.encode(sound), whisper.encode(shifted)[200:]
    scale = one.std(0) + 1e-3
    difference = np.sqrt((((one - other) / scale) ** 2).mean(1))[25:-25]
    assert difference.mean() < 0.5
    step = np.sqrt(((np.diff(one, axis=0) / scale) ** 2).mean(1))
    borders = [k for k in (350, 400, 450, 750, 800, 850)]
    near = np.mean([step[k - 10 : k + 10].mean() for k in borders])
    assert near < 1.15 * step.mean()


class CountingEncoder(WindowedEncoder):
    """An encoder whose features are the levelled samples they stand on; it counts its windows."""

    name = "counting"
    dim = 1

    def __init__(self) -> None:
        self.windows = 0

    def window_features(self, sound: np.ndarray) -> np.ndarray:
        self.windows += 1
        return sound[200 : 200 + 600 * 320 : 320, None]


def in_chunks(sound: np.ndarray, seed: int) -> list[np.ndarray]:
    cuts = np.random.default_rng(seed).integers(0, len(sound), 50)
    return np.split(sound, np.sort(cuts))


@pytest.mark.parametrize("seconds", [0.0001, 0.5, 7.99, 8.0, 9.99, 10.0, 16.0, 18.01, 41.3])
def test_a_stream_has_the_features_of_the_whole(seconds: float) -> None:
    sound = speechlike(41.3)[: max(1, round(seconds * SAMPLE_RATE_HZ))]
    chunks = in_chunks(sound, seed=len(sound))
    encoder = CountingEncoder()
    whole = encoder.encode(sound)
    np.testing.assert_allclose(whole[:, 0], normalise_loudness(sound)[::320], atol=1e-5)
    streamed = np.concatenate(list(encoder.encode_stream(chunks, measure_loudness(chunks))))
    np.testing.assert_array_equal(streamed, whole)


def test_how_a_stream_is_cut_changes_nothing() -> None:
    sound = speechlike(30.0)
    one = np.concatenate(list(LogMelEncoder().encode_stream([sound])))
    for seed in (1, 2):
        other = np.concatenate(list(LogMelEncoder().encode_stream(in_chunks(sound, seed))))
        np.testing.assert_array_equal(one, other)


def test_a_stream_that_can_t_be_heard_in_advance_settles_at_once() -> None:
    sound = speechlike(40.0)
    known = LogMelEncoder().encode(sound)
    running = np.concatenate(list(LogMelEncoder().encode_stream(in_chunks(sound, 0))))
    assert np.abs(running - known).max() < 0.05  # a tenth of a standard deviation
    short = sound[: 9 * SAMPLE_RATE_HZ]
    alone = np.concatenate(list(LogMelEncoder().encode_stream([short])))
    np.testing.assert_array_equal(alone, LogMelEncoder().encode(short))


def test_a_stream_gives_what_is_final_after_ten_seconds() -> None:
    encoder = CountingEncoder()
    heard = 0

    def chunks():
        nonlocal heard
        for chunk in np.split(speechlike(60.0), 600):
            heard += len(chunk)
            yield chunk

    stream = encoder.encode_stream(chunks())
    assert len(next(stream)) == 7 * 50
    assert heard <= 10.2 * SAMPLE_RATE_HZ
    for count in range(2, 6):
        assert len(next(stream)) == 8 * 50
        assert heard <= (8 * count + 2.2) * SAMPLE_RATE_HZ
        assert encoder.windows == count


def test_the_loudness_of_an_hour_takes_no_more_room_than_that_of_a_second() -> None:
    def room(loudness: Loudness) -> int:
        return sum(value.nbytes for value in vars(loudness).values() if hasattr(value, "nbytes"))

    second = np.full(SAMPLE_RATE_HZ, 0.1, np.float32)
    assert room(measure_loudness([second] * 3600)) == room(measure_loudness([second]))


def test_the_volume_knob_changes_nothing(whisper: WhisperEncoder) -> None:
    sound = speechlike(4.0)
    one, other = whisper.encode(sound), whisper.encode(sound * 0.25)
    np.testing.assert_allclose(one, other, atol=0.05)
    assert np.abs(one - other).mean() < 1e-3


def test_pauses_do_not_raise_the_level() -> None:
    sound = speechlike(4.0)
    padded = np.concatenate([sound, np.zeros(12 * SAMPLE_RATE_HZ, np.float32)])
    level = np.abs(normalise_loudness(sound)).max()
    assert np.abs(normalise_loudness(padded)).max() == pytest.approx(level, rel=0.05)


def test_log_mel_agrees_with_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=400, n_mels=80, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(), expected, atol=1e-15)
    sound = normalise_loudness(speechlike(2.0))
    power = librosa.feature.melspectrogram(
        y=sound, sr=SAMPLE_RATE_HZ, n_fft=400, hop_length=160, n_mels=80, center=False
    )
    expected = (np.maximum(np.log10(np.maximum(power, 1e-10)), 1.5 - 8) + 4) / 4
    np.testing.assert_allclose(log_mel(sound), expected, atol=2e-3)


def test_same_sound_same_features(whisper: WhisperEncoder) -> None:
    sound = speechlike(3.0)
    np.testing.assert_array_equal(whisper.encode(sound), whisper.encode(sound))


def test_what_is_no_sound_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        LogMelEncoder().encode(np.zeros(0, np.float32))
    with pytest.raises(BadInput, match="numbers"):
        LogMelEncoder().encode(np.array([0.0, np.nan], np.float32))
    with pytest.raises(BadInput, match="empty"):
        list(LogMelEncoder().encode_stream([]))
    with pytest.raises(BadInput, match="numbers"):
        list(LogMelEncoder().encode_stream([np.array([0.0, np.inf], np.float32)]))
    with pytest.raises(UsageError, match="no audio encoder") as caught:
        load_encoder("nonesuch")
    assert all(name in (caught.value.hint or "") for name in ENCODERS)


def test_every_encoder_without_weights_keeps_the_interface() -> None:
    encoder: AudioEncoder = load_encoder("log-mel")
    assert encoder.name == "log-mel"
    assert encoder.encode(np.zeros(640, np.float32)).shape == (2, encoder.dim)


def test_frame_times_do_not_drift_at_ntsc_rate() -> None:
    rate = Fraction(30000, 1001)
    times = frame_times_s(107_893, rate)  # an hour
    assert times[-1] == pytest.approx(float((107_892 + Fraction(1, 2)) / rate), abs=1e-9)


def test_sampling_is_linear_between_and_held_outside() -> None:
    ramp = np.arange(10, dtype=np.float32)[:, None]
    times = np.array([-1.0, 0.0, 0.03, 0.18, 5.0])
    np.testing.assert_allclose(sample_at(ramp, times)[:, 0], [0, 0, 1.5, 9, 9], atol=1e-6)


def test_listening_leaves_the_number_of_torch_threads_alone(whisper: WhisperEncoder) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encoder = WhisperEncoder(assets.fetch("whisper_tiny_en"), threads=2)
        encoder.encode(speechlike(1.0))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
