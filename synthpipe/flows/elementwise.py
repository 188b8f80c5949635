"""Maps of single values: the logit of image values, and the tails of latents."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.flows.base import FlowLayer

__all__ = ["LogitMap", "TailMap"]


class LogitMap(FlowLayer):
    """``z = logit(0.05 + 0.9 y)``, ``y = (255 x + 0.5) / 256``: values in [0, 1] to the whole line (RealNVP, Glow).

    Half a level of dequantisation noise on either side of an 8-bit x keeps y within [0, 1].  Beyond, z goes on as a
    straight line, so that the map is defined, smooth to first order and invertible everywhere.
    """

    _LOW = 0.05
    _GAIN = 0.9
    _EDGE = math.log((1 - _LOW) / _LOW)
    _SLOPE = _GAIN / (_LOW * (1 - _LOW))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values ``(B, C, H, W)`` in [0, 1], or beyond -> logits, and ``log|det|`` ``(B,)`` in nats."""
        y = (255 * x + 0.5) / 256
        inside = y.clamp(0, 1)
        p = self._LOW + self._GAIN * inside
        return torch.logit(p) + self._SLOPE * (y - inside), self._logdet(p)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits ``(B, C, H, W)`` -> values, and the log-determinant ``(B,)`` of this direction."""
        inside = z.clamp(-self._EDGE, self._EDGE)
        p = torch.sigmoid(inside)
        y = (p - self._LOW) / self._GAIN + (z - inside) / self._SLOPE
        return (256 * y - 0.5) / 255, -self._logdet(p)

    def _logdet(self, p: Tensor) -> Tensor:
        return (math.log(255 / 256 * self._GAIN) - p.log() - (-p).log1p()).flatten(1).sum(1)


class TailMap(FlowLayer):
    """``z = sinh(d * asinh(x / b))`` per channel (Jones & Pewsey 2009, without skew), at the start the identity.

    With z standard normal, x has tails as ``exp(-|x| ** (2 d) / 2)``: d = 1 is a normal law, d near 0.5 the long tails
    of fine image detail.

    Args:
        channels: number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Long-tailed latents ``(B, C, H, W)`` -> about normal ones, and ``log|det|`` ``(B,)`` in nats."""
        x = x * (-self.logs.to(x.dtype)).exp()
        inner = self._power(x) * x.asinh()
        return inner.sinh(), self._logdet(x, inner)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """About normal latents -> long-tailed ones, and the log-determinant ``(B,)`` of this direction."""
        inner = z.asinh()
        x = (inner / self._power(z)).sinh()
        return x * self.logs.to(z.dtype).exp(), -self._logdet(x, inner)

    def _power(self, like: Tensor) -> Tensor:
        # From 0.25, below which no law has a use, with no upper end; 1 at the start.
        return 0.25 + F.softplus(self.raw.to(like.dtype) + math.log(math.expm1(0.75)))

    def _logdet(self, x: Tensor, inner: Tensor) -> Tensor:
        stretch = self._power(x).log() - self.logs.to(x.dtype)
        return (stretch + _log_cosh(inner) - 0.5 * x.square().log1p()).flatten(1).sum(1)


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)
