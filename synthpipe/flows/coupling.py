"""Affine couplings: Glow's (Kingma & Dhariwal 2018, section 3.3) and the conditional one of DeFlow.

The latter is of Wolf et al. 2021, section 3.4 (SRFlow's layer run backwards).  Both have the same sub-networks.

Legend: B batch, C channels of the flow, F channels of the conditioning features, H, W size at this level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import Checkpointed, FlowLayer

__all__ = ["AffineCoupling", "ColourNet", "ConditionalCoupling", "SubNet", "ZeroConv"]


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
        out: Tensor = self.conv(x) * (3 * self.logs).exp()
        return out


class ColourNet(nn.Module):
    """1x1 convolutions of the first three channels of the features, the reduced image's colour; starts at 0.

    Args:
        out_channels: of the result.
        hidden: width.
        beside: further numbers of each image that it follows, the same at all positions.
    """

    def __init__(self, out_channels: int, hidden: int = 16, beside: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3 + beside, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, cond: Tensor, numbers: Tensor | None = None) -> Tensor:
        """``(B, 3 + F, H, W)``, and the images' ``numbers`` ``(B, beside)``, -> ``(B, out, H, W)``."""
        given = cond[:, :3]
        if numbers is not None:
            maps = numbers.to(given.dtype)[:, :, None, None].expand(-1, -1, *given.shape[2:])
            given = torch.cat([given, maps], dim=1)
        out: Tensor = self.conv2(self.conv1(given).relu())
        return out


class SubNet(Checkpointed):
    """conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - ZeroConv.

    Checkpointed, it keeps what its first convolution gave, which is nine tenths of the operations; where that sees one
    map alone, which is kept anyway, only that.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False)
        self.norm1 = ActNorm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.norm2 = ActNorm(hidden)
        self.out = ZeroConv(hidden, out_channels)
        nn.init.normal_(self.conv1.weight, std=0.05)
        nn.init.normal_(self.conv2.weight, std=0.05)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps ``(B, c, H, W)`` of ``in`` channels together -> ``(B, out, H, W)``."""
        if len(maps) == 1:
            return self._computed(self._whole, *maps)
        return self._computed(self._rest, self._computed(self._first, *maps))

    def _whole(self, *maps: Tensor) -> Tensor:
        return self._rest(self._first(*maps))

    def _first(self, *maps: Tensor) -> Tensor:
        first: Tensor = self.conv1(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])
        return first

    def _rest(self, x: Tensor) -> Tensor:
        x = self.norm1(x)[0].relu()
        x = self.norm2(self.conv2(x))[0].relu()
        out: Tensor = self.out(x)
        return out


class AffineCoupling(FlowLayer):
    """``z1 = exp(s) * (x1 + t)`` with ``(s, t)`` a function of the second half, which passes unchanged.

    ``s = scale * tanh(raw)`` with a learned scale for each channel that starts at 1: ``|s|`` is bounded by it, so one
    coupling amplifies neither direction by more than ``exp(|scale|)``.  ``log|det J| = sum(s)``.

    Args:
        channels: C, at least 2; the first C - C // 2 channels are mapped.
        hidden: width of the sub-network.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mapped = channels - channels // 2
        self.net = SubNet(channels // 2, 2 * self.mapped, hidden)
        self.scale = nn.Parameter(torch.ones(self.mapped, 1, 1))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` ``(B, C, H, W)`` -> ``z`` of that shape and ``sum(s)`` ``(B,)`` in nats."""
        x1, x2 = x[:, : self.mapped], x[:, self.mapped :]
        s, t = self._maps(x2)
        return torch.cat([(x1 + t) * s.exp(), x2], dim=1), s.flatten(1).sum(1)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x1 = z1 / exp(s) - t``: ``z`` ``(B, C, H, W)`` -> ``x`` and ``-sum(s)`` ``(B,)``."""
        z1, z2 = z[:, : self.mapped], z[:, self.mapped :]
        s, t = self._maps(z2)
        return torch.cat([z1 * (-s).exp() - t, z2], dim=1), -s.flatten(1).sum(1)

    def _maps(self, given: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = self.net(given).to(given.dtype).chunk(2, dim=1)
        return self.scale.to(given.dtype) * raw.tanh(), t


class ConditionalCoupling(FlowLayer, Checkpointed):
    """Two affine maps: the second half given the first half and the features, then all channels given the features.

    forward:  ``z2 = x2 / s1 - t1`` with (s1, t1) = g1([x1, cond]); then ``z = z / s2 - t2`` with (s2, t2) = g2(cond);
    ``log|det J| = -sum(log s1) - sum(log s2)``.  As ``s <= 1 + eps``, the inverse only ever shrinks.  The nets' output
    channels are interleaved: even ones the shift t, odd ones the raw scale, ``s = sigmoid(raw + 2) + eps``.

    Args:
        channels: C. The first C // 2 channels pass g1 unchanged.
        cond_channels: F.
        hidden: width of both sub-networks.
        scale_eps: lower end of the scales; 0.001 in the reference. A larger one bounds how much forward amplifies
            (1 / eps per map), which is where the reference meets NaN.
        additive: the nets give shifts only (NICE, Dinh et al. 2015): s1 = 1, and s2 follows nothing but the colour of
            the reduced image, the first three channels of cond.  Then noise added to the latents comes out as strong
            on fine detail as on flat areas; through affine nets it is multiplied by the local contrast.
    """

    def __init__(
        self, channels: int, cond_channels: int, hidden: int, scale_eps: float, additive: bool = False
    ) -> None:
        super().__init__()
        self.kept = channels // 2
        self.scale_eps = scale_eps
        self.additive = additive
        rest = channels - self.kept
        self.self_net = SubNet(self.kept + cond_channels, rest if additive else 2 * rest, hidden)
        self.cond_net = SubNet(cond_channels, channels if additive else 2 * channels, hidden)
        self.colour_net = ColourNet(channels) if additive else None

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` ``(B, C, H, W)`` given ``cond`` ``(B, F, H, W)`` -> ``z`` and ``log|det|`` ``(B,)`` in nats.

        Raises:
            ShapeError: no ``cond``.
        """
        cond = _require(cond)
        given = self.self_net(x[:, : self.kept].to(cond.dtype), cond)
        return self._computed(self._mapped, x, given, self.cond_net(cond), self._colours(cond))

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``z`` ``(B, C, H, W)`` given ``cond`` ``(B, F, H, W)`` -> ``x``, and its log-determinant ``(B,)``.

        Raises:
            ShapeError: no ``cond``.
        """
        cond = _require(cond)
        s2, t2 = self._cond_maps(self.cond_net(cond), self._colours(cond), z.dtype)
        x = (z + t2) * s2
        x1, z2 = x[:, : self.kept], x[:, self.kept :]
        s1, t1 = self._self_maps(self.self_net(x1.to(cond.dtype), cond), z.dtype)
        return torch.cat([x1, (z2 + t1) * s1], dim=1), _sum_of_logs(s1) + _sum_of_logs(s2)

    def _mapped(self, x: Tensor, given: Tensor, by_cond: Tensor, colours: Tensor | None) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, from what the nets gave."""
        x1, x2 = x[:, : self.kept], x[:, self.kept :]
        s1, t1 = self._self_maps(given, x.dtype)
        s2, t2 = self._cond_maps(by_cond, colours, x.dtype)
        z = torch.cat([x1, x2 / s1 - t1], dim=1) / s2 - t2
        return z, -_sum_of_logs(s1) - _sum_of_logs(s2)

    def _colours(self, cond: Tensor) -> Tensor | None:
        return None if self.colour_net is None else self._computed(self.colour_net, cond)

    def _self_maps(self, out: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.additive:
            return torch.ones_like(out, dtype=dtype), out.to(dtype)
        return self._scale_and_shift(out, dtype)

    def _cond_maps(self, out: Tensor, colours: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if colours is None:
            return self._scale_and_shift(out, dtype)
        return self._scale(colours.to(dtype)), out.to(dtype)

    def _scale_and_shift(self, out: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        out = out.to(dtype)
        return self._scale(out[:, 1::2]), out[:, 0::2]

    def _scale(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw + 2) + self.scale_eps


def _sum_of_logs(s: Tensor) -> Tensor:
    return s.log().flatten(1).sum(1)


def _require(cond: Tensor | None) -> Tensor:
    if cond is None:
        raise ShapeError("ConditionalCoupling: needs conditioning features (B, F, H, W), got None")
    return cond
