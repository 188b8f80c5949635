"""The dilated blind-spot network of Honzatko, Bigdeli, Turetken and Dunbar (SDS 2020), with a hole of any size.

After ``i`` convolutions of 3x3 a feature depends on the square ``[-i, i]^2`` of the input.  A 3x3 convolution without
a centre, dilated by ``d``, reads features ``d`` apart, so the input offset 0 stays out of its sight if ``d >= i + 1``,
and the block ``[-hole, hole]^2`` if ``d >= i + 1 + hole``.  Taken tight, the eight squares of the deepest branch reach
``2i + 1 + hole`` far, and all branches together cover that window but for the hole, as long as there are more branches
than ``hole`` (fewer leave gaps beside the corners of the hole).  The hole belongs to no weight, so it may differ
between training and use.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet, neighbours
from synthpipe.errors import ShapeError

__all__ = ["DilatedNet", "HoleConv"]

_SLOPE = 0.1

#: The released code and the figure in the same repository disagree.
_PRESETS: dict[str, dict[str, Any]] = {
    "code": {"depth": 11, "width": 128, "hole_width": 18, "head": (198, 99, 99), "residual": False},
    "figure": {"depth": 11, "width": 128, "hole_width": 64, "head": (384, 192, 96), "residual": True},
}


class HoleConv(nn.Module):
    """A 3x3 convolution whose centre does not exist: 8 weight vectors, padded by zeros to the size of its input.

    On the CPU the 8 taps go into a 3x3 kernel with a zero in the middle, at every call, so that they train and the zero
    cannot: 2 to 20 times faster there than three rows of taps or eight shifted copies.  With dilation 1 a GPU may take
    such a kernel for a Winograd transform, which turns the zero into rounding noise; there shifted copies are mixed
    by a 1x1 convolution, which is exact everywhere.

    Args:
        in_channels: of the features.
        out_channels: of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 8))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_normal_(self.weight, a=_SLOPE)  # fan-in 8 * in_channels: the taps that exist

    def forward(self, x: Tensor, dilation: int) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``, neighbours ``dilation`` pixels apart."""
        if dilation == 1 and x.device.type != "cpu":
            return self._by_shifts(x)
        before, after = self.weight[..., :4], self.weight[..., 4:]
        kernel = torch.unflatten(torch.cat([before, torch.zeros_like(before[..., :1]), after], -1), -1, (3, 3))
        return F.conv2d(x, kernel, self.bias, padding=dilation, dilation=dilation)

    def _by_shifts(self, x: Tensor) -> Tensor:
        kernel = self.weight.transpose(1, 2).flatten(1)[..., None, None]  # (C_out, 8 * C_in, 1, 1), tap by tap
        return F.conv2d(neighbours(x, 1), kernel, self.bias)


class DilatedNet(BlindSpotNet):
    """A trunk of 3x3 convolutions, a hole convolution on the input and on each of its layers, and a head of 1x1s.

    Every weight is used once for each pixel, so multiply-adds per pixel equal the number of weights without biases.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        depth: hole convolutions; one more than the trunk's. The window is ``4 * depth - 1 + 2 * hole`` pixels across.
        width: channels of the trunk.
        hole_width: channels of each hole convolution.
        head: channels of the 1x1 convolutions before the last.
        residual: add over pairs of the trunk's convolutions, from the second on; features are taken after the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int = 7,
        width: int = 32,
        hole_width: int = 16,
        head: Sequence[int] = (96, 64, 32),
        residual: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, depth=depth, width=width, hole_width=hole_width, head=head)
        self._residual = residual
        inputs = [in_channels] + [width] * (depth - 1)  # of the hole convolution of each branch
        self.trunk = nn.ModuleList(_conv(i, width, 3) for i in inputs[:-1])
        self.holes = nn.ModuleList(HoleConv(i, hole_width) for i in inputs)
        sizes = [depth * hole_width, *head]
        layers = [layer for i, o in itertools.pairwise(sizes) for layer in (_conv(i, o, 1), _act())]
        # Begins near 0: with a covariance at random, the first likelihoods are in the hundreds.
        self.head = nn.Sequential(*layers, _conv(sizes[-1], out_channels, 1, gain=0.1))

    @classmethod
    def preset(cls, name: Literal["code", "figure"], in_channels: int, out_channels: int) -> DilatedNet:
        """The published network, as in the released ``"code"`` or as in the ``"figure"``.

        Raises:
            ShapeError: another name.
        """
        if name not in _PRESETS:
            raise ShapeError(f"DilatedNet.preset: expected one of {sorted(_PRESETS)}, got {name!r}")
        return cls(in_channels, out_channels, **_PRESETS[name])

    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        """See :class:`BlindSpotNet`; values need no range, the result has none."""
        self._check_hole(hole)
        seen, start = [x], x
        for place, conv in enumerate(self.trunk, 1):
            x = F.leaky_relu_(conv(x), _SLOPE)
            if self._residual and place % 2:  # the first layer has no pair: it only widens
                x = start = x if place == 1 else x + start
            seen.append(x)
        branches = [
            conv(features, self.dilation(place, hole))
            for place, (conv, features) in enumerate(zip(self.holes, seen, strict=True))
        ]
        # One activation for all branches: the gradient of a part of the concatenation is slow to work with.
        out: Tensor = self.head(F.leaky_relu_(torch.cat(branches, 1), _SLOPE))
        return out

    def dilation(self, place: int, hole: int) -> int:
        """Of the hole convolution after ``place`` convolutions: the smallest that keeps the hole."""
        return place + 1 + hole

    def reach(self, hole: int = 0) -> int:
        """``2 * depth - 1 + hole``, all of it seen where ``hole < depth``."""
        return 2 * len(self.holes) - 1 + hole


def _act() -> nn.Module:
    # In place, here as everywhere: on a CPU, fresh memory for each result took a fifth of the time.
    return nn.LeakyReLU(_SLOPE, inplace=True)


def _conv(inputs: int, outputs: int, side: int, gain: float = (2 / (1 + _SLOPE**2)) ** 0.5) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    nn.init.normal_(conv.weight, std=gain / (inputs * side**2) ** 0.5)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
