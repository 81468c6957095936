"""68 face points by FAN, a second opinion beside the 478 of the landmarker, where its weights are.

The weights may not be passed on and are never downloaded: a file of your own in torch's hub folder
is used, or nothing. It finds no faces: the landmarker says where to look.

Source: A. Bulat, G. Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment
problem?", ICCV 2017; regions and heatmaps as in the package face-alignment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkgs_cli.errors import BadInput, MachineLacks
from talkgs_cli.landmark_points import OVAL
from talkgs_cli.runtime import file_sha256

Heatmaps = Callable[[Tensor], "Tensor | Sequence[Tensor]"]

POINTS = 68
INPUT_SIZE = 256
# The network was trained on squares 200 / 195 of (width + height) of the box around its points,
# whose middle lies 12 % of the height above the box's.
SIDE_PER_BOX, RAISED = 200 / 195, 0.12
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)  # of the 478: the upper end of the 68
# fmt: off
MIRRORED = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)
"""Which point each of the 68 becomes in a mirrored picture."""
# fmt: on
LIPS = slice(48, 68)
"""The lips among the 68, in the order of `metrics.landmarks.LIPS_68`."""

_NAME = re.compile(r"2DFAN4-([0-9a-f]{8,64})\.(zip|pth\.tar)")


class Fan:
    """Finds the 68 points of a face.

    Args:
        network: [B, 3, 256, 256] RGB in 0..1 to [B, 68, h, w] heatmaps, or a list of which the
            last counts.
    """

    def __init__(self, network: Heatmaps) -> None:
        self._network = network

    @torch.no_grad()
    def detect(
        self, frame: NDArray[np.uint8], face: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """The points of one face: [68, 2] pixels, centres at +0.5.

        Args:
            frame: [H, W, 3] uint8 RGB.
            face: [478, 2 or 3] the landmarker's points, which say where to look; without them the
                frame must be a crop of the face, from brows to chin in its middle.
        """
        corner, side = _region(face) if face is not None else _whole(frame)
        patch = torch.from_numpy(_cut(frame, corner, side)).permute(2, 0, 1)[None]
        heat = self._heat(patch)  # [68, h, w]
        mirrored = self._heat(patch.flip(-1))[list(MIRRORED)].flip(-1)
        return (corner + peaks(heat + mirrored) * side).astype(np.float32)

    def _heat(self, patch: Tensor) -> Tensor:
        found = self._network(patch)
        return (found if isinstance(found, Tensor) else found[-1])[0].float()


def peaks(heat: Tensor) -> NDArray[np.float64]:
    """Where [K, h, w] heatmaps are highest: [K, 2] x, y as shares of their size.

    A quarter of a cell towards the higher neighbour, as the network's authors read it.

    >>> heat = torch.zeros(1, 4, 4)
    >>> heat[0, 1, 2], heat[0, 1, 3] = 1.0, 0.5
    >>> peaks(heat)  # cell (2, 1), its middle, and a quarter towards the right
    array([[0.6875, 0.375 ]])
    """
    count, height, width = heat.shape
    best = heat.flatten(1).argmax(1)
    row, column = best // width, best % width
    padded = torch.nn.functional.pad(heat[None], (1, 1, 1, 1), mode="replicate")[0]
    each = torch.arange(count)
    across = padded[each, row + 1, column + 2] - padded[each, row + 1, column]
    down = padded[each, row + 2, column + 1] - padded[each, row, column + 1]
    x = (column + 0.5 + 0.25 * across.sign()) / width
    y = (row + 0.5 + 0.25 * down.sign()) / height
    return torch.stack([x, y], dim=1).double().numpy()


def _region(face: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Corner [2] and side of the square the network wants, pixels."""
    outline = face[[*OVAL, *BROWS], :2].astype(np.float64)
    top = face[list(BROWS), 1].min()
    left, right, bottom = outline[:, 0].min(), outline[:, 0].max(), outline[:, 1].max()
    side = SIDE_PER_BOX * float(right - left + bottom - top)
    middle = np.array([(left + right) / 2, (top + bottom) / 2 - RAISED * (bottom - top)])
    return middle - side / 2, side


def _whole(frame: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    height, width = frame.shape[:2]
    side = float(max(height, width))
    return np.array([(width - side) / 2, (height - side) / 2]), side


def _cut(frame: NDArray[np.uint8], corner: NDArray[np.float64], side: float) -> NDArray[np.float32]:
    """[256, 256, 3] of a square of the frame in 0..1; cv2 counts pixel centres at whole numbers."""
    scale = side / INPUT_SIZE
    shift = corner + scale / 2 - 0.5
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    smooth = cv2.GaussianBlur(frame, (0, 0), 0.4 * scale) if scale > 1.5 else frame
    patch = cv2.warpAffine(
        smooth, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return np.asarray(patch / 255, np.float32)


# -- weights ---------------------------------------------------------------------------------------


def weights_folder() -> Path:
    """Where the package face-alignment keeps its weights: $TORCH_HOME/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights() -> Path | None:
    """The user's own file of FAN weights, or None."""
    folder = weights_folder()
    if not folder.is_dir():
        return None
    # TorchScript (.zip) first: it needs no package.
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return min(found, key=lambda path: (path.suffix != ".zip", path.name), default=None)


def load_fan(path: Path) -> Fan:
    """FAN from a file of weights, checked against the hash in its name.

    Args:
        path: `2DFAN4-HASH.zip` (TorchScript), or `2DFAN4-HASH.pth.tar`, for which the package
            face-alignment must be installed.

    Raises:
        BadInput: not the file its name says.
        MachineLacks: face-alignment is needed and not there.
    """
    name = _NAME.fullmatch(path.name)
    digest = file_sha256(path)
    if name is None or not digest.startswith(name[1]):
        raise BadInput(
            f"{path} is not what its name says: SHA-256 {digest[:12]}.",
            hint="Remove it, or get it again with the package face-alignment.",
        )
    try:
        return Fan(_script(path) if name[2] == "zip" else _state(path))
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} can't be read as FAN: {str(error).splitlines()[0]}.",
            hint="Get it again with the package face-alignment.",
        ) from error


def _script(path: Path) -> Heatmaps:
    network: Heatmaps = torch.jit.load(str(path), map_location="cpu").eval()
    return network


def _state(path: Path) -> Heatmaps:
    try:
        from face_alignment.models import FAN
    except ImportError as error:
        raise MachineLacks(
            f"{path} needs the package face-alignment.", hint="pip install 'talkgs[fan]'"
        ) from error
    network = FAN(4)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    evaluated: Heatmaps = network.eval()
    return evaluated
