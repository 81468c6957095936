"""What `rasterize` asks of a backend, in one object, and the checks that all backends share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from talkgs_cli.errors import BadInput, UsageError

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `rasterize`; a backend gets them checked."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4]
    scales: Tensor  # [N, 3]
    opacities: Tensor  # [N]
    colors: Tensor  # [N, K, 3] or [N, D]
    viewmats: Tensor  # [C, 4, 4]
    Ks: Tensor  # [C, 3, 3]
    width: int
    height: int
    sh_degree: int | None
    backgrounds: Tensor | None  # [C, D]
    near_plane: float
    far_plane: float
    eps2d: float
    render_mode: RenderMode
    rasterize_mode: RasterizeMode
    absgrad: bool

    @property
    def features(self) -> int:
        """D: how many numbers besides depth a Gaussian carries."""
        return 3 if self.sh_degree is not None else self.colors.shape[1]

    @property
    def draws_color(self) -> bool:
        """Whether the image's first channels are the features."""
        return "RGB" in self.render_mode

    @property
    def draws_depth(self) -> bool:
        """Whether the image's last channel is depth."""
        return "D" in self.render_mode

    @property
    def channels(self) -> int:
        """X: channels of the image."""
        return (self.features if self.draws_color else 0) + (1 if self.draws_depth else 0)

    @property
    def antialiased(self) -> bool:
        """Whether opacity makes up for eps2d."""
        return self.rasterize_mode == "antialiased"

    def full_backgrounds(self) -> Tensor:
        """[C, X] background of every channel; depth lies on zero."""
        cameras = len(self.viewmats)
        if not self.draws_color or self.backgrounds is None:
            return self.means.new_zeros(cameras, self.channels)
        if not self.draws_depth:
            return self.backgrounds
        return torch.cat([self.backgrounds, self.means.new_zeros(cameras, 1)], dim=1)

    def check(self) -> None:
        """Raise `UsageError` for arguments that don't fit, `BadInput` for NaN and infinity."""
        if self.render_mode not in get_args(RenderMode):
            raise UsageError(
                f"No render_mode {self.render_mode!r}.",
                hint=f"Known: {', '.join(get_args(RenderMode))}.",
            )
        if self.rasterize_mode not in get_args(RasterizeMode):
            raise UsageError(
                f"No rasterize_mode {self.rasterize_mode!r}.",
                hint=f"Known: {', '.join(get_args(RasterizeMode))}.",
            )
        if self.width < 1 or self.height < 1:
            raise UsageError(f"An image of {self.width} by {self.height} pixels can't be drawn.")
        if not 0 < self.near_plane < self.far_plane:
            raise UsageError(
                f"near_plane is {self.near_plane:g} and far_plane {self.far_plane:g}, "
                "not 0 < near < far."
            )
        self._check_shapes()
        self._check_finite()

    def _check_shapes(self) -> None:
        count, cameras = len(self.means), len(self.viewmats)
        _check_shape("means", self.means, (count, 3))
        _check_shape("quats", self.quats, (count, 4))
        _check_shape("scales", self.scales, (count, 3))
        _check_shape("opacities", self.opacities, (count,))
        _check_shape("viewmats", self.viewmats, (cameras, 4, 4))
        _check_shape("Ks", self.Ks, (cameras, 3, 3))
        if self.sh_degree is None:
            _check_shape("colors", self.colors, (count, *self.colors.shape[1:2]))
        else:
            _check_shape("colors", self.colors, (count, *self.colors.shape[1:2], 3))
            if not 0 <= self.sh_degree <= 3:
                raise UsageError(f"sh_degree is {self.sh_degree}, not 0 to 3.")
            needed = (self.sh_degree + 1) ** 2
            if self.colors.shape[1] < needed:
                raise UsageError(
                    f"sh_degree {self.sh_degree} needs {needed} coefficients, "
                    f"colors have {self.colors.shape[1]}."
                )
        if self.backgrounds is not None and self.draws_color:
            _check_shape("backgrounds", self.backgrounds, (cameras, self.features))

    def _check_finite(self) -> None:
        for name in ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks"):
            tensor: Tensor = getattr(self, name).detach()
            # a NaN or infinity makes the sum one too: search only then
            if not math.isfinite(tensor.sum().item()):
                bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1)
                if bool(bad.any()):
                    index = int(bad.nonzero()[0])
                    what = "camera" if name in ("viewmats", "Ks") else "Gaussian"
                    raise BadInput(
                        f"{name} of {what} {index} is not a finite number.",
                        hint="A fit that diverges does this: lower the learning rate.",
                    )


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise UsageError(f"{name} has shape {list(tensor.shape)}, not {list(shape)}.")
