"""Images of different sizes in one tensor, each in the top left of its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Border", "Canvas"]

#: What lies beyond an image's border: its mirror without the border pixel itself, or the border pixel again.
Border = Literal["reflect", "replicate"]


@dataclass(frozen=True)
class Canvas:
    """Image b is ``pixels[b, :, :height[b], :width[b]]``; what lies beyond it is finite where the image is.

    Whoever reads neighbours of a pixel takes them from :meth:`extended`, and whoever sums over all from :meth:`zeroed`.

    Args:
        pixels: ``(B, C, H, W)`` float32, about [0, 1].
        height: ``(B,)`` int64 of 1..H, on the same device; None: H for all.
        width: likewise.  Both or none are None.
    """

    pixels: Tensor
    height: Tensor | None = None
    width: Tensor | None = None

    @property
    def heights(self) -> Tensor:
        """``(B,)`` int64."""
        return self._full(2) if self.height is None else self.height

    @property
    def widths(self) -> Tensor:
        """``(B,)`` int64."""
        return self._full(3) if self.width is None else self.width

    @property
    def inside(self) -> Tensor:
        """``(B, 1, H, W)`` bool: what belongs to an image."""
        rows, columns = (torch.arange(side, device=self.pixels.device) for side in self.pixels.shape[2:])
        in_rows = rows < self.heights[:, None]
        in_columns = columns < self.widths[:, None]
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]

    def holding(self, pixels: Tensor) -> Canvas:
        """Other pixels ``(B, any, H, W)`` in images of the same sizes."""
        return Canvas(pixels, self.height, self.width)

    def zeroed(self) -> Tensor:
        """The pixels, 0 beyond the images."""
        return self.pixels if self.height is None else torch.where(self.inside, self.pixels, 0)

    def extended(self, top: int, bottom: int, left: int, right: int, border: Border) -> Tensor:
        """``(B, C, H + top + bottom, W + left + right)``: each image goes on beyond its own border."""
        height, width = self.pixels.shape[2:]
        if self.height is None:
            room = 1 if border == "reflect" else 0
            if max(top, bottom) <= height - room and max(left, right) <= width - room:
                return F.pad(self.pixels, (left, right, top, bottom), mode=border)
        rows = self._places(-top, height + bottom, self.heights, border)
        columns = self._places(-left, width + right, self.widths, border)
        batch, channels = self.pixels.shape[:2]
        taken = self.pixels.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
        return taken.gather(3, columns[:, None, None, :].expand(batch, channels, rows.shape[1], -1))

    def sized(self, height: int, width: int) -> Canvas:
        """The same images on a canvas of ``height`` x ``width``, which must hold them all."""
        if tuple(self.pixels.shape[2:]) == (height, width):
            return self
        more = (0, max(width - self.pixels.shape[3], 0), 0, max(height - self.pixels.shape[2], 0))
        return Canvas(F.pad(self.pixels, more)[..., :height, :width], self.heights, self.widths)

    def where(self, chosen: Tensor, other: Canvas) -> Canvas:
        """Image b of this canvas where ``chosen`` ``(B,)`` bool is true, else of ``other``."""
        height, width = (max(a, b) for a, b in zip(self.pixels.shape[2:], other.pixels.shape[2:], strict=True))
        ours, theirs = self.sized(height, width), other.sized(height, width)
        pixels = torch.where(chosen[:, None, None, None], ours.pixels, theirs.pixels)
        if ours.height is None and theirs.height is None:
            return Canvas(pixels)
        heights = torch.where(chosen, ours.heights, theirs.heights)
        return Canvas(pixels, heights, torch.where(chosen, ours.widths, theirs.widths))

    def _full(self, dim: int) -> Tensor:
        return torch.full((len(self.pixels),), self.pixels.shape[dim], dtype=torch.int64, device=self.pixels.device)

    @staticmethod
    def _places(begin: int, end: int, sides: Tensor, border: Border) -> Tensor:
        """``(B, end - begin)``: which row of an image stands at each place."""
        place = torch.arange(begin, end, device=sides.device)[None]
        last = sides[:, None] - 1
        if border == "reflect":
            period = (2 * last).clamp(min=1)
            place = place.remainder(period)
            place = torch.minimum(place, period - place)
        return torch.minimum(place.clamp(min=0), last)
