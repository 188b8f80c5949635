"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), for float32 and float64.

A tile of 4x4 outputs follows from 6x6 inputs by ``Y = A' [(G g G') * (B' d B)] A`` (Lavin & Gray 2016, "Fast algorithms
for convolutional neural networks", section 4.1): 36 products in place of 144, which are matrix products over the
channels.  A, B and G follow from Vandermonde's matrix at five points and infinity (the Toom-Cook construction).  The
points are not the usual 0, 1, 2 but closer to each other, which halves the rounding error (random maps of 64 channels:
4 times that of the plain convolution).

Maps that nearest neighbour enlarges add their 9 products for each cell (:class:`UpsampledConv`) before the same last
step, so that both kinds together take one pass over the output.

For wide convolutions, where oneDNN's direct one is bound by its multiplications; ``tools/bench/generator.py`` measures
whole models with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.flows.frozen.upsampled_conv import UpsampledConv, cell_assembly, cell_differences

__all__ = [
    "TILE",
    "WinogradConvs",
    "plane_of",
    "tile_assembly",
    "tile_points",
    "tile_transform",
    "tile_weights",
    "tiles_of",
]

#: Side of the tiles of outputs.
TILE = 4
#: Of the products of one call, at most: they should stay in a processor's cache.  Enlarged maps have many rows and
#: channels, for which wide matrix products are faster.
_CALL_BYTES, _WIDE_CALL_BYTES = 1 << 22, 1 << 25
_POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)


class WinogradConvs:
    """Several 3x3 convolutions, padding 1, of the same maps; those that are enlarged add to the result.

    Args:
        weight: ``(count * D, in, 3, 3)``, of the maps that have the size of the result.
        bias: ``(count * D,)``.
        count: how many convolutions.
        enlarged: of the other maps, with as many outputs, by 2, 4 or a multiple of 4.
    """

    def __init__(self, weight: Tensor, bias: Tensor, count: int, enlarged: Sequence[UpsampledConv] = ()) -> None:
        self._bias, self._count = bias, count
        self._enlarged = tuple(enlarged)
        self._weights = [tile_weights(weight), *(conv.weight for conv in enlarged)]  # (points, count * D, in)
        # The last product is the bias.
        cells = [_cell_assembly(conv.factor) for conv in enlarged]
        assemblies = [tile_assembly(), *cells, torch.ones(TILE * TILE, 1)]
        self._assembly = torch.cat([each.to(bias) for each in assemblies], 1)
        self._transform = tile_transform().to(bias)

    def __call__(self, own: Tensor, maps: Sequence[Tensor] = ()) -> Iterator[Tensor]:
        """``(B, D, H, W)`` of each convolution in turn, channels-last.

        Args:
            own: ``(B, in, H, W)``.
            maps: the others before they are enlarged, one for each of ``enlarged``.
        """
        count, _, height, width = own.shape
        down, across = tiles_of(own)
        channels = len(self._bias) // self._count
        # Image by image, which leaves the products in the cache, and an image's numbers to itself.
        images = zip(*(torch.split(map_, 1) for map_ in (own, *maps)), strict=True)
        points = [self._points(each, small) for each, *small in images]
        # One memory for the products of all calls: fresh pages would cost as much as the products of a small network.
        one = self._assembly.shape[1] * down * across * channels
        step = self._step(one * own.element_size())
        memory = own.new_empty(one * step)
        for begin in range(0, self._count, step):
            outputs = slice(begin * channels, min(begin + step, self._count) * channels)
            planes = [
                own.new_empty(count, down, TILE, across, TILE, channels)
                for _ in range(begin, min(begin + step, self._count))
            ]
            for image, of_image in enumerate(points):
                pixels = self._pixels(of_image, down * across, outputs, memory).view(TILE, TILE, down, across, -1)
                for plane, each in zip(planes, torch.split(pixels, channels, dim=-1), strict=True):
                    plane[image] = each.permute(2, 0, 3, 1, 4)
            for plane in planes:
                yield plane_of(plane)[..., :height, :width]

    def _points(self, own: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the weights are multiplied by, for one image: ``(points, rows, in)`` of each kind of maps."""
        tiles = tiles_of(own)
        cells = [_cell_points(map_, conv.factor, tiles) for map_, conv in zip(maps, self._enlarged, strict=True)]
        return [tile_points(own, self._transform), *cells]

    def _step(self, one: int) -> int:
        """How many convolutions in one call, where the products of one take ``one`` bytes."""
        limit = _WIDE_CALL_BYTES if self._enlarged else _CALL_BYTES
        return min(max(limit // one, 1), self._count)

    def _pixels(self, points: Sequence[Tensor], rows: int, outputs: slice, memory: Tensor) -> Tensor:
        """Some outputs of all tiles, ``(16, rows * outputs)``."""
        bias = self._bias[outputs]
        products = memory[: self._assembly.shape[1] * rows * len(bias)].view(-1, rows * len(bias))
        begin = 0
        for inputs, weight in zip(points, self._weights, strict=True):
            end = begin + inputs.shape[0] * inputs.shape[1] // rows
            into = products[begin:end].view(len(inputs), -1, len(bias))
            torch.bmm(inputs, weight[:, outputs].transpose(1, 2), out=into)
            begin = end
        products[begin].view(rows, -1).copy_(bias)
        return torch.mm(self._assembly, products)


def tiles_of(x: Tensor) -> tuple[int, int]:
    """Tiles down and across that cover ``(B, C, H, W)``."""
    return -(-x.shape[2] // TILE), -(-x.shape[3] // TILE)


def tile_transform() -> Tensor:
    """``(36, 36)``, float64: from the 6x6 inputs of a tile to its points."""
    transform = torch.linalg.inv(_vandermonde(TILE + 2)).T
    return torch.kron(transform, transform)


def tile_points(x: Tensor, transform: Tensor) -> Tensor:
    """``(36, B tiles, in)`` of ``(B, in, H, W)``: what :func:`tile_weights` are multiplied by."""
    tiles = tiles_of(x)
    ends = [TILE * count + 1 - side for count, side in zip(tiles, x.shape[2:], strict=True)]
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, ends[1], 1, ends[0]))
    side = TILE + 2
    patches = rows.unfold(1, side, TILE).unfold(2, side, TILE).permute(4, 5, 0, 1, 2, 3)
    return (transform @ patches.reshape(side * side, -1)).view(side * side, -1, x.shape[1])


@torch.no_grad()
def tile_weights(weight: Tensor) -> Tensor:
    """``(out, in, 3, 3)`` -> ``(36, out, in)``, computed in float64."""
    taps = _vandermonde(3).to(weight.device)
    points = weight.new_empty(len(taps) ** 2, *weight.shape[:2])
    # In parts: those of ``aim`` in float64 at once would take half a gigabyte.
    for part, into in zip(torch.split(weight, 256), torch.split(points, 256, dim=1), strict=True):
        into.copy_(torch.einsum("ia,jb,ocab->ijoc", taps, taps, part.double()).flatten(0, 1))
    return points


def tile_assembly() -> Tensor:
    """``(16, 36)``, float64: pixels of a tile from its products."""
    return torch.kron(_vandermonde(TILE).T, _vandermonde(TILE).T)


def plane_of(pixels: Tensor) -> Tensor:
    """``(B, tiles down, 4, tiles across, 4, C)`` in any order of memory -> ``(B, C, H, W)``, channels-last."""
    count, down, _, across, _, channels = pixels.shape
    return pixels.reshape(count, TILE * down, TILE * across, channels).permute(0, 3, 1, 2)


def _cell_points(x: Tensor, factor: int, tiles: tuple[int, int]) -> Tensor:
    """``(9, cells of a tile * B tiles, in)`` of the small map ``(B, in, h, w)``."""
    if factor > TILE:
        x, factor = F.interpolate(x, scale_factor=factor / TILE, mode="nearest"), TILE
    side = TILE // factor  # cells
    x = F.pad(x, (0, side * tiles[1] - x.shape[3], 0, side * tiles[0] - x.shape[2]))
    cells = cell_differences(x).view(9, len(x), tiles[0], side, tiles[1], side, x.shape[1])
    return cells.permute(0, 3, 5, 1, 2, 4, 6).reshape(9, -1, x.shape[1])


def _vandermonde(columns: int) -> Tensor:
    """Powers 0 to ``columns - 1`` of the points, and the highest alone for infinity."""
    powers = torch.tensor(_POINTS, dtype=torch.float64)[:, None] ** torch.arange(columns)
    return torch.cat([powers, torch.eye(columns, dtype=torch.float64)[-1:]])


def _cell_assembly(factor: int) -> Tensor:
    """``(16, 9 * cells)``: pixels of a tile from the products of its cells."""
    factor = min(factor, TILE)
    side = TILE // factor
    own = torch.eye(side)
    cells = torch.einsum("yxkl,cC,dD->cydxklCD", cell_assembly(factor), own, own)
    return cells.reshape(TILE * TILE, -1)
