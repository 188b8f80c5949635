"""Squeeze, and the split that factors half of the channels out (RealNVP, Dinh et al. 2017; Glow, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.base import FlowLayer
from synthpipe.flows.coupling import ZeroConv

__all__ = ["SplitPrior", "Squeeze"]


class Squeeze(FlowLayer):
    """2x2 blocks to channels: output channel ``4 * c + 2 * row + column``. The log-determinant is 0.

    Shapes: ``(B, C, H, W)`` <-> ``(B, 4 C, H / 2, W / 2)``.
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` -> ``(B, 4 C, H / 2, W / 2)``, and zeros ``(B,)``.

        Raises:
            ShapeError: odd sides.
        """
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ShapeError(
                f"Squeeze: height and width must be even, got {x.shape[2]}x{x.shape[3]}; "
                "pad the image to a multiple of 2 ** levels first (images.pad_to_multiple)"
            )
        return F.pixel_unshuffle(x, 2), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, 4 C, H, W)`` -> ``(B, C, 2 H, 2 W)``, and zeros ``(B,)``."""
        return F.pixel_shuffle(z, 2), z.new_zeros(z.shape[0])


class SplitPrior(nn.Module):
    """Keep the first half of the channels; standardise the rest by a prior predicted from the kept half.

    ``eps = (z2 - mean(z1)) / exp(logs(z1))``, ``log|det J| = -sum(logs)``.  (The reference adds 1e-6 to the
    divisor in one direction only; without it both directions agree exactly.)

    Args:
        channels: number of channels C that come in; C // 2 are kept.
        additive: predict the mean only, ``logs = 0``; see :class:`ConditionalCoupling`.
    """

    def __init__(self, channels: int, additive: bool = False) -> None:
        super().__init__()
        self.kept = channels // 2
        self.additive = additive
        rest = channels - self.kept
        self.net = ZeroConv(self.kept, rest if additive else 2 * rest)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, C, H, W)`` -> kept ``(B, C // 2, H, W)``, eps ``(B, C - C // 2, H, W)``, logdet ``(B,)``."""
        kept, rest = x[:, : self.kept], x[:, self.kept :]
        mean, logs = self._prior(kept)
        return kept, (rest - mean) * (-logs).exp(), -logs.flatten(1).sum(1)

    def inverse(self, kept: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Kept channels and eps back to ``(B, C, H, W)``, with the log-determinant ``(B,)`` of this direction."""
        mean, logs = self._prior(kept)
        rest = eps * logs.exp() + mean
        return torch.cat([kept, rest], dim=1), logs.flatten(1).sum(1)

    def _prior(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(kept).to(kept.dtype)
        if self.additive:
            return out, torch.zeros_like(out)
        return out[:, 0::2], out[:, 1::2]  # cross split: even channels are means, odd ones log-scales
