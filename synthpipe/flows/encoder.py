"""Conditioning networks: a small image in, one feature map per level of the flow out.

An encoder MUST

* take ``lr`` ``(B, 3, H / scale, W / scale)``, RGB in [0, 1] (condition noise may leave it), and return a list of
  ``levels`` maps, finest first: entry ``l - 1`` is ``(B, out_channels[l - 1], H / 2**l, W / 2**l)``;
* carry ``scale``, ``levels`` and ``out_channels``;
* offer the same maps in parts, before nearest-neighbour enlargement: ``parts`` and ``part_sizes``;
* treat the images of a batch independently of each other.

Sizes below are given by ``doublings = log2(scale) - l``: how many times level ``l`` is the size of ``lr``, in powers
of two; negative where the level is smaller than ``lr``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.base import Checkpointed

__all__ = ["RRDBEncoder", "SmallEncoder", "build_encoder", "resized_colour"]

_SLOPE = 0.2  # of every LeakyReLU here, as in ESRGAN


class RRDBEncoder(nn.Module):
    """ESRGAN's trunk with features taken after several blocks (DeFlow, Wolf et al. 2021; SRFlow, Lugmayr et al. 2020).

    With ``t`` the output of the last block, ``last = t + trunk_conv(t)``: ESRGAN adds the *first* convolution's
    output there, so ESRGAN weights load by name and compute something else.  Each level gets ``features`` channels
    of its own (``last`` where sizes agree; ``lrelu(conv(nearest x2))`` once or more above it; bilinear reduction below
    it), then the blocks' outputs at ``taps``, resized by nearest neighbour.

    Args:
        scale: H over the height of ``lr``: 2, 4, 8 or 16.  Published: 4 and 8.
        features: channels of the trunk.
        growth: channels that each dense convolution adds.
        blocks: residual-in-residual blocks.
        taps: indices (from 0, ascending) of the blocks whose outputs every level gets.
        levels: how many maps to return.

    Raises:
        ShapeError: another scale, a tap that names no block, or a size below 1.

    Dense convolutions start at Kaiming-normal times 0.1 with zero bias, the others as torch does it.
    """

    def __init__(
        self,
        scale: int,
        features: int = 64,
        growth: int = 32,
        blocks: int = 23,
        taps: Sequence[int] = (1, 8, 15, 22),
        levels: int = 3,
    ) -> None:
        super().__init__()
        self.doublings = _doublings(type(self).__name__, scale, levels)
        _require_positive(type(self).__name__, features=features, growth=growth, blocks=blocks)
        if list(taps) != sorted(set(taps)) or any(not 0 <= tap < blocks for tap in taps):
            raise ShapeError(f"RRDBEncoder: taps must be ascending block indices in 0..{blocks - 1}, got {list(taps)}")
        self.scale = scale
        self.levels = levels
        self.taps = tuple(taps)
        self.out_channels = [features * (1 + len(taps))] * levels
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.trunk = nn.ModuleList(_ResidualBlock(features, growth) for _ in range(blocks))
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1)
        self.up_convs = nn.ModuleList(
            nn.Conv2d(features, features, 3, padding=1) for _ in range(max(self.doublings[0], 0))
        )

    def forward(self, lr: Tensor) -> list[Tensor]:
        """``lr`` ``(B, 3, h, w)`` to one map per level, finest first.

        Raises:
            ShapeError: not 3 channels, or sides that the coarsest level does not divide.
        """
        return [
            torch.cat([_enlarged(map_, factor) for map_, factor in parts], 1)  # (B, features * (1 + taps), H, W)
            for parts in self.parts(lr)
        ]

    def part_sizes(self) -> list[list[tuple[int, int]]]:
        """(channels, enlargement) of what :meth:`parts` gives for each level."""
        features = self.conv_first.out_channels
        tapped = [[(features * len(self.taps), 2 ** max(d, 0))] if self.taps else [] for d in self.doublings]
        return [[(features, 1), *taps] for taps in tapped]

    def parts(self, lr: Tensor) -> list[list[tuple[Tensor, int]]]:
        """For each level the maps that make it up, each with the factor by which nearest neighbour enlarges it.

        Raises:
            ShapeError: as :meth:`forward`.
        """
        _check_lr(type(self).__name__, lr, self.doublings[-1])
        x = self.conv_first(lr)
        tapped: list[Tensor] = []
        for index, block in enumerate(self.trunk):
            x = block(x)
            if index in self.taps:
                tapped.append(x)
        last = x + self.trunk_conv(x)
        own = [last]  # own[d] is d doublings above lr
        for conv in self.up_convs:
            own.append(F.leaky_relu(conv(_nearest(own[-1], 1)), _SLOPE))
        levels = [[(own[d] if d >= 0 else _bilinear(last, d), 1)] for d in self.doublings]
        if tapped:
            taps = torch.cat(tapped, 1)
            for parts, d in zip(levels, self.doublings, strict=True):
                parts.append((_nearest(taps, min(d, 0)), 2 ** max(d, 0)))
        return levels


class SmallEncoder(nn.Module):
    """A light conditioning network, all of it at the size of ``lr`` (in the spirit of NAFlow, Kim et al. 2024).

    A 3x3 convolution, ``depth`` residual pairs of 3x3 convolutions, then per level one 1x1 convolution: followed by
    pixel shuffle where the level is larger than ``lr``, preceded by pixel unshuffle where it is smaller.

    Args:
        scale: H over the height of ``lr``: 2, 4, 8 or 16.
        features: channels of the trunk and of every level's map.
        levels: how many maps to return.
        depth: residual pairs of convolutions; 0 leaves one convolution.

    Raises:
        ShapeError: another scale, or a size below 1.
    """

    def __init__(self, scale: int, features: int = 32, levels: int = 3, depth: int = 2) -> None:
        super().__init__()
        self.doublings = _doublings(type(self).__name__, scale, levels)
        _require_positive(type(self).__name__, features=features, depth=depth + 1)
        self.scale = scale
        self.levels = levels
        self.out_channels = [features] * levels
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.pairs = nn.ModuleList(_ResidualPair(features) for _ in range(depth))
        self.heads = nn.ModuleList(
            nn.Conv2d(features * 4 ** max(-d, 0), features * 4 ** max(d, 0), 1) for d in self.doublings
        )

    def part_sizes(self) -> list[list[tuple[int, int]]]:
        """(channels, enlargement) of what :meth:`parts` gives for each level."""
        return [[(channels, 1)] for channels in self.out_channels]

    def parts(self, lr: Tensor) -> list[list[tuple[Tensor, int]]]:
        """As :meth:`forward`, each level as its one map, which is not enlarged."""
        return [[(map_, 1)] for map_ in self(lr)]

    def forward(self, lr: Tensor) -> list[Tensor]:
        """``lr`` ``(B, 3, h, w)`` to one map per level, finest first; all values after LeakyReLU.

        Raises:
            ShapeError: not 3 channels, or sides that the coarsest level does not divide.
        """
        _check_lr(type(self).__name__, lr, self.doublings[-1])
        x = F.leaky_relu(self.conv_first(lr), _SLOPE)
        for pair in self.pairs:
            x = pair(x)
        maps = []
        for d, head in zip(self.doublings, self.heads, strict=True):
            level = head(F.pixel_unshuffle(x, 2**-d) if d < 0 else x)
            maps.append(F.leaky_relu(F.pixel_shuffle(level, 2**d) if d > 0 else level, _SLOPE))
        return maps


class _DenseBlock(Checkpointed):
    """``x + 0.2 * conv5([x, f1..f4])`` with ``f_i = lrelu(conv_i([x, f1..f_{i-1}]))`` of ``growth`` channels."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(features + i * growth, growth if i < 4 else features, 3, padding=1) for i in range(5)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data *= 0.1
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # these convolutions have a bias
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, features, h, w)`` -> the same shape."""
        return self._computed(self._outputs, x)

    def _outputs(self, x: Tensor) -> Tensor:
        dense = x
        for conv in self.convs[:4]:
            dense = torch.cat([dense, F.leaky_relu(conv(dense), _SLOPE)], 1)
        out: Tensor = x + 0.2 * self.convs[4](dense)
        return out


class _ResidualBlock(nn.Module):
    """Three dense blocks inside a residual of weight 0.2."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(_DenseBlock(features, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, features, h, w)`` -> the same shape."""
        out: Tensor = x + 0.2 * self.dense(x)
        return out


class _ResidualPair(nn.Module):
    """``lrelu(x + conv(lrelu(conv(x))))``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, features, h, w)`` -> the same shape, after the activation."""
        return F.leaky_relu(x + self.conv2(F.leaky_relu(self.conv1(x), _SLOPE)), _SLOPE)


def _doublings(name: str, scale: int, levels: int) -> list[int]:
    """log2 of each level's size over the size of ``lr``, finest first."""
    if scale not in (2, 4, 8, 16):
        raise ShapeError(f"{name}: scale must be 2, 4, 8 or 16, got {scale}")
    _require_positive(name, levels=levels)
    return [scale.bit_length() - 1 - level for level in range(1, levels + 1)]


def _require_positive(name: str, **sizes: int) -> None:
    for key, value in sizes.items():
        if value < 1:
            raise ShapeError(f"{name}: {key} is too small, got {sizes}")


def _check_lr(name: str, lr: Tensor, coarsest: int) -> None:
    multiple = 2 ** max(-coarsest, 0)
    if lr.ndim != 4 or lr.shape[1] != 3 or lr.shape[2] % multiple or lr.shape[3] % multiple:
        raise ShapeError(
            f"{name}: expected lr (B, 3, h, w) with h and w multiples of {multiple}, got {tuple(lr.shape)}; "
            "pad the image to the flow's size_multiple first"
        )


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=float(factor), mode="nearest")


def _nearest(x: Tensor, doublings: int) -> Tensor:
    if doublings == 0:
        return x
    return F.interpolate(x, scale_factor=2.0**doublings, mode="nearest")


def _bilinear(x: Tensor, doublings: int) -> Tensor:
    return F.interpolate(x, scale_factor=2.0**doublings, mode="bilinear", align_corners=False)


def build_encoder(options: Mapping[str, Any], scale: int, levels: int) -> RRDBEncoder | SmallEncoder:
    """The encoder that ``{"type": "rrdb" | "small", ...}`` names, the rest being its arguments.

    Raises:
        ShapeError: another type.
    """
    known: dict[str, type[RRDBEncoder] | type[SmallEncoder]] = {"rrdb": RRDBEncoder, "small": SmallEncoder}
    own = {name: value for name, value in options.items() if name != "type"}
    kind = options.get("type")
    if kind not in known:
        raise ShapeError(f"DeFlow: encoder type must be one of {sorted(known)}, got {kind!r}")
    return known[kind](scale=scale, levels=levels, **own)


def resized_colour(lr: Tensor, size: Sequence[int]) -> Tensor:
    """``lr`` at a level's size: bilinear above its own, averaged below."""
    if lr.shape[2] >= size[0]:
        return F.adaptive_avg_pool2d(lr, (size[0], size[1]))
    return F.interpolate(lr, size=tuple(size), mode="bilinear", align_corners=False)
