"""What stands behind the figures of a score: values over time, worst frames, where errors lie.

It measures nothing; it keeps a bounded number of pictures, however long the clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talkgs_cli.runtime import write_json
from talkgs_cli.stages.report_html import jpeg_uri
from talkgs_cli.stages.score_regions import Box, Regions

WORST_FRAMES = 6
STRETCH_S = 0.5  # at most one worst frame in so long a stretch: neighbours look alike
PICTURE_PX = 224  # shorter side of a stored picture
FULL_SCALE = 32.0  # grey levels of error that are drawn brightest

Frame = NDArray[np.uint8]
Series = dict[int, float]  # frame number -> value


@dataclass(frozen=True)
class Moment:
    """One frame as every row made it.

    Attributes:
        frame: Its number.
        time_s: When it is shown.
        psnr_db: Of the leading row, in the pictured part.
        pictures: Row -> data URI; "real" first, "error" is the leading row's heat map.
    """

    frame: int
    time_s: float
    psnr_db: float
    pictures: dict[str, str]


@dataclass
class Evidence:
    """Everything the page shows beside the figures.

    Attributes:
        frame_rate: As a fraction in text.
        lead: Row whose worst frames are shown.
        series: Row, region, metric: values over time.
        openings: Row: mouth opening over time, share of the eyes' distance.
        worst: The worst frames, in order of time.
        error_map: Data URI of the leading row's mean error, or None.
    """

    frame_rate: str
    lead: str
    series: dict[str, dict[str, dict[str, Series]]] = field(default_factory=dict)
    openings: dict[str, Series] = field(default_factory=dict)
    worst: list[Moment] = field(default_factory=list)
    error_map: str | None = None

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read what `save` wrote."""
        plain = json.loads(path.read_text(encoding="utf-8"))
        plain["series"] = {
            row: {
                region: {metric: _numbered(values) for metric, values in metrics.items()}
                for region, metrics in regions.items()
            }
            for row, regions in plain["series"].items()
        }
        plain["openings"] = {row: _numbered(values) for row, values in plain["openings"].items()}
        plain["worst"] = [Moment(**moment) for moment in plain["worst"]]
        return cls(**plain)


class Witness:
    """Looks at every measured frame and keeps the pictures worth showing.

    Args:
        lead: Row whose worst frames are kept.
        frame_rate: Frames per second.
        regions: Where the face is; None: the whole frame is pictured.
    """

    def __init__(self, lead: str, frame_rate: Fraction, regions: Regions | None) -> None:
        self.lead = lead
        self.frame_rate = frame_rate
        self.regions = regions
        self._worst: dict[int, tuple[float, int, dict[str, Frame]]] = {}  # by stretch of time
        self._error: NDArray[np.float64] | None = None
        self._seen = 0

    def target(self, index: int, frame: Frame, landmarks: NDArray[np.floating] | None) -> None:
        """The real frame that comes next."""
        self._index = index
        self._box: Box = (slice(None), slice(None))
        self._comparable = self.regions is None
        if self.regions is not None and landmarks is not None:
            self._box, self._comparable = self.regions.face(landmarks), True
        self._pictures = {"real": self._picture(frame)}

    def add(self, row: str, frame: Frame) -> None:
        """The same frame as `row` made it."""
        self._pictures[row] = self._picture(frame)

    def finish_frame(self) -> None:
        """All rows of this frame were added."""
        made, real = self._pictures.get(self.lead), self._pictures["real"]
        if made is None or not self._comparable:
            return
        error = np.abs(made.astype(np.float32) - real)
        mean = error.mean(-1, dtype=np.float64)
        self._error = mean if self._error is None else self._error + mean
        self._seen += 1
        mse = float(np.square(error).mean()) / 255**2
        psnr_db = -10 * np.log10(max(mse, 1e-10))
        stretch = int(self._index / self.frame_rate / STRETCH_S)
        if stretch not in self._worst or psnr_db < self._worst[stretch][0]:
            pictures = {**self._pictures, "error": heat_map(mean)}
            self._worst[stretch] = (float(psnr_db), self._index, pictures)
            finished = [found for found in self._worst if found != stretch]
            if len(finished) > WORST_FRAMES:  # frames come in order: these change no more
                del self._worst[max(finished, key=lambda found: self._worst[found][0])]

    def evidence(self) -> Evidence:
        """What was worth keeping; series and openings are the caller's to fill in."""
        worst = sorted(self._worst.values(), key=lambda found: found[0])[:WORST_FRAMES]
        moments = [
            Moment(
                index,
                round(float(index / self.frame_rate), 3),
                round(psnr_db, 2),
                {name: jpeg_uri(picture) for name, picture in pictures.items()},
            )
            for psnr_db, index, pictures in sorted(worst, key=lambda found: found[1])
        ]
        error_map = None if self._error is None else jpeg_uri(heat_map(self._error / self._seen))
        return Evidence(str(self.frame_rate), self.lead, worst=moments, error_map=error_map)

    def _picture(self, frame: Frame) -> Frame:
        part = frame[self._box]
        scale = PICTURE_PX / min(part.shape[:2])
        if scale >= 1:
            return part.copy()
        size = (round(part.shape[1] * scale), round(part.shape[0] * scale))
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def heat_map(error: NDArray[np.floating]) -> Frame:
    """[H, W] error in grey levels as a picture: black none, yellow-white `FULL_SCALE` and more.

    >>> heat_map(np.array([[0.0, FULL_SCALE]])).sum(-1).tolist()[0][0] < 16
    True
    """
    level = np.clip(np.round(error * (255 / FULL_SCALE)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1])


def openings_over_time(openings: Sequence[float | None], frames: Sequence[int]) -> Series:
    """Mouth opening of each frame that shows a face.

    Args:
        openings: One a frame; None without a face.
        frames: Their numbers.
    """
    return {
        index: round(value, 5)
        for index, value in zip(frames, openings, strict=True)
        if value is not None
    }


def _numbered(values: dict[str, Any]) -> Series:
    return {int(index): float(value) for index, value in values.items()}
