"""The metrics against hand values and independent code, behaving as mathematics says."""

import doctest
import importlib
from fractions import Fraction

import cv2
import numpy as np
import pytest

from talkgs_cli.metrics import image as image_metrics
from talkgs_cli.metrics import intervals, landmarks, lips


@pytest.fixture(scope="module")
def picture():
    from skimage import data

    return data.astronaut()[40:168, 160:320].astype(np.float32) / 255  # [128, 160, 3]


@pytest.mark.parametrize(
    "name",
    ["landmark_points", *(f"metrics.{k}" for k in ("image", "landmarks", "lips", "intervals"))],
)
def test_doctests_show_true_numbers(name):
    failures, count = doctest.testmod(importlib.import_module(f"talkgs_cli.{name}"))
    assert count > 0
    assert failures == 0


# -- images ----------------------------------------------------------------------------------------


def test_ssim_map_agrees_with_opencv_convolutions(picture):
    noise = np.random.default_rng(0).normal(0, 0.05, picture.shape).astype(np.float32)
    noisy = np.clip(picture + noise, 0, 1)
    found = image_metrics.ssim_map(noisy, picture)
    assert np.abs(found - opencv_ssim_map(noisy, picture)).max() < 1e-4


def test_ssim_map_of_a_local_change_equals_the_whole_computation(picture):
    changed = picture.copy()
    changed[50:60, 70:75] = 0
    assert (
        np.abs(image_metrics.ssim_map(changed, picture) - opencv_ssim_map(changed, picture)).max()
        < 1e-4
    )


@pytest.mark.parametrize(("row", "column"), [(0, 0), (127, 159), (64, 0), (0, 80)])
def test_ssim_sees_a_single_changed_pixel_anywhere(picture, row, column):
    changed = picture.copy()
    changed[row, column] = 1 - changed[row, column]
    found = image_metrics.ssim_map(changed, picture)
    assert found[row, column] < 1
    assert np.abs(found - opencv_ssim_map(changed, picture)).max() < 1e-4


def test_psnr_agrees_with_skimage(picture):
    from skimage.metrics import peak_signal_noise_ratio

    noise = np.random.default_rng(1).normal(0, 0.1, picture.shape)
    noisy = np.clip(picture + noise, 0, 1).astype(np.float32)
    expected = peak_signal_noise_ratio(picture, noisy, data_range=1)
    assert image_metrics.psnr(noisy, picture) == pytest.approx(expected, abs=1e-3)


def test_shift_and_blur_lower_both_the_more_the_stronger(picture):
    for worsen in (
        lambda amount: np.roll(picture, amount, axis=1),
        lambda amount: cv2.GaussianBlur(picture, (0, 0), amount),
    ):
        for measure, best in ((image_metrics.psnr, 100), (image_metrics.ssim, 1)):
            values = [measure(worsen(amount), picture) for amount in (1, 2, 4)]
            assert best > values[0] > values[1] > values[2]


def test_mask_figures_ignore_what_lies_outside(picture):
    mask = np.zeros(picture.shape[:2], bool)
    mask[:40] = True
    changed = picture.copy()
    changed[80:] = 0
    assert image_metrics.masked_psnr(changed, picture, mask) == image_metrics.PSNR_CAP_DB
    similarity = image_metrics.ssim_map(changed, picture)
    assert image_metrics.masked_ssim(similarity, mask) == 1
    assert image_metrics.masked_ssim(similarity, ~mask) < 0.9


def test_empty_mask_has_no_figures(picture):
    empty = np.zeros(picture.shape[:2], bool)
    assert image_metrics.masked_psnr(picture, picture, empty) is None
    assert image_metrics.masked_ssim(np.ones(empty.shape), empty) is None


def test_images_of_different_sizes_are_refused(picture):
    with pytest.raises(ValueError, match="different shapes"):
        image_metrics.psnr(picture, picture[:-1])


def opencv_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM from its definition, with OpenCV's Gaussian window."""

    def blur(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (var_a + var_b + 9e-4)
    return (luminance * structure).mean(-1)


# -- landmarks -------------------------------------------------------------------------------------


def random_landmarks(frames: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 200, (frames, 478, 3)).astype(np.float32)


def test_lmd_ignores_translation_and_keeps_scale():
    points = landmarks.lip_points(random_landmarks(5)).astype(float)
    assert points.shape == (5, 20, 2)
    assert np.allclose(landmarks.lmd(points + np.array([3, -9]), points), 0)
    assert (landmarks.lmd(points * 1.1, points) > 1).all()
    assert np.allclose(landmarks.lmd(points, points * 1.1), landmarks.lmd(points * 1.1, points))


def test_lmd_scales_with_resolution():
    a, b = landmarks.lip_points(random_landmarks(2)).astype(float)
    assert landmarks.lmd(2 * a[None], 2 * b[None]) == pytest.approx(
        2 * landmarks.lmd(a[None], b[None])
    )


def test_lip_points_of_the_68_point_scheme_mirror_onto_each_other():
    mirrored = np.array(landmarks.LIPS_68)[list(landmarks.LIPS_68_MIRRORED)]
    pairs = {61: 291, 39: 269, 37: 267, 0: 0, 405: 181, 314: 84, 17: 17, 78: 308, 82: 312, 13: 13}
    pairs |= {317: 87, 14: 14}
    for point, partner in zip(landmarks.LIPS_68, mirrored, strict=True):
        assert pairs.get(point, None) == partner or pairs.get(int(partner), None) == point


def test_mirrored_lip_points_undo_a_mirror():
    seen = random_landmarks(1)
    width = 300.0
    mirrored_image = seen.copy()
    for point, position in zip(landmarks.LIPS_68, landmarks.LIPS_68_MIRRORED, strict=True):
        mirrored_image[:, landmarks.LIPS_68[position]] = seen[:, point]
    mirrored_image[..., 0] = width - mirrored_image[..., 0]
    back = landmarks.unmirrored(landmarks.lip_points(mirrored_image), width)
    assert np.allclose(back, landmarks.lip_points(seen), atol=1e-3)


def test_jitter_of_shaken_points_is_larger_and_even_motion_has_none():
    even = np.linspace(0, 50, 40)[:, None, None] + np.zeros((40, 4, 2))
    noise = np.random.default_rng(3).normal(0, 1, even.shape)
    assert landmarks.jitter(even) == pytest.approx(0, abs=1e-9)
    assert 0 < landmarks.jitter(even + 0.1 * noise) < landmarks.jitter(even + 0.5 * noise)


# -- lips ------------------------------------------------------------------------------------------


def test_opening_is_relative_to_the_eyes_and_independent_of_image_scale():
    points = random_landmarks(3)
    assert np.allclose(lips.opening(points), lips.opening(points * 2.5))
    points[:, 13] = points[:, 14]
    assert (lips.opening(points) == 0).all()


def test_true_mouth_scores_perfectly_and_a_frozen_one_scores_nothing():
    real = np.abs(np.sin(np.arange(200) * 0.3)) * 0.2
    threshold = lips.closed_threshold(real)
    assert lips.opening_r(real, real) == pytest.approx(1)
    assert lips.opening_spread(real, real) == 1
    assert lips.closure_recall(real, real, threshold) == 1
    assert lips.closure_precision(real, real, threshold) == 1
    half_open = np.full(200, 0.1)
    assert lips.opening_r(half_open, real) == 0
    assert lips.opening_spread(half_open, real) < 1e-9
    assert lips.closure_recall(half_open, real, threshold) == 0
    assert lips.closure_precision(half_open, real, threshold) is None


def test_delay_lowers_the_correlation():
    real = np.random.default_rng(4).normal(size=400)
    real = np.convolve(real, np.ones(5) / 5, "same")
    values = [lips.opening_r(np.roll(real, delay), real) for delay in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)


def test_silence_is_found_at_fractional_frame_rates():
    rate = Fraction(30000, 1001)
    rng = np.random.default_rng(5)
    sound = rng.normal(0, 0.1, 48000)
    sound[16000:32000] *= 1e-3
    silent = lips.silent_frames(sound, 16000, 90, rate)
    times = (np.flatnonzero(silent) + 0.5) / float(rate)
    assert 1.0 < times.min() < 1.2
    assert 1.8 < times.max() < 2.0


def test_speech_without_a_pause_and_short_gaps_are_not_silence():
    noise = np.random.default_rng(6).normal(0, 0.1, 32000)
    assert not lips.silent_frames(noise, 16000, 50, Fraction(25)).any()
    noise[8000:10000] = 0  # an eighth of a second
    assert not lips.silent_frames(noise, 16000, 50, Fraction(25)).any()


def test_all_zero_sound_is_silence_throughout():
    silent = lips.silent_frames(np.zeros(16000), 16000, 25, Fraction(25))
    assert silent[2:-2].all()


def test_silence_figures_are_null_without_silence():
    assert lips.silence_open_share(np.ones(5), np.zeros(5, bool), 0.5) is None


# -- intervals -------------------------------------------------------------------------------------


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(100):
        found = intervals.mean_interval(rng.normal(5, 1, 120))
        hits += found["low"] <= 5 <= found["high"]
    assert 84 <= hits <= 100


def test_interval_is_wider_for_correlated_frames():
    white = np.random.default_rng(8).normal(size=200)
    slow = np.convolve(white, np.ones(10) / np.sqrt(10), "same")
    width = {}
    for name, values in {"white": white, "slow": slow}.items():
        found = intervals.mean_interval(values)
        width[name] = (found["high"] - found["low"]) / values.std()
    assert width["slow"] > 1.5 * width["white"]


def test_missing_values_are_left_out():
    assert intervals.mean_interval([1.0, float("nan"), 1.0])["mean"] == 1
