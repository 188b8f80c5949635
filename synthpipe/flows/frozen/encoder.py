"""ESRGAN's trunk by Winograd's tiles: the same maps as :class:`RRDBEncoder`'s, for float32 on a processor.

Each of the five convolutions of a dense block reads all that came before it in the block.  Here every map is
transformed once, where it is made, and lies beside those before it; the convolutions are products of what is there.

The weights take four times the memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.flows.encoder import RRDBEncoder, SmallEncoder
from synthpipe.flows.frozen.first_convs import conv_layout, tiles_pay
from synthpipe.flows.frozen.winograd import (
    TILE,
    plane_of,
    tile_assembly,
    tile_points,
    tile_transform,
    tile_weights,
    tiles_of,
)

__all__ = ["FrozenTrunk", "freeze_encoder"]


def freeze_encoder(encoder: RRDBEncoder | SmallEncoder) -> RRDBEncoder | SmallEncoder:
    """The same encoder, changed in place, its trunk as a processor is fastest with it."""
    if isinstance(encoder, RRDBEncoder):
        encoder.trunk = nn.ModuleList(FrozenTrunk(block) for block in encoder.trunk)
    return encoder


class FrozenTrunk(nn.Module):
    """One residual-in-residual block of three dense blocks.

    Args:
        block: the plain one; it stays in use wherever tiles do not pay.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, features, h, w)`` -> the same shape."""
        if not self._dense:
            out: Tensor = self.block(x.contiguous(memory_format=conv_layout(x)))
            return out
        if len(x) > 1:  # image by image, as in WinogradConvs
            return torch.cat([self(each) for each in torch.split(x, 1)])
        y = x
        for dense in self._dense:
            y = dense(y)
        return torch.add(x, y, alpha=0.2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenTrunk:
        before = self._weight.device, self._weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (self._weight.device, self._weight.dtype) != before:
            self._prepare()
        return self

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = self.block.dense[0].convs[0].weight  # type: ignore[union-attr, index]
        return weight

    def _prepare(self) -> None:
        """Weights by the tile for a processor's float32, as in :class:`FirstConvs`."""
        dense_blocks = self.block.dense if tiles_pay(self._weight) else ()
        self._dense = [_TiledDense(dense.convs) for dense in dense_blocks]  # type: ignore[union-attr]


class _TiledDense:
    """``x + 0.2 * conv5([x, f1..f4])`` with ``f_i = lrelu(conv_i([x, f1..f_{i-1}]))``.

    Args:
        convs: five convolutions.
    """

    def __init__(self, convs: nn.ModuleList) -> None:
        like: Tensor = convs[0].weight  # type: ignore[assignment]
        self._weights = [tile_weights(conv.weight).transpose(1, 2) for conv in convs]  # type: ignore[arg-type]
        self._biases: list[Tensor] = [conv.bias for conv in convs]  # type: ignore[misc]
        self._transform, self._assembly = tile_transform().to(like), tile_assembly().to(like)

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, features, h, w)`` -> the same shape, channels-last."""
        tiles = tiles_of(x)
        points = x.new_empty(len(self._transform), len(x) * tiles[0] * tiles[1], self._weights[-1].shape[1])
        y = x
        for weight, bias in zip(self._weights, self._biases, strict=True):
            if y is not x:
                y = F.leaky_relu_(y, 0.2)
            seen = weight.shape[1]
            points[..., seen - y.shape[1] : seen] = tile_points(y, self._transform)
            products = torch.bmm(points[..., :seen], weight)
            pixels = torch.mm(self._assembly, products.flatten(1)).view(TILE, TILE, len(x), *tiles, -1)
            y = plane_of(pixels.permute(2, 3, 0, 4, 1, 5))[..., : x.shape[2], : x.shape[3]].add_(bias[:, None, None])
        return torch.add(x, y, alpha=0.2)
