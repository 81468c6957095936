"""SyncNet: do these lips say this sound? Only with weights of the user's own; none are fetched.

Source: Chung & Zisserman, Out of time: automated lip sync in the wild, ACCV workshops 2016; layer
sizes and names of its published network, so that files of its weights fit.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from talkgs_cli.errors import BadInput

FRAMES, FACE_PX = 5, 224  # of video in one look
AUDIO_STEPS = 20  # of sound in one look: 0.2 s
EMBEDDING = 1024


@dataclass(frozen=True)
class _Layer:
    """A convolution, normalised and rectified, and the pooling after it; sizes as torch orders."""

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...] | int = 1
    padding: tuple[int, ...] | int = 0
    pool: tuple[int, ...] | None = None
    pool_stride: tuple[int, ...] | None = None
    pool_padding: tuple[int, ...] | int = 0


_SOUND = (  # over [cepstra, time]
    _Layer(64, (3, 3), padding=1, pool=(1, 1), pool_stride=(1, 1)),
    _Layer(192, (3, 3), padding=1, pool=(3, 3), pool_stride=(1, 2)),
    _Layer(384, (3, 3), padding=1),
    _Layer(256, (3, 3), padding=1),
    _Layer(256, (3, 3), padding=1, pool=(3, 3), pool_stride=(2, 2)),
    _Layer(512, (5, 4)),
)
_HALVED: tuple[int, ...] = (1, 2, 2)
_LIPS = (  # over [time, height, width]
    _Layer(96, (5, 7, 7), _HALVED, 0, (1, 3, 3), _HALVED),
    _Layer(256, (1, 5, 5), _HALVED, (0, 1, 1), (1, 3, 3), _HALVED, (0, 1, 1)),
    _Layer(256, (1, 3, 3), padding=(0, 1, 1)),
    _Layer(256, (1, 3, 3), padding=(0, 1, 1)),
    _Layer(256, (1, 3, 3), 1, (0, 1, 1), (1, 3, 3), _HALVED),
    _Layer(512, (1, 6, 6)),
)


class SyncNet(nn.Module):
    """Two networks that put lips and the sound they say near to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _convolutions(1, _SOUND)
        self.netfcaud = _head()
        self.netcnnlip = _convolutions(3, _LIPS)
        self.netfclip = _head()

    def sound(self, cepstra: Tensor) -> Tensor:
        """Embed pieces of sound.

        Args:
            cepstra: [B, 1, 13, 20] from `mfcc`.

        Returns:
            [B, 1024].
        """
        embedded: Tensor = self.netfcaud(self.netcnnaud(cepstra).flatten(1))
        return embedded

    def lips(self, faces: Tensor) -> Tensor:
        """Embed pieces of video.

        Args:
            faces: [B, 3, 5, 224, 224] blue, green, red in 0..255: faces, not mouths alone.

        Returns:
            [B, 1024].
        """
        embedded: Tensor = self.netfclip(self.netcnnlip(faces).flatten(1))
        return embedded


def _convolutions(channels: int, layers: Sequence[_Layer]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in layers:
        flat = len(layer.kernel) == 2
        convolution, norm, pool = (
            (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
            if flat
            else (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)
        )
        parts.append(
            convolution(channels, layer.channels, layer.kernel, layer.stride, layer.padding)  # type: ignore[arg-type]
        )
        parts += [norm(layer.channels), nn.ReLU()]
        if layer.pool is not None:
            parts.append(pool(layer.pool, layer.pool_stride, layer.pool_padding))
        channels = layer.channels
    return nn.Sequential(*parts)


def _head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING)
    )


def load_syncnet(path: Path) -> SyncNet:
    """The network with the user's weights; nothing in the file is run.

    Args:
        path: State dict saved by torch (`.model`, `.pt`, `.pth`), or `.safetensors`.

    Raises:
        BadInput: no such file, or other weights.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}.", hint="Give your own file of SyncNet weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network = SyncNet()
        counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
        found = network.load_state_dict(state, strict=False)
    except (RuntimeError, pickle.UnpicklingError, ValueError, TypeError, EOFError) as error:
        raise BadInput(
            f"{path} can't be read as SyncNet's weights: {str(error).splitlines()[0]}",
            hint="It must be a plain state dict of the published network.",
        ) from error
    except Exception as error:
        from safetensors import SafetensorError

        if not isinstance(error, SafetensorError):
            raise
        raise BadInput(f"{path} is no safetensors file: {error}.") from error
    missing = set(found.missing_keys) - counters
    if missing or found.unexpected_keys:
        odd = next(iter([*sorted(missing), *found.unexpected_keys]))
        raise BadInput(
            f"{path} holds other weights than SyncNet's: {len(missing)} are missing, "
            f"{len(found.unexpected_keys)} are unknown, such as {odd}.",
            hint="It must be a plain state dict of the published network.",
        )
    return network.eval()
