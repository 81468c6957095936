"""`Meter`: every number of one generated frame against the real one, collected by row and region.

It is handed frames and landmarks; where they come from is the caller's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.landmark_points import inter_ocular_px
from talkgs_cli.metrics import image as image_metrics
from talkgs_cli.metrics.intervals import mean_interval
from talkgs_cli.metrics.landmarks import lmd
from talkgs_cli.stages.score_regions import REGIONS, Regions

if TYPE_CHECKING:
    from torch import Tensor

    from talkgs_cli.config import ScoreConfig
    from talkgs_cli.metrics.lpips import LPIPS

METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "lmd_px", "lmd_iod")
LMD_SIDE_PX = 512  # lmd_px is stated as if the region's shorter side had this many pixels
MOUTH_LPIPS_SIZE = (104, 128)
LPIPS_MIN_PX = 64

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]
Landmarks = NDArray[np.floating]
Key = tuple[str, str, str]  # row, region, metric


class Meter:
    """Measures the rows of one frame after the other.

    Args:
        config: What to measure.
        regions: Which pixels, or None when no face was found: then only the full frame.
        frame_size: (height, width).
    """

    def __init__(
        self, config: ScoreConfig, regions: Regions | None, frame_size: tuple[int, int]
    ) -> None:
        from talkgs_cli.metrics.lpips import LPIPS

        self.config = config
        self.regions = regions
        self.frame_size = frame_size
        self.networks: dict[str, LPIPS] = {"alex": LPIPS("alex")}
        if config.vgg_everywhere or regions is not None:
            self.networks["vgg"] = LPIPS("vgg")
        self._values: dict[Key, dict[int, float]] = defaultdict(dict)
        self._shares: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._eyes_px: list[float] = []
        self._count = -1
        # Perceptual distances run beside everything else, in one thread: they share features.
        self._worker = ThreadPoolExecutor(1, initializer=_use_one_thread)
        self._pending: list[tuple[Key, Future[float]]] = []

    def target(self, index: int, frame: Frame, landmarks: Landmarks | None) -> None:
        """Set the real frame that the following calls are compared with.

        Args:
            index: Its number in the clip.
            frame: [H, W, 3].
            landmarks: [478, 2 or 3] face in the real frame: places the regions.
        """
        self._collect()
        self._count += 1
        self._index = index
        self._frame = _floats(frame)
        self._landmarks = landmarks
        self._features: dict[tuple[str, str], list[Tensor]] = {}
        if landmarks is not None and self.regions is not None:
            self._face = self.regions.face(landmarks)
            self._mouth = self.regions.mouth(landmarks)
            self._oval = self.regions.oval(landmarks)
            self._eyes_px.append(float(inter_ocular_px(landmarks)))

    def add(self, row: str, frame: Frame, true_share: Floats | float | None) -> None:
        """Measure one generated frame.

        Args:
            row: Name of the row.
            frame: [H, W, 3].
            true_share: How much of each pixel comes from the real frame: [H, W], or one number.
        """
        whole = _floats(frame)
        self._put(row, "full", "psnr", image_metrics.psnr(whole, self._frame))
        self._put(row, "full", "ssim", image_metrics.ssim(whole, self._frame))
        self._perceptual(row, "full", whole, self._frame)
        if self._has_face:
            self._add_face(row, np.ascontiguousarray(whole[self._face]))
        if true_share is not None:
            share = np.broadcast_to(np.asarray(true_share, np.float32), self.frame_size)
            self._add_share(row, share)

    def add_lips(self, row: str, found: Landmarks | None, real: Landmarks | None) -> None:
        """Measure the landmark distance of a frame; nothing is noted where a face is missing.

        Args:
            row: Name of the row.
            found: [20, 2] lip points of the generated frame.
            real: [20, 2] lip points of the real one, by the same detector.
        """
        if found is None or real is None:
            return
        (distance_px,) = lmd(found[None], real[None])
        self._put(row, "full", "lmd_px", distance_px * LMD_SIDE_PX / min(self.frame_size))
        if self.regions is not None:
            self._put(row, "face", "lmd_px", distance_px * LMD_SIDE_PX / self.regions.face_side)
        for region in ("full", "face"):
            self._put(row, region, "lmd_iod", float(distance_px))

    def add_real(self) -> None:
        """The real frame against itself: no error, no finite PSNR, true pixels throughout."""
        regions = REGIONS if self._has_face else ("full",)
        for region in regions:
            self._shares["real", region].append(1.0)
            self._put("real", region, "ssim", 1.0)
            for net in self.networks:
                if region != "mask" and self._wants(net, region):
                    self._put("real", region, f"lpips_{net}", 0.0)

    def results(self, rows: tuple[str, ...]) -> dict[str, dict[str, dict[str, Any]]]:
        """Row, region, metric: {mean, low, high}, or None for what was not measured."""
        self._collect()
        return {
            row: {
                region: {metric: self._summary(row, region, metric) for metric in METRICS}
                for region in REGIONS
            }
            for row in rows
        }

    def series(self, rows: tuple[str, ...]) -> dict[str, dict[str, dict[str, dict[int, float]]]]:
        """Row, region, metric: frame number to value; what was not measured is left out."""
        self._collect()
        found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
        for row, region, metric in self._values:
            if row in rows:
                values = self._in_unit(row, region, metric)
                found.setdefault(row, {}).setdefault(region, {})[metric] = values
        return found

    def shares(self, rows: tuple[str, ...]) -> dict[str, dict[str, float | None]]:
        """Row, region: mean share of pixels that come from the real frame."""
        return {
            row: {
                region: round(float(np.mean(found)), 4)
                if (found := self._shares.get((row, region)))
                else None
                for region in REGIONS
            }
            for row in rows
        }

    # -- parts -----------------------------------------------------------------------------------

    @property
    def _has_face(self) -> bool:
        return self._landmarks is not None and self.regions is not None

    def _add_face(self, row: str, face: Floats) -> None:
        target = np.ascontiguousarray(self._frame[self._face])
        similarity = image_metrics.ssim_map(face, target)
        self._put(row, "face", "psnr", image_metrics.psnr(face, target))
        self._put(row, "face", "ssim", float(similarity.mean(dtype=np.float64)))
        self._perceptual(row, "face", face, target)
        self._put(row, "mask", "psnr", image_metrics.masked_psnr(face, target, self._oval))
        self._put(row, "mask", "ssim", image_metrics.masked_ssim(similarity, self._oval))
        mouth = self._mouth
        self._put(row, "mouth", "psnr", image_metrics.psnr(face[mouth], target[mouth]))
        self._put(row, "mouth", "ssim", float(similarity[mouth].mean(dtype=np.float64)))
        self._perceptual(row, "mouth", face[mouth], target[mouth])

    def _add_share(self, row: str, share: Floats) -> None:
        self._shares[row, "full"].append(float(share.mean()))
        if self._has_face:
            face = share[self._face]
            self._shares[row, "face"].append(float(face.mean()))
            self._shares[row, "mouth"].append(float(face[self._mouth].mean()))
            if self._oval.any():
                self._shares[row, "mask"].append(float(face[self._oval].mean()))

    def _wants(self, net: str, region: str) -> bool:
        if net == "alex":
            return True
        here = region == "mouth" or self.config.vgg_everywhere
        return here and self._count % self.config.vgg_every == 0

    def _perceptual(self, row: str, region: str, image: Floats, target: Floats) -> None:
        for net in self.networks:
            if self._wants(net, region):
                future = self._worker.submit(self._distance, net, region, image, target)
                self._pending.append(((row, region, f"lpips_{net}"), future))

    def _distance(self, net: str, region: str, image: Floats, target: Floats) -> float:
        import torch

        network = self.networks[net]
        with torch.inference_mode():
            if (net, region) not in self._features:
                self._features[net, region] = network.features_of(self._batch(target, region))
            found = network.features_of(self._batch(image, region))
            return float(network.distance(found, self._features[net, region]))

    def _collect(self) -> None:
        """Wait for the distances of the last frame."""
        for key, future in self._pending:
            self._put(*key, future.result())
        self._pending.clear()

    def _batch(self, image: Floats, region: str) -> Tensor:
        """[1, 3, h, w] at the size LPIPS sees."""
        import cv2
        import torch

        height, width = image.shape[:2]
        size, how = (height, width), cv2.INTER_CUBIC
        if region == "mouth":
            size = MOUTH_LPIPS_SIZE
        elif min(size) > self.config.lpips_short_side:
            scale, how = self.config.lpips_short_side / min(size), cv2.INTER_AREA
            size = (round(height * scale), round(width * scale))
        elif min(size) < LPIPS_MIN_PX:
            scale = LPIPS_MIN_PX / min(size)
            size = (round(height * scale), round(width * scale))
        if size != (height, width):
            image = np.clip(cv2.resize(image, size[::-1], interpolation=how), 0, 1)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]

    def _put(self, row: str, region: str, metric: str, value: float | None) -> None:
        if value is not None:
            self._values[row, region, metric][self._index] = float(value)

    def _in_unit(self, row: str, region: str, metric: str) -> dict[int, float]:
        values = self._values.get((row, region, metric), {})
        unit = float(np.mean(self._eyes_px)) if metric == "lmd_iod" and values else 1.0
        return {index: value / unit for index, value in values.items()}

    def _summary(self, row: str, region: str, metric: str) -> dict[str, float] | None:
        found = mean_interval(list(self._in_unit(row, region, metric).values()))
        return None if found is None else {k: round(v, 5) for k, v in found.items()}


def _floats(frame: Frame) -> Floats:
    return np.multiply(frame, np.float32(1 / 255), dtype=np.float32)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for torch: on these small images more only wait for each other.

    Two threads on two busy cores took six times as long as one.
    """
    import torch

    before = torch.get_num_threads()
    _use_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)
