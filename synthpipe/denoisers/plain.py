"""A plain residual network that is told the noise level: the twin that learned denoisers are compared with and made of.

In the manner of DnCNN (Zhang et al. 2017) and FFDNet (Zhang et al. 2018), without normalisation layers.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.scaled_net import ScaledNet
from synthpipe.errors import ShapeError

__all__ = ["PlainDenoiser", "ResidualNet"]

#: The level enters as this many times its value, to be of the order of the image.
_LEVEL_GAIN = 10.0


class ResidualNet(nn.Module):
    """``depth`` 3x3 convolutions with LeakyReLU between them, on the image and a map of the level; starts near 0.

    Args:
        channels: of the image, in and out.
        width: inside.
        depth: at least 2; a pixel sees ``2 * depth + 1`` pixels across.
        level: false: the level is not looked at.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(self, channels: int, width: int, depth: int, level: bool = True) -> None:
        super().__init__()
        if channels not in (1, 3) or width < 1 or depth < 2:
            raise ShapeError(
                f"ResidualNet: expected channels 1 or 3, width of at least 1 and depth of at least 2, got "
                f"channels={channels}, width={width}, depth={depth}"
            )
        self._level = level
        sizes = [channels + level] + [width] * (depth - 1)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in itertools.pairwise(sizes))
        self.out = nn.Conv2d(width, channels, 3, padding=1)
        # In place: on a CPU, fresh memory for each result took a fifth of the time.
        self.act = nn.LeakyReLU(0.1, inplace=True)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight, a=0.1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B,)`` -> ``(B, C, H, W)``."""
        h = x - 0.5
        if self._level:
            level = (_LEVEL_GAIN * sigma)[:, None, None, None].expand(-1, 1, *x.shape[2:])
            h = torch.cat([h, level.to(x.dtype)], 1)
        for conv in self.convs:
            h = self.act(conv(h))
        out: Tensor = self.out(h)
        return out


class PlainDenoiser(Denoiser):
    """``x - net(x, sigma)``.

    Args:
        channels: 1 or 3.
        width: channels inside.
        depth: convolutions; with ``scales`` residual blocks at each size.
        level: false: the result does not depend on ``sigma``, for training where no level is known.
        scales: 0: a :class:`ResidualNet` at the size of the image; from 1 on: a :class:`ScaledNet` that halves it so
            many times.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(self, channels: int = 3, width: int = 32, depth: int = 8, level: bool = True, scales: int = 0) -> None:
        super().__init__()
        self.config = {"channels": channels, "width": width, "depth": depth, "level": level}
        self.channels = channels
        self._depth = depth
        if scales:
            self.config["scales"] = scales
            self.net: ResidualNet | ScaledNet = ScaledNet(channels, width, depth, scales, level)
        else:
            self.net = ResidualNet(channels, width, depth, level)

    @property
    def reach(self) -> int:
        """``depth`` pixels, or what a :class:`ScaledNet` says."""
        return self.net.reach if isinstance(self.net, ScaledNet) else self._depth

    @property
    def grid(self) -> int:
        """1, or the pixels that a :class:`ScaledNet` takes together."""
        return self.net.grid if isinstance(self.net, ScaledNet) else 1

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` with noise of ``sigma`` ``(B,)`` -> clean ones, not clipped."""
        noise: Tensor = self.net(x, sigma)
        return x - noise
