"""The two networks that turn sound into lips: a small one of convolutions, and the paper's.

Both see [B, K, n] components at 50 Hz, give [B, Z, n], and look a fixed reach to either side, so
that a piece of a recording with that much around it comes out as the whole would.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkgs_cli.errors import BadInput

ARCHITECTURES = ("conv", "paper")


class ConvNetwork(nn.Module):
    """Residual dilated convolutions, 7 samples to each side."""

    DILATIONS = (1, 2, 4)
    reach = sum(DILATIONS)

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.enter = nn.Conv1d(inputs, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GELU(),
                nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Conv1d(width, width, 1),
            )
            for dilation in self.DILATIONS
        )
        self.leave = nn.Conv1d(width, outputs, 1)

    def latent(self, components: Tensor) -> Tensor:
        """[B, K, n] to [B, width, n]: what is said, before it is made into lips."""
        hidden = self.enter(self.drop(components))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return F.gelu(hidden)

    def from_latent(self, latent: Tensor) -> Tensor:
        """[B, width, n] to [B, Z, n]."""
        out: Tensor = self.leave(latent)
        return out

    def forward(self, components: Tensor) -> Tensor:
        """[B, K, n] to [B, Z, n]."""
        return self.from_latent(self.latent(components))


class PaperNetwork(nn.Module):
    """The paper's translator: 4 encoder layers, 1 decoder layer that knows who speaks, an MLP.

    Supplement A: model 512, inner 1024, 4 heads, 3 hidden layers of 512. Our reading: attention is
    limited to 0.3 s to each side and falls with distance (instead of a position code), so that
    nothing depends on where a recording is cut.
    """

    SIZE, INNER, HEADS, LAYERS = 512, 1024, 4, 4
    SPAN = 15  # samples of attention to each side
    SLOPE = 0.1  # of the attention's logits per sample of distance
    reach = SPAN * (LAYERS + 2)

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        size = self.SIZE
        self.enter = nn.Linear(inputs, size)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                size, self.HEADS, self.INNER, dropout, batch_first=True, norm_first=True
            ),
            self.LAYERS,
            enable_nested_tensor=False,
        )
        self.identity = nn.Parameter(torch.zeros(size))
        self.decoder = nn.TransformerDecoderLayer(
            size, self.HEADS, self.INNER, dropout, batch_first=True, norm_first=True
        )
        self.mlp = nn.Sequential(
            nn.Linear(size, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)
        )
        self.leave = nn.Conv1d(512, outputs, 1)

    def latent(self, components: Tensor) -> Tensor:
        """[B, K, n] to [B, 512, n]: the encoder's states."""
        hidden = self.enter(components.transpose(1, 2))
        states: Tensor = self.encoder(hidden, mask=self._mask(hidden))
        return states.transpose(1, 2)

    def from_latent(self, latent: Tensor) -> Tensor:
        """[B, 512, n] to [B, Z, n]."""
        states = latent.transpose(1, 2)
        mask = self._mask(states)
        decoded = self.decoder(states + self.identity, states, tgt_mask=mask, memory_mask=mask)
        out: Tensor = self.leave(F.relu(self.mlp(decoded)).transpose(1, 2))
        return out

    def forward(self, components: Tensor) -> Tensor:
        """[B, K, n] to [B, Z, n]."""
        return self.from_latent(self.latent(components))

    def _mask(self, states: Tensor) -> Tensor:
        """[n, n] added to the attention's logits."""
        place = torch.arange(states.shape[1], device=states.device)
        distance = (place[:, None] - place).abs()
        mask = -self.SLOPE * distance.to(states.dtype)
        return mask.masked_fill(distance > self.SPAN, float("-inf"))


MouthNetwork = ConvNetwork | PaperNetwork


def build_network(
    architecture: str, inputs: int, outputs: int, width: int, dropout: float = 0.0
) -> MouthNetwork:
    """A network of that name with fresh weights.

    Raises:
        BadInput: an unknown name.
    """
    if architecture == "conv":
        return ConvNetwork(inputs, outputs, width, dropout)
    if architecture == "paper":
        return PaperNetwork(inputs, outputs, width, dropout)
    raise BadInput(
        f"There is no architecture {architecture!r}.", hint=f"Known: {', '.join(ARCHITECTURES)}"
    )


def run_in_pieces(
    network: Callable[[Tensor], Tensor], components: Tensor, margin: int, piece: int
) -> Tensor:
    """Run a model of time over [n, K] components in constant memory; [n, Z].

    Args:
        network: [1, K, m] to [1, Z, m], looking at most `margin` to either side.
        components: [n, K]; what lies beyond its ends is taken to be as the ends.
        margin: Samples.
        piece: Samples at a time.
    """
    padded = F.pad(components.T[None], (margin, margin), mode="replicate")  # [1, K, n + 2 margin]
    pieces = []
    for start in range(0, len(components), piece):
        stop = min(start + piece, len(components))
        out = network(padded[..., start : stop + 2 * margin])
        pieces.append(out[..., margin : margin + stop - start])
    return torch.cat(pieces, dim=-1)[0].T
