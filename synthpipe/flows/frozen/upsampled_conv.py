"""3x3 convolution of a map enlarged by nearest neighbour, computed at the map's own size.

All pixels of a cell of ``s x s`` copies hold the same value.  Along one side, with taps (a, b, c), a cell x between its
neighbours l and r, and ``m = (a + b + c) x``: the first pixel of the cell is ``m + a (l - x)``, the last one
``m + c (r - x)``, and those between are m.  So three products for each side of a cell give all its pixels, nine in the
plane: 9 products for each pair of channels and cell in place of ``9 s ** 2``, the same but for rounding.

The products are matrix products of rows, ``(positions, channels)``; one more matrix product of zeros and ones puts the
cells together, in place of nine additions to strided parts of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["UpsampledConv", "cell_assembly", "cell_differences"]


class UpsampledConv(nn.Module):
    """``conv2d(interpolate(x, scale_factor=factor, mode="nearest"), weight, padding=1)`` at the size of ``x``.

    Args:
        weight: ``(out, in, 3, 3)``.
        factor: s, the enlargement, at least 1.

    Raises:
        ShapeError: another kernel size, or a factor below 1.
    """

    weight: Tensor
    assembly: Tensor

    def __init__(self, weight: Tensor, factor: int) -> None:
        super().__init__()
        if weight.shape[2:] != (3, 3) or factor < 1:
            shape = tuple(weight.shape)
            raise ShapeError(f"UpsampledConv: expected kernels of 3x3 and factor >= 1, got {shape} and {factor}")
        self.factor = factor
        self.register_buffer("weight", _cell_weights(weight), persistent=False)  # (9, out, in)
        # (s * s, 9)
        self.register_buffer("assembly", cell_assembly(factor).flatten(2).flatten(0, 1).to(weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, h, w)`` -> ``(B, out, s h, s w)``."""
        height, width = x.shape[2:]
        out = x.new_zeros(len(x), self.weight.shape[1], height * self.factor, width * self.factor)
        self.add_to(out, cell_differences(x))
        return out

    def add_to(self, out: Tensor, differences: Tensor, outputs: slice = slice(None)) -> None:
        """Add the result to ``out`` ``(B, out, s h, s w)``.

        Args:
            out: changed in place.
            differences: :func:`cell_differences` of the small map, ``(9, B, h, w, in)``.
            outputs: which output channels ``out`` holds.
        """
        _, count, height, width, _ = differences.shape
        weight = self.weight[:, outputs].transpose(1, 2)
        products = torch.bmm(differences.flatten(1, 3), weight)  # (9, B h w, out)
        pixels = self.assembly @ products.flatten(1)
        sizes = (self.factor, self.factor, count, height, width, weight.shape[2])
        cells = torch.unflatten(torch.unflatten(out, 3, (width, self.factor)), 2, (height, self.factor))
        cells += pixels.view(sizes).permute(2, 5, 3, 0, 4, 1)  # (B, out, h, s, w, s)


def cell_differences(x: Tensor) -> Tensor:
    """``(B, in, h, w)`` -> ``(9, B, h, w, in)``: each cell and what its neighbours differ by, 3 x 3 by side.

    Beyond the border are zeros.
    """
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    return torch.cat([_sides(each, 2) for each in _sides(rows, 1)]).view(9, *x.permute(0, 2, 3, 1).shape)


def _sides(x: Tensor, dim: int) -> Tensor:
    own = x.narrow(dim, 1, x.shape[dim] - 2)
    before, after = x.narrow(dim, 0, own.shape[dim]), x.narrow(dim, 2, own.shape[dim])
    return torch.stack([before - own, own, after - own])


def _cell_weights(weight: Tensor) -> Tensor:
    """``(out, in, 3, 3)`` -> ``(9, out, in)``: what the differences are multiplied by."""
    taps = weight.new_tensor([[1, 0, 0], [1, 1, 1], [0, 0, 1]])  # a, a + b + c, c of each side
    return torch.einsum("ka,lb,ocab->kloc", taps, taps, weight).flatten(0, 1).contiguous()


def cell_assembly(factor: int) -> Tensor:
    """``(s, s, 3, 3)`` of zeros and ones: which products, by side, make each pixel of a cell."""
    side = torch.zeros(factor, 3)
    side[0, 0] = side[-1, 2] = 1
    side[:, 1] = 1
    return torch.einsum("yk,xl->yxkl", side, side)
