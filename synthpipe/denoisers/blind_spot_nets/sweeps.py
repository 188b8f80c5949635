"""Our blind-spot network: two deep sweeps and two thin ones, a quarter of the work of four rotated U-Nets.

Four branches that each see half of the image (Laine et al. 2019) see most of it twice. Here a U-Net sees all rows
above the pixel and, with the same weights, all rows below it: only the pixel's own row is missing. For that a thin
network looks left and, with the same weights, right. Along the pixel's own row it may take up what the two deep ones
know, which are blind to all of that row, so one more layer joins the three. Most of a U-Net's cost lies in its layers
at full size: here the image goes down its first level by rearranging 2x2 pixels into channels, few channels come back
up, and kernels have 2 rows. The nearest pixels all around go straight to the head and, averaged, to the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet, neighbours
from synthpipe.denoisers.blind_spot_nets.half_plane import LookingConv, head, shift_down
from synthpipe.errors import ShapeError

__all__ = ["SweepNet"]

#: Steps between the taps of the thin network's layers, along and across its direction: with 3 taps each way it sees 27
#: pixels along and 6 on each side without a gap.
_STEPS = ((1, 1), (3, 2), (9, 3))


class SweepNet(BlindSpotNet):
    """Blind by construction, any hole, any size; see the module's docstring.

    Images are padded by zeros, below and on the right, to multiples of ``2 ** len(deep)``.  Up to ``hole = 3`` all
    within 20 pixels is seen but the hole; farther to the side, in rows just beyond the hole, some places are not.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        deep: channels of the two deep sweeps at half the size, a quarter, and so on.
        up: channels of the two deep sweeps when they come back up to those sizes, the deepest left out.
        full: channels of the two deep sweeps at full size.
        thin: channels of the two thin sweeps.
        head_widths: channels of the 1x1 convolutions before the last.

    Raises:
        ShapeError: sizes below 1, or another number of ``up`` than one fewer than of ``deep``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        deep: Sequence[int] = (56, 80, 80, 80),
        up: Sequence[int] = (96, 112, 112),
        full: int = 48,
        thin: int = 32,
        head_widths: Sequence[int] = (96, 48),
    ) -> None:
        super().__init__(in_channels, out_channels, deep=deep, up=up, full=full, thin=thin, head_widths=head_widths)
        if len(up) + 1 != len(deep):
            raise ShapeError(f"SweepNet: expected one fewer of 'up' than of 'deep', got deep={[*deep]}, up={[*up]}")
        self.grid = 2 ** len(deep)
        self.deep = _DeepSweep(in_channels, deep, up, full)
        self.thin = nn.Sequential(
            *(LookingConv(i, thin, dilation=step) for i, step in zip([in_channels, thin, thin], _STEPS, strict=True))
        )
        self.joined = LookingConv(thin + 2 * full, thin, columns=1)
        self.head = head([2 * full + 2 * thin + 8 * in_channels, *head_widths], out_channels)
        self.near = nn.Conv2d(8 * in_channels, out_channels, 1, bias=False)
        self._start_from_neighbours()

    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        """See :class:`BlindSpotNet`; values are best in [-0.5, 0.5], the first outputs begin as their local mean."""
        self._check_hole(hole)
        height, width = x.shape[2:]
        near = neighbours(x, 1 + hole)
        x = F.pad(x, (0, -width % self.grid, 0, -height % self.grid))
        vertical = shift_down(self.deep(torch.cat([x, x.flip(2)])), 1 + hole)
        above, below = vertical.chunk(2)
        known = torch.cat([above, below.flip(2)], 1)  # (B, 2 * full, H, W), blind to the pixel's own row
        # Looking left is looking up in the image with its sides exchanged.
        turned = x.transpose(2, 3)
        aside = shift_down(self.thin(torch.cat([turned, turned.flip(2)])), 1 + hole)
        lying = known.transpose(2, 3)
        aside = self.joined(torch.cat([aside, torch.cat([lying, lying.flip(2)])], 1))
        left, right = aside.chunk(2)
        features = torch.cat([known, left.transpose(2, 3), right.flip(2).transpose(2, 3)], 1)
        out: Tensor = self.head(torch.cat([features[:, :, :height, :width], near], 1)) + self.near(near)
        return out

    @torch.no_grad()
    def _start_from_neighbours(self) -> None:
        """The first outputs, which are a mean where there is one, begin as that of the nearest pixels that are seen."""
        self.near.weight.zero_()
        for channel in range(min(self.in_channels, self.out_channels)):
            self.near.weight[channel, channel :: self.in_channels] = 1 / 8

    def reach(self, hole: int = 0) -> int:
        """As far as the deep or the thin sweeps look, in pixels, whichever is farther."""
        up, side = self.deep.reach
        return max(up + 1 + hole, side + 2, sum(2 * along for along, _ in _STEPS) + 1 + hole + 2)


class _DeepSweep(nn.Module):
    """A U-Net that looks up only, whose first level is half the size; sides are multiples of ``2 ** levels``."""

    def __init__(self, in_channels: int, deep: Sequence[int], up: Sequence[int], full: int) -> None:
        super().__init__()
        self.levels = len(deep)
        inputs = [4 * in_channels, *deep[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(_conv(i, o), _conv(o, o)) if level == 0 else _conv(i, o)
            for level, (i, o) in enumerate(zip(inputs, deep, strict=True))
        )
        self.up = nn.ModuleList(
            nn.Sequential(_conv(below + skipped, o), _conv(o, o))
            for below, skipped, o in zip([*up[1:], deep[-1]], inputs[:-1], up, strict=True)
        )
        self.full = nn.Sequential(_conv(up[0] + in_channels, full), _conv(full, full))

    @property
    def reach(self) -> tuple[int, int]:
        """Rows above and columns on each side that a result may depend on."""
        convs = [2] + [3 + (level == 0) for level in range(self.levels - 1)] + [1]
        side = sum(count * 2**level for level, count in enumerate(convs))
        halvings = 2**self.levels - 1
        return side + 2 * halvings, side + halvings

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, full, H, W)``."""
        h = F.pixel_unshuffle(shift_down(x, 1), 2)
        skips = []
        for level, conv in enumerate(self.down):
            if level > 0:
                h = F.max_pool2d(shift_down(h, 1), 2)
            skips.append(h)
            h = conv(h)
        for level in reversed(range(self.levels - 1)):
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.up[level](torch.cat([h, skips[level]], 1))
        h = F.interpolate(h, scale_factor=2.0, mode="nearest")
        out: Tensor = self.full(torch.cat([h, x], 1))
        return out


def _conv(in_channels: int, out_channels: int) -> LookingConv:
    """2 rows: the third that a 3x3 has would look no further than the next layer's second."""
    return LookingConv(in_channels, out_channels, rows=2)
