"""The rows `score` compares for a speaker: what is rendered for a held-out frame, and the floors.

It makes pictures and measures none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.avatar import Avatar
from talkgs_cli.compositing import Compositor
from talkgs_cli.metrics.lips import opening
from talkgs_cli.speaker import SpeakerFolder
from talkgs_cli.stages.score_regions import Box, Regions
from talkgs_cli.types import HeadMotion, Tracking, pack_mouth, unpack_mouth

ROWS = ("audio", "tracked", "composite", "composite_feathered", "warped", "frozen", "real")
REST_SHARE = 0.1  # of the training frames: those with the mouth most closed
MESH_POINTS = 468  # the irises lie on top of other points

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass
class MadeFrame:
    """One generated frame.

    Attributes:
        row: Which row it belongs to.
        frame: [H, W, 3] uint8.
        true_share: [H, W] share of the held-out frame itself in each pixel, or one number for all.
    """

    row: str
    frame: Frame
    true_share: Floats | float


class SpeakerRows:
    """Makes every row's picture of the held-out frames.

    Args:
        speaker: A fitted speaker.
        avatar: Its avatar.
        regions: Where the face is; the warped floor fills the oval only.
        frames: Held-out frames, in the order in which `of` will be asked for them.
    """

    def __init__(
        self, speaker: SpeakerFolder, avatar: Avatar, regions: Regions, frames: list[int]
    ) -> None:
        self.speaker = speaker
        self.avatar = avatar
        self.compositor = Compositor(speaker.crop)
        self.joiner = Compositor.load(speaker)
        self.regions = regions
        self.train, _ = speaker.splits()
        motions = row_motions(speaker, avatar, frames)
        self._tracked = motions["tracked"]
        self._renders = {row: avatar.render(motion) for row, motion in motions.items()}
        self._warper = Warper(speaker, avatar, regions)
        self._asked = 0
        self._reference: tuple[int, Frame] | None = None

    @property
    def rendered(self) -> tuple[str, ...]:
        """The rows that the avatar renders."""
        return tuple(self._renders)

    def of(self, index: int, original: Frame) -> Iterator[MadeFrame]:
        """All rows but `real` for the next frame.

        Args:
            index: Its number.
            original: [H, W, 3] the real frame, which also lies under most rows.
        """
        label = self.speaker.label(index)
        for row, renders in self._renders.items():
            rgb, alpha = next(renders)
            weight = self.compositor.share(alpha, original.shape[:2], label)
            lit = self.avatar.exposure.laid_on(rgb, index)
            yield MadeFrame(row, self.compositor.paste(lit, alpha, original, label), 1 - weight)
            if row == "tracked":
                here = self._tracked.at(slice(self._asked, self._asked + 1))
                under = self.avatar.reference_for(here, self.train)
                reference, bare = self._reference_frame(under), self.speaker.label(under)
                # Surroundings are judged, not that another moment had another light.
                reference = self.avatar.exposure.moved(reference, under, index)
                made = self.joiner.paste(lit, alpha, reference, bare)
                yield MadeFrame("composite", made, 0.0)
                if self.joiner.inpainter is not None:
                    made = self.compositor.paste(lit, alpha, reference, bare)
                    yield MadeFrame("composite_feathered", made, 0.0)
        yield self._warper.warp(index, original)
        self._asked += 1

    def _reference_frame(self, index: int) -> Frame:
        from talkgs_cli.media.video import read_frames

        if self._reference is None or self._reference[0] != index:
            start_s = float(Fraction(index) / self.speaker.frame_rate)
            (frame,) = read_frames(self.speaker.video, start_s=start_s, frames=1)
            self._reference = (index, frame)
        return self._reference[1]


def row_motions(speaker: SpeakerFolder, avatar: Avatar, frames: list[int]) -> dict[str, HeadMotion]:
    """The motion of each rendered row at some frames; `audio` only where there is a lip model."""
    tracking = avatar.tracking
    tracked = tracking.motion.at(torch.tensor(frames))
    mouth_expression = avatar.head.head.mouth_expression
    count = tracking.mouth_correctives
    motions = {"tracked": tracked}
    heard = heard_mouth(speaker)
    if heard is not None:
        mouth = heard[torch.tensor(frames)]
        motions["audio"] = unpack_mouth(mouth, tracked, mouth_expression, count)
    train, _ = speaker.splits()
    rest = rest_mouth(tracking, train, mouth_expression).expand(len(frames), -1)
    motions["frozen"] = unpack_mouth(rest, tracked, mouth_expression, count)
    return motions


def heard_mouth(speaker: SpeakerFolder) -> Tensor | None:
    """[T, M] mouth that the lip model makes of the clip's own sound; None without one."""
    if not (speaker.has_audio and speaker.translator.is_file()):
        return None
    from talkgs_cli.networks.audio_encoder import load_encoder
    from talkgs_cli.networks.motion_translator import MotionTranslator

    translator = MotionTranslator.load(speaker.translator)
    features = speaker.load_audio_features()
    if features.encoder == translator.about.encoder:
        values = features.values
    else:
        from talkgs_cli.media.audio import read_audio

        values = load_encoder(translator.about.encoder).encode(read_audio(speaker.audio))
    mouth: Tensor = translator.predict(
        values, speaker.frame_count, speaker.frame_rate, clip_timing=True
    )
    return mouth


def rest_mouth(tracking: Tracking, train: range, mouth_expression: Tensor) -> Tensor:
    """[M] median mouth of the training frames in which it is most closed."""
    usable = torch.arange(train.start, train.stop)
    usable = usable[tracking.valid[train.start : train.stop]]
    openings = opening(tracking.landmarks)[usable.numpy()]
    closed = usable[torch.from_numpy(openings <= np.quantile(openings, REST_SHARE))]
    mouths = pack_mouth(tracking.motion.at(closed), mouth_expression, tracking.mouth_correctives)
    return mouths.median(0).values


class Warper:
    """The strongest simple rival: the training frame nearest in expression, warped into place.

    The warp is piecewise affine over a triangulation of the tracked points.
    """

    def __init__(self, speaker: SpeakerFolder, avatar: Avatar, regions: Regions) -> None:
        from scipy.spatial import Delaunay

        self.speaker = speaker
        self.regions = regions
        self.exposure = avatar.exposure
        tracking = avatar.tracking
        self.codes = avatar.codes(tracking.motion)  # [T, 16]
        train, _ = speaker.splits()
        usable = torch.arange(train.start, train.stop)
        self.candidates = usable[tracking.valid[train.start : train.stop]]
        self.landmarks = tracking.landmarks
        # Triangles are made with the mouth wide open, so that the lips stay two.
        openings = opening(tracking.landmarks)[self.candidates.numpy()]
        widest = int(self.candidates[int(openings.argmax())])
        self.triangles = Delaunay(self._points(widest)).simplices  # [F, 3]

    def _points(self, index: int) -> NDArray[np.float32]:
        """[468, 2] pixels of one frame."""
        return self.landmarks[index][:MESH_POINTS, :2]

    def nearest(self, index: int) -> int:
        """The training frame whose driving code is nearest to that of frame `index`."""
        apart = (self.codes[self.candidates] - self.codes[index]).square().sum(1)
        return int(self.candidates[int(apart.argmin())])

    def warp(self, index: int, original: Frame) -> MadeFrame:
        """Fill the face oval of a held-out frame from its nearest training frame."""
        landmarks = self._points(index)
        box, oval = self.regions.face(landmarks), self.regions.oval(landmarks)
        source = self.nearest(index)
        crop = self.speaker.crop
        sampled = self._positions(index, source, box)  # [S, S, 2] original pixels
        places = (crop.to_crop(sampled) - 0.5).astype(np.float32)  # OpenCV counts centres from 0
        filled = cv2.remap(
            self.exposure.moved(self.speaker.frame(source), source, index),
            places[..., 0],
            places[..., 1],
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        frame, share = original.copy(), np.ones(original.shape[:2], np.float32)
        frame[box][oval] = filled[oval]
        share[box][oval] = 0
        return MadeFrame("warped", frame, share)

    def _positions(self, index: int, source: int, box: Box) -> NDArray[np.float64]:
        """Where each pixel of the face square lies in the source frame."""
        rows, columns = box
        corner = np.array([columns.start, rows.start])
        size = (rows.stop - rows.start, columns.stop - columns.start)
        here = self._points(index)[self.triangles].astype(np.float64) - corner  # [F, 3, 2]
        there = self._points(source)[self.triangles].astype(np.float64)
        owner = np.full(size, -1, np.int32)
        for number, triangle in enumerate(here):
            corners = np.round((triangle - 0.5) * 16).astype(np.int32)
            cv2.fillConvexPoly(owner, corners, number, shift=4)
        corners = np.concatenate([here, np.ones((len(here), 3, 1))], axis=2)
        flat = np.abs(np.linalg.det(corners)) < 1e-3
        corners[flat] = np.eye(3)
        maps = np.linalg.solve(corners, there)  # [F, 3, 2]
        y, x = np.indices(size) + 0.5
        pixels = np.stack([x, y, np.ones(size)], axis=-1)
        found = np.einsum("yxi,yxij->yxj", pixels, maps[np.maximum(owner, 0)])
        # The rim that no triangle covers moves with the face as a whole.
        bare = (owner < 0) | flat[np.maximum(owner, 0)]
        points = np.column_stack([self._points(index) - corner, np.ones(MESH_POINTS)])
        whole, *_ = np.linalg.lstsq(points, self._points(source).astype(np.float64))
        found[bare] = pixels[bare] @ whole
        return found
