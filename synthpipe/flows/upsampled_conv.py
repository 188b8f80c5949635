"""3x3 convolution of a map enlarged by nearest neighbour, computed at the map's own size.

All pixels of a cell of ``s x s`` copies hold the same value, so that the three taps of a row fall on one or two cells:
on the cell before and its own for the first pixel of a cell, on its own alone in the middle, on its own and the next
for the last.  The kernels for these places are sums of the original taps.  The result is the same but for rounding, at
25 instead of ``9 s ** 2`` products for each cell where s is 3 or more (s = 4: 144), at 16 instead of 36 where s is 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["UpsampledConv"]


class UpsampledConv(nn.Module):
    """``conv2d(interpolate(x, scale_factor=factor, mode="nearest"), weight, padding=1)`` at the size of ``x``.

    Args:
        weight: ``(out, in, 3, 3)``.
        factor: s, the enlargement, at least 1.

    Raises:
        ShapeError: another kernel size, or a factor below 1.
    """

    def __init__(self, weight: Tensor, factor: int) -> None:
        super().__init__()
        if weight.shape[2:] != (3, 3) or factor < 1:
            shape = tuple(weight.shape)
            raise ShapeError(f"UpsampledConv: expected kernels of 3x3 and factor >= 1, got {shape} and {factor}")
        self.factor = factor
        self._places = _places(factor)
        for row, rows in self._places.items():
            for column, columns in self._places.items():
                taps = torch.einsum("ia,jb,ocab->ocij", rows.to(weight), columns.to(weight), weight)
                self.register_buffer(f"{row}_{column}", taps.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, h, w)`` -> ``(B, out, s h, s w)``."""
        sides = [side * self.factor for side in x.shape[2:]]
        out = x.new_zeros(len(x), len(self.get_buffer(self._names()[0])), *sides)
        self.add_to(out, x)
        return out

    def add_to(self, out: Tensor, x: Tensor, outputs: slice = slice(None)) -> None:
        """Add the result for ``x`` ``(B, in, h, w)`` to ``out`` ``(B, out, s h, s w)``, contiguous.

        Args:
            out: changed in place.
            x: the small map.
            outputs: which output channels ``out`` holds.
        """
        height, width = x.shape[2:]
        cells = out.view(len(out), out.shape[1], height, self.factor, width, self.factor)
        padded = F.pad(x, (1, 1, 1, 1))
        for row in self._places:
            rows = padded[:, :, _seen(row, height)]
            for column in self._places:
                taps = self.get_buffer(f"{row}_{column}")[outputs]
                small = F.conv2d(rows[..., _seen(column, width)], taps)
                cells[:, :, :, _PIXELS[row], :, _PIXELS[column]] += small[:, :, :, None, :, None]

    def _names(self) -> list[str]:
        return [f"{row}_{column}" for row in self._places for column in self._places]


_FIRST = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
_LAST = torch.tensor([[1.0, 1, 0], [0, 0, 1]])
_PIXELS = {"only": slice(None), "first": slice(0, 1), "middle": slice(1, -1), "last": slice(-1, None)}


def _places(factor: int) -> dict[str, Tensor]:
    """For each place in a cell: which of the three taps are summed on each cell that it sees, ``(cells, 3)``."""
    if factor == 1:
        return {"only": torch.eye(3)}
    middle = {"middle": torch.ones(1, 3)} if factor > 2 else {}
    return {"first": _FIRST, **middle, "last": _LAST}


def _seen(place: str, size: int) -> slice:
    """What a place sees of a side of ``size`` cells with one cell of padding on each end."""
    return slice(0 if place in ("only", "first") else 1, size + (2 if place in ("only", "last") else 1))
