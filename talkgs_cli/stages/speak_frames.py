"""A sound in, finished frames out: rendering, what lies underneath, and compositing, side by side.

Each step works in a thread of its own, a few frames ahead of the next; the kernels, ffmpeg and
OpenCV leave Python's lock alone meanwhile. It writes no file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.config import POSES, SpeakConfig, parse_frame_rate
from talkgs_cli.errors import BadInput
from talkgs_cli.rendering.warm_up import compile_kernels
from talkgs_cli.runtime import Progress
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.ahead import ahead
from talkgs_cli.stages.clock import Clock
from talkgs_cli.stages.speak_background import (
    ALPHA,
    PLAIN,
    alone,
    backgrounds,
    over,
    require_background,
)
from talkgs_cli.stages.speak_eyes import eye_tracks, resting
from talkgs_cli.stages.speak_originals import Original, originals
from talkgs_cli.stages.speak_pose import PoseTrack, mean_pose, orbit
from talkgs_cli.stages.speak_sound import mouths
from talkgs_cli.stages.speak_walk import Walk, head_speed, plan_walk, usable_runs
from talkgs_cli.types import Crop, HeadMotion, unpack_mouth

if TYPE_CHECKING:
    from talkgs_cli.avatar import Avatar
    from talkgs_cli.media.audio import SoundStream
    from talkgs_cli.networks.audio_encoder import AudioEncoder
    from talkgs_cli.networks.motion_translator import MotionTranslator

Frame = NDArray[np.uint8]
ItemT = TypeVar("ItemT")

MOUTHS_AHEAD = 1  # windows of sound; each is some 16 s of mouths
FRAMES_AHEAD = 3
PIECE = 32  # frames whose motion is computed together


@dataclass(frozen=True)
class Rendered:
    """The face of one frame, in the crop.

    Attributes:
        rgb: [S, S, 3] premultiplied by alpha.
        alpha: [S, S].
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]


class Performance:
    """A speaker about to say something: everything loaded and planned, nothing rendered yet.

    Args:
        speaker: Fitted, with a lip model.
        config: How it talks.
        progress: Hears what the user should know.

    Attributes:
        frame_rate: Of the output, exact.
        size: (height, width) of its frames.
        has_alpha: Whether frames are RGBA rather than RGB.
        clock: Seconds that each step worked; steps overlap.

    Raises:
        BadInput: the speaker is not fitted, has no lip model or no usable frame.
        UsageError: options that this head can't follow.
    """

    def __init__(self, speaker: SpeakerFolder, config: SpeakConfig, progress: Progress) -> None:
        self.clock = Clock()
        self._speaker = speaker
        self._config = config
        self._progress = progress
        self._avatar, self._translator, self._encoder = _loaded(
            speaker.path.resolve(),
            (speaker.stage("fit") or {}).get("finished"),
            SpeakConfig(translator=config.translator, translator_sha256=config.translator_sha256),
        )
        rate = config.frame_rate
        self.frame_rate = parse_frame_rate(rate) if rate else speaker.frame_rate
        self._background = self._chosen_background(progress)
        self.has_alpha = self._background == ALPHA
        crop = speaker.crop
        self.size = (crop.side, crop.side) if config.crop else speaker.size
        self._place = Crop(0, 0, crop.side, crop.size) if config.crop else crop
        self._walk = self._plan()
        self._poses = self._read_poses()
        self._eyes = eye_tracks(
            self._avatar.tracking, self._avatar.head.head, speaker.frame_rate, config
        )

    def frames(self, sound: SoundStream) -> Generator[Frame]:
        """The finished frames, as the sound comes in; closing it ends all threads and programs.

        Yields:
            [H, W, 3] uint8 RGB, or [H, W, 4] RGBA with `has_alpha`.

        Raises:
            BadInput: the sound can't be used, or is shorter than one frame.
        """
        step = speaker_step(self._speaker.frame_rate, self.frame_rate)
        count = 0
        with ExitStack() as threads:

            def beside(items: Iterator[ItemT], waiting: int, name: str) -> Iterator[ItemT]:
                return threads.enter_context(closing(ahead(items, waiting, name)))

            spoken = beside(self._mouths(sound), MOUTHS_AHEAD, "mouths")
            rendered = beside(self._render(spoken), FRAMES_AHEAD, "render")
            if self._background is None:
                walked = originals(self._speaker, self._walk.positions(step))
                under = beside(self.clock.over("read", walked), FRAMES_AHEAD, "read")
                made = self._composited(rendered, under)
            else:
                made = self._alone(rendered, self._background)
            for frame in beside(made, FRAMES_AHEAD, "composite"):
                count += 1
                yield frame
        if count == 0:
            raise BadInput(
                f"{sound.path} is shorter than one frame: "
                f"{sound.samples / sound.sample_rate_hz:.3f} s.",
                hint="Use a longer recording.",
            )

    # -- what the steps are ----------------------------------------------------------------------

    def _mouths(self, sound: SoundStream) -> Iterator[Tensor]:
        """Pieces of [k, M] mouth vectors."""
        spoken = mouths(
            self._translator, self._encoder, sound, self.frame_rate, self._config.mouth_gain
        )
        yield from self.clock.over("audio", spoken)

    def _render(self, spoken: Iterator[Tensor]) -> Iterator[Rendered]:
        step = speaker_step(self._speaker.frame_rate, self.frame_rate)
        positions = self._walk.positions(step)
        first = 0
        compile_kernels(self._progress, backward=False)  # while the first words are listened to
        for window in spoken:
            for mouth in window.split(PIECE):
                places = torch.tensor(list(islice(positions, len(mouth))))
                motion = self._motion(mouth, places, first)
                first += len(mouth)
                renders = self.clock.over("render", self._avatar.render(motion))
                for under, (rgb, alpha) in zip(places.tolist(), renders, strict=True):
                    if self._background is None:
                        rgb = self._avatar.exposure.laid_on(rgb, under)
                    yield Rendered(rgb, alpha)

    def _motion(self, mouth: Tensor, places: Tensor, first: int) -> HeadMotion:
        """Motion of frames `first` and following: the mouth spoken, the rest from elsewhere."""
        middles = np.arange(first, first + len(mouth), dtype=np.float64) + 0.5
        times_s = np.asarray(middles / float(self.frame_rate), np.float64)
        rest = self._avatar.tracking.motion.at(places)
        rest = HeadMotion(*(value.clone() for value in vars(rest).values()))
        if self._poses is not None:
            rest.world_to_camera = self._poses.at(times_s)
        if self._config.orbit_deg:
            rest.world_to_camera = orbit(rest.world_to_camera, self._config.orbit_deg, times_s)
        for track in self._eyes:
            track.apply(rest, places, times_s)
        return unpack_mouth(
            mouth,
            rest,
            self._avatar.head.head.mouth_expression,
            self._avatar.tracking.mouth_correctives,
        )

    def _composited(
        self, rendered: Iterator[Rendered], under: Iterator[Original]
    ) -> Iterator[Frame]:
        from talkgs_cli.compositing import Compositor

        crop = self._speaker.crop
        compositor = Compositor.load(self._speaker, inpaint=self._config.inpaint, crop=self._place)
        square = np.s_[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
        for face, original in zip(rendered, under, strict=False):
            frame = original.frame[square] if self._config.crop else original.frame
            with self.clock.part("composite"):
                made = compositor.paste(face.rgb, face.alpha, frame, original.label)
            yield made

    def _alone(self, rendered: Iterator[Rendered], background: str) -> Iterator[Frame]:
        if background == ALPHA:
            for face in rendered:
                with self.clock.part("composite"):
                    cut = alone(face.rgb, face.alpha, self.size, self._place)
                yield cut
            return
        behind = backgrounds(background, self.size, self.frame_rate)
        for face, picture in zip(rendered, behind, strict=False):
            with self.clock.part("composite"):
                made = over(face.rgb, face.alpha, picture, self._place)
            yield made

    # -- what is planned before ------------------------------------------------------------------

    def _chosen_background(self, progress: Progress) -> str | None:
        config = self._config
        if config.background is not None:
            require_background(config.background)
            return config.background
        if config.orbit_deg or config.pose not in POSES:
            progress.note(
                f"The head is shown alone before {PLAIN}: the clip has no frames for other poses. "
                "--background chooses what lies behind."
            )
            return PLAIN
        return None

    def _plan(self) -> Walk:
        tracking, rate = self._avatar.tracking, self._speaker.frame_rate
        train, _ = self._speaker.splits()
        seen = (self._speaker.stage("prepare") or {}).get("result", {}).get("at", {})
        pose = self._config.pose if self._config.pose in POSES else "source"
        speed, usable = head_speed(tracking, rate), tracking.valid.numpy()
        if pose == "still":  # a face that stays should not be caught in a blink or a shout
            awake = resting(tracking.landmarks, rate) & usable
            usable = awake if awake[train.start : train.stop].any() else usable
        runs = usable_runs(train, usable, seen, rate)
        return plan_walk(speed, runs, rate, pose, self._config.seed)

    def _read_poses(self) -> PoseTrack | None:
        if self._config.pose in POSES:
            return None
        home = mean_pose(self._avatar.tracking.motion.world_to_camera[self._avatar.tracking.valid])
        return PoseTrack.read(Path(self._config.pose)).moved_to(home)


def speaker_step(speaker_rate: Fraction, frame_rate: Fraction) -> Fraction:
    """Frames of the clip that pass while one frame of the output is shown."""
    return speaker_rate / frame_rate


class _Loaded(NamedTuple):
    avatar: Avatar
    translator: MotionTranslator
    encoder: AudioEncoder


@lru_cache(maxsize=1)
def _loaded(path: Path, fitted: str | None, voice: SpeakConfig) -> _Loaded:
    """A speaker's networks, kept: the next sound of a list is said by the same speaker.

    Args:
        path: The speaker folder.
        fitted: When its fit was finished; another fit is loaded anew.
        voice: Settings that name the translator, and nothing else.
    """
    from talkgs_cli.avatar import Avatar

    speaker = SpeakerFolder.open_(path)
    with ThreadPoolExecutor(1, "talkgs-voice") as beside:
        loading = beside.submit(load_voice, speaker, voice)
        avatar = Avatar.load(speaker)
    return _Loaded(avatar, *loading.result())


def load_voice(
    speaker: SpeakerFolder, config: SpeakConfig | None = None
) -> tuple[MotionTranslator, AudioEncoder]:
    """The speaker's lip model, or the one that the settings name, and the encoder that it reads.

    The encoder gets one thread: it listens while others render, and threads that wait for each
    other on busy cores take four times as long.

    Raises:
        BadInput: there is no lip model.
    """
    from talkgs_cli.networks.audio_encoder import load_encoder
    from talkgs_cli.networks.motion_translator import MotionTranslator
    from talkgs_cli.stages.translator_choice import borrowed_translator, load_base

    if config is not None and (base := load_base(config)) is not None:
        return borrowed_translator(speaker, base), load_encoder(base.about.encoder, threads=1)

    if not speaker.translator.is_file():
        raise BadInput(
            f"{speaker.path} has no lip model: its video came without sound.",
            hint="Prepare and fit a clip with sound, or name a translator with --translator.",
        )
    translator = MotionTranslator.load(speaker.translator)
    return translator, load_encoder(translator.about.encoder, threads=1)
