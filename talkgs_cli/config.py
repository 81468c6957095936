"""The configuration of every stage: frozen dataclasses, presets as named instances, JSON on disk.

It knows no tensors and reads no environment; a stage gets one resolved config and records it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, TypeVar

from talkgs_cli.errors import BadInput, UsageError
from talkgs_cli.fit_config import FIT_PRESETS, FitConfig
from talkgs_cli.inpainting_config import InpaintingConfig, inpainting_of
from talkgs_cli.runtime import check_seed

__all__ = [
    "DEMO_MOTIONS",
    "FIT_PRESETS",
    "DemoConfig",
    "FitConfig",
    "InpaintingConfig",
    "PrepareConfig",
    "ScoreConfig",
    "SpeakConfig",
    "TranslatorConfig",
    "from_json",
    "inpainting_of",
    "to_json",
]

ConfigT = TypeVar("ConfigT")


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def from_json(kind: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Read a config back; unknown or missing keys are refused."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(values) - known:
        raise BadInput(
            f"{kind.__name__} has no field {', '.join(sorted(unknown))}.",
            hint="The file was written by another version of talkgs: run the stage again.",
        )
    return kind(**values)


@dataclass(frozen=True)
class PrepareConfig:
    """How a video becomes a speaker folder."""

    # Head model: "open" or "flame:PATH".
    head: str = "open"
    # Longest side of the stored crop frames, pixels. Larger crops are resampled down to it.
    crop_size: int = 512
    # Frame rates above this, by more than 5 %, are halved until they are not (60 -> 30, 50 -> 25).
    max_frame_rate: int = 30
    # Videos whose shorter side is longer than this are shrunk to it, pixels.
    max_short_side: int = 1080
    # Align the track with the pixels after fitting it to landmarks.
    photometric: bool = True
    # Move the sound by its offset from the mouth, where one is found.
    fix_offset: bool = False
    # Audio encoder of the clip's sound: a name of networks.audio_encoder.ENCODERS.
    encoder: str = "whisper-tiny.en"
    # What the user said about the person's consent.
    consent: str = "not stated"

    def __post_init__(self) -> None:
        if not 128 <= self.crop_size <= 1024 or self.crop_size % 16:
            raise UsageError(f"crop_size is {self.crop_size}: use a multiple of 16, 128 to 1024.")
        if self.max_frame_rate < 10 or self.max_short_side < 128:
            raise UsageError("prepare needs at least 10 frames a second and 128 pixels.")
        if self.consent not in ("stated", "not stated"):
            raise UsageError(f"consent is {self.consent!r}: 'stated' or 'not stated'.")


POSES = ("source", "loop", "still")
BLINKS = ("source", "natural")
GAZES = ("source", "camera")


@dataclass(frozen=True)
class SpeakConfig:
    """How a fitted speaker is made to talk."""

    # Constant rate factor of the H.264 output; lower is better and larger.
    crf: int = 16
    # x264 speed of the output.
    preset: str = "veryfast"
    # Frames a second, such as "25", "29.97" or "30000/1001"; None: the speaker's own.
    frame_rate: str | None = None
    # Where to start in the sound, and how much of it to say, seconds; None: all the rest.
    start_s: float = 0.0
    duration_s: float | None = None
    # Only the square around the head instead of the whole frame.
    crop: bool = False
    # Where head and body come from: a name of POSES, or an .npz file of poses.
    pose: str = "source"
    # Eyelids: a name of BLINKS.
    blink: str = "source"
    # Eyes: a name of GAZES, or degrees beside the camera, "LEFT,UP".
    gaze: str = "source"
    # The camera swings round the head, so many degrees to either side.
    orbit_deg: float = 0.0
    # The head alone before a colour or a file, or on nothing ("alpha"); None: in the clip's frames.
    background: str | None = None
    # How far the mouth moves; 1 is as lively as the speaker.
    mouth_gain: float = 1.0
    # A base translator to speak with in place of the fitted one, and the SHA-256 of its weights,
    # which is filled in when it is found.
    translator: str | None = None
    translator_sha256: str = ""
    # Of blinks and of the order in which the clip is played.
    seed: int = 0
    # PEM files of the certificate and key that sign the video; None: a self-made certificate.
    c2pa_cert: str | None = None
    c2pa_key: str | None = None
    # Join face and frame with the Inpainting Generator, where the speaker has one.
    inpaint: bool = True

    def __post_init__(self) -> None:
        for name in ("pose", "background", "translator", "c2pa_cert", "c2pa_key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"{name} is {value!r}: a name or a path.")
        if not 0 <= self.crf <= 40:
            raise UsageError(f"crf is {self.crf}: 0 to 40.")
        if self.frame_rate is not None:  # 29.97 without quotes is the same video as with them
            object.__setattr__(self, "frame_rate", str(self.frame_rate))
            parse_frame_rate(self.frame_rate)
        length_s = 1.0 if self.duration_s is None else self.duration_s
        if not (0 <= self.start_s < math.inf and 0 < length_s < math.inf):
            raise UsageError(
                f"start is {self.start_s:g} s and duration {self.duration_s or 0:g} s.",
                hint="start is 0 or more, duration more than 0.",
            )
        if self.pose not in POSES and not self.pose.lower().endswith(".npz"):
            raise UsageError(
                f"pose is {self.pose!r}.", hint=f"Known: {', '.join(POSES)}, or an .npz file."
            )
        if self.blink not in BLINKS:
            raise UsageError(f"blink is {self.blink!r}.", hint=f"Known: {', '.join(BLINKS)}.")
        self.gaze_offset_deg()
        if not 0 <= self.orbit_deg <= 60:
            raise UsageError(f"orbit is {self.orbit_deg:g} degrees: 0 to 60.")
        if not 0 <= self.mouth_gain <= 2:
            raise UsageError(f"mouth_gain is {self.mouth_gain:g}: 0 to 2.")

    def gaze_offset_deg(self) -> tuple[float, float] | None:
        """(to the speaker's left, up) of the camera, where the eyes look; None: as in the clip."""
        if self.gaze == "source":
            return None
        try:
            left, up = (0.0, 0.0) if self.gaze == "camera" else map(float, self.gaze.split(","))
        except ValueError:
            raise UsageError(
                f"gaze is {self.gaze!r}.",
                hint=f"Known: {', '.join(GAZES)}, or degrees beside the camera such as 5,-3.",
            ) from None
        if not (abs(left) <= 15 and abs(up) <= 10):
            raise UsageError(f"gaze is {self.gaze}: at most 15 degrees aside and 10 up or down.")
        return left, up


def parse_frame_rate(text: str | float) -> Fraction:
    """Frames a second as an exact fraction; 29.97 and its like mean the broadcast rates.

    >>> parse_frame_rate("29.97"), parse_frame_rate("25"), parse_frame_rate("24000/1001")
    (Fraction(30000, 1001), Fraction(25, 1), Fraction(24000, 1001))
    """
    text = str(text)
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= 240:
        raise UsageError(
            f"The frame rate {text!r} can't be used.",
            hint="Give 1 to 240 frames a second, such as 25, 29.97 or 30000/1001.",
        )
    broadcast = Fraction(round(rate) * 1000, 1001)
    if rate.denominator > 1 and "/" not in text and abs(rate - broadcast) < Fraction(1, 200):
        return broadcast
    return rate


DEMO_MOTIONS = ("calm", "turning", "expressive")


@dataclass(frozen=True)
class DemoConfig:
    """The embedded demo speaker: how its video is made and what it then says."""

    # Length of the generated video, seconds; whole frames at 25 per second.
    duration_s: float = 20.0
    # Side of the square video, pixels.
    size: int = 320
    # Seed of blinks, head motion and pauses.
    seed: int = 0
    # Voice of the synthetic speech.
    voice: str = "en-US"
    # How the head moves while it speaks: a name of DEMO_MOTIONS.
    motion: str = "calm"
    # How the demo speaker is fitted: a name of FIT_PRESETS.
    preset: str = "draft"
    # What the fitted speaker says, which the video does not.
    new_sentence: str = (
        "Nobody has ever spoken this sentence. A moment ago I was a photograph, "
        "and now my mouth follows any voice you give me."
    )

    def __post_init__(self) -> None:
        if not 4.0 <= self.duration_s <= 600.0:
            raise UsageError(f"duration_s is {self.duration_s}: 4 to 600 seconds.")
        if not 128 <= self.size <= 768 or self.size % 16:
            raise UsageError(f"size is {self.size}: use a multiple of 16, 128 to 768.")
        if self.preset not in FIT_PRESETS:
            raise UsageError(f"There is no preset {self.preset!r}: {', '.join(FIT_PRESETS)}.")
        if self.motion not in DEMO_MOTIONS:
            raise UsageError(f"There is no motion {self.motion!r}: {', '.join(DEMO_MOTIONS)}.")
        if not self.new_sentence.strip():
            raise UsageError("new_sentence is empty.")


@dataclass(frozen=True)
class BaseConfig:
    """How a base translator is trained on many voices."""

    # Audio encoder: a name that networks.audio_encoder.load_encoder knows.
    encoder: str = "whisper-tiny.en"
    # Network: "conv" (small) or "paper" (transformer).
    architecture: str = "conv"
    seed: int = 0
    # Synthetic recordings of about 15 s, in parts: a run that was stopped goes on at the next part.
    recordings: tuple[int, ...] = (24,) * 20
    # Optimiser steps, windows a step, samples of a window at 50 a second.
    iterations: int = 1500
    batch: int = 12
    window_samples: int = 150
    lr: float = 2e-3
    # Principal components of the audio features.
    components: int = 128
    # Channels of the small network, and dropout.
    width: int = 96
    dropout: float = 0.2
    # Loss weights: curves, their differences in time, latents of timbre-shifted copies. The paper's
    # 1000, 1000 and 0.001 with the first in metres; in units of what lips do, of a few millimetres,
    # the last would be a tenth of the first. It gained nothing in trials: off.
    vertex_weight: float = 1000.0
    smoothness_weight: float = 1000.0
    latent_weight: float = 0.0
    # Chance that a window is learnt from its timbre-shifted copy.
    shifted_share: float = 0.5
    # Noise on components of unit variance: on each sample, and on a whole window.
    feature_noise: float = 0.3
    channel_noise: float = 0.3
    # Voices not learnt from, on which the result is measured.
    hold_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.architecture not in ("conv", "paper"):
            raise UsageError(f"architecture is {self.architecture!r}: 'conv' or 'paper'.")
        if self.iterations < 1 or self.batch < 1:
            raise UsageError("A base translator needs at least 1 iteration and window.")
        if self.vertex_weight <= 0:
            raise UsageError(f"vertex_weight is {self.vertex_weight}: it must be above 0.")


@dataclass(frozen=True)
class TranslatorConfig:
    """How the voice-to-mouth model is trained on the speaker's own clip."""

    # Translator to start from: a name, folder or Hub repository; "none"; or "auto", the one that
    # comes with talkgs. The SHA-256 of its weights is filled in when it is found.
    translator: str = "auto"
    translator_sha256: str = ""

    # Audio encoder: a name that networks.audio_encoder.load_encoder knows.
    encoder: str = "whisper-tiny.en"
    # Seed of the network's start and of the order of training windows.
    seed: int = 0
    # Sound either side of a frame that the linear part sees, seconds.
    context_s: float = 0.12
    # Principal components of the audio features that the model sees; few, because a clip is short.
    components: int = 128
    # Channels and dropout of the networks.
    width: int = 96
    dropout: float = 0.4
    # Optimiser steps of each network.
    iterations: int = 300
    # Networks whose mean is taken.
    networks: int = 2
    # Share of the linear part in the mean of linear part and networks, without a base translator;
    # with one it is chosen on unseen seconds.
    linear_share: float = 0.35
    # Tuning a base translator: learning rate and dropout.
    tuning_lr: float = 1e-3
    tuning_dropout: float = 0.2
    # Loss weights as in the paper: lip points, parameters, their differences in time. Only their
    # ratios matter: each loss is in units of what the speaker does (see docs/translator.md).
    vertex_weight: float = 1000.0
    parameter_weight: float = 10.0
    smoothness_weight: float = 1000.0
    # Gaussian smoothing of the result over time, seconds.
    smoothing_s: float = 0.02
    # Averaging makes mouths timid: their spread is raised to this share of the speaker's own.
    liveliness: float = 0.95
    # The gain that does so is kept inside 1 .. this: more would open a mouth too wide that hardly
    # follows the sound.
    max_gain: float = 1.5

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.networks < 0:
            raise UsageError("The translator's iterations and networks can't be negative.")
        if not 0.0 <= self.linear_share <= 1.0:
            raise UsageError(f"linear_share is {self.linear_share}: 0 to 1.")
        if self.max_gain < 1.0:
            raise UsageError(f"max_gain is {self.max_gain}: at least 1.")


LMD_DETECTORS = ("mediapipe", "fan")


@dataclass(frozen=True)
class ScoreConfig:
    """How much is measured, and with what."""

    # Frames measured at most; more cost time and narrow the intervals. 0: every frame.
    max_frames: int = 100
    # Neighbouring frames are measured in runs of this length, so that jitter can be seen.
    run_frames: int = 25
    # LPIPS sees images whose shorter side is larger than this shrunk to it, pixels.
    lpips_short_side: int = 512
    # What finds the lip points of the landmark distance: a name of LMD_DETECTORS.
    lmd_detector: str = "mediapipe"
    # The second LPIPS backbone, slow on a CPU, looks at every so many-th frame.
    vgg_every: int = 4
    # It also looks at the large regions, not only at the mouth.
    vgg_everywhere: bool = False

    def __post_init__(self) -> None:
        if self.vgg_every < 1:
            raise UsageError(f"vgg_every is {self.vgg_every}: at least 1.")
        if self.max_frames < 0 or self.run_frames < 3:
            raise UsageError("score needs max_frames of at least 0 and run_frames of at least 3.")
        if self.lmd_detector not in LMD_DETECTORS:
            raise UsageError(
                f"lmd_detector is {self.lmd_detector!r}: {' or '.join(LMD_DETECTORS)}."
            )
        if self.lpips_short_side < 64:
            raise UsageError(f"lpips_short_side is {self.lpips_short_side}: at least 64.")
