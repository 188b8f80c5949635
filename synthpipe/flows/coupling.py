"""Conditional affine coupling of DeFlow (Wolf et al. 2021, section 3.4; SRFlow's layer run backwards).

Legend: B batch, C channels of the flow, F channels of the conditioning features, H, W size at this level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import FlowLayer

__all__ = ["ConditionalCoupling", "ZeroConv"]


class ZeroConv(nn.Module):
    """3x3 convolution that starts at 0, its output times ``exp(3 * logs)`` (Glow, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` -> ``(B, out, H, W)``."""
        return self.conv(x) * (3 * self.logs).exp()


class _ScaleShiftNet(nn.Module):
    """conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - ZeroConv; gives scale and shift.

    Output channels are interleaved: even ones the shift t, odd ones the raw scale; ``s = sigmoid(raw + 2) + eps``.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int, scale_eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False)
        self.norm1 = ActNorm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.norm2 = ActNorm(hidden)
        self.out = ZeroConv(hidden, 2 * out_channels)
        self.scale_eps = scale_eps
        nn.init.normal_(self.conv1.weight, std=0.05)
        nn.init.normal_(self.conv2.weight, std=0.05)

    def forward(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``(B, in, H, W)`` -> scale s in (eps, 1 + eps) and shift t, each ``(B, out, H, W)`` in ``dtype``."""
        x = self.norm1(self.conv1(x))[0].relu()
        x = self.norm2(self.conv2(x))[0].relu()
        out = self.out(x).to(dtype)
        return torch.sigmoid(out[:, 1::2] + 2) + self.scale_eps, out[:, 0::2]


class ConditionalCoupling(FlowLayer):
    """Two affine maps: the second half given the first half and the features, then all channels given the features.

    forward:  ``z2 = x2 / s1 - t1`` with (s1, t1) = g1([x1, cond]); then ``z = z / s2 - t2`` with (s2, t2) = g2(cond);
    ``log|det J| = -sum(log s1) - sum(log s2)``.  As ``s <= 1 + eps``, the inverse only ever shrinks.

    Args:
        channels: C. The first C // 2 channels pass g1 unchanged.
        cond_channels: F.
        hidden: width of both sub-networks.
        scale_eps: lower end of the scales; 0.001 in the reference. A larger one bounds how much forward amplifies
            (1 / eps per map), which is where the reference meets NaN.
    """

    def __init__(self, channels: int, cond_channels: int, hidden: int, scale_eps: float) -> None:
        super().__init__()
        self.kept = channels // 2
        self.self_net = _ScaleShiftNet(self.kept + cond_channels, channels - self.kept, hidden, scale_eps)
        self.cond_net = _ScaleShiftNet(cond_channels, channels, hidden, scale_eps)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cond = _require(cond)
        x1, x2 = x[:, : self.kept], x[:, self.kept :]
        s1, t1 = self.self_net(torch.cat([x1.to(cond.dtype), cond], dim=1), x.dtype)
        s2, t2 = self.cond_net(cond, x.dtype)
        z = torch.cat([x1, x2 / s1 - t1], dim=1) / s2 - t2
        return z, -self._log_scale(s1, s2)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cond = _require(cond)
        s2, t2 = self.cond_net(cond, z.dtype)
        x = (z + t2) * s2
        x1, z2 = x[:, : self.kept], x[:, self.kept :]
        s1, t1 = self.self_net(torch.cat([x1.to(cond.dtype), cond], dim=1), z.dtype)
        return torch.cat([x1, (z2 + t1) * s1], dim=1), self._log_scale(s1, s2)

    @staticmethod
    def _log_scale(s1: Tensor, s2: Tensor) -> Tensor:
        return s1.log().flatten(1).sum(1) + s2.log().flatten(1).sum(1)


def _require(cond: Tensor | None) -> Tensor:
    if cond is None:
        raise ShapeError("ConditionalCoupling: needs conditioning features (B, F, H, W), got None")
    return cond
