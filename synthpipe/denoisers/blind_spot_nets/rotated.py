"""The four-branch blind-spot network of Laine, Karras, Lehtinen and Aila (NeurIPS 2019): the yardstick of the others.

One U-Net that looks up only sees the image in four rotations; shifted by a row and turned back, its four results know
all of the image but the pixel itself, and 1x1 convolutions join them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet
from synthpipe.denoisers.blind_spot_nets.half_plane import HalfPlaneUNet, head, shift_down

__all__ = ["RotatedNet"]


class RotatedNet(BlindSpotNet):
    """As published with the defaults: 1.27 million parameters and 1250 kMAC per pixel for RGB and 9 outputs.

    Images are padded by zeros, below and on the right, to multiples of ``2 ** levels``.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        width: channels of the encoder; twice as many in the decoder.
        levels: halvings of the image.
        head_widths: channels of the 1x1 convolutions before the last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 48,
        levels: int = 5,
        head_widths: Sequence[int] = (384, 96),
    ) -> None:
        super().__init__(in_channels, out_channels, width=width, levels=levels, head_widths=head_widths)
        self.unet = HalfPlaneUNet(in_channels, [width] * (levels + 1), [2 * width] * levels)
        self.head = head([8 * width, *head_widths], out_channels)
        self.grid = 2**levels

    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        """See :class:`BlindSpotNet`; values need no range, the result has none."""
        self._check_hole(hole)
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.grid, 0, -height % self.grid))
        # Turned by 90 and 270 degrees the image has its sides exchanged, so these two make a batch of their own.
        upright, lying = (
            torch.cat([torch.rot90(x, turns, (2, 3)), torch.rot90(x, turns + 2, (2, 3))]) for turns in (0, 1)
        )
        seen = [shift_down(self.unet(turned), 1 + hole).chunk(2) for turned in (upright, lying)]
        branches = [
            torch.rot90(seen[turns % 2][turns // 2], -turns, (2, 3))[:, :, :height, :width] for turns in range(4)
        ]
        out: Tensor = self.head(torch.cat(branches, 1))
        return out

    def reach(self, hole: int = 0) -> int:
        """As far as the U-Net looks up, behind the hole, or to the sides, in pixels."""
        up, side = self.unet.reach
        return max(up + 1 + hole, side)
