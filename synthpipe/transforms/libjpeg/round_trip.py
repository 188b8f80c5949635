"""Images of a canvas through libjpeg's arithmetic, each with its own size, quality and chroma sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.images import divide_by_255
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.jpeg import CHROMA_TABLE, LUMA_TABLE, quantiser
from synthpipe.transforms.libjpeg.blocks import BlockCoder
from synthpipe.transforms.libjpeg.chroma import enlarged, reduced

__all__ = ["FACTORS", "LibjpegRoundTrip"]

#: By sampling: how many pixels one chroma value stands for, down and right.
FACTORS = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "411": (1, 4), "440": (2, 1)}

_ONE = 2.0**16  # libjpeg's colour constants have 16 bits


class LibjpegRoundTrip(nn.Module):
    """JPEG and back; the pixels are libjpeg-turbo's.

    Args:
        samplings: those that an image may have, keys of :data:`FACTORS`; each costs its own coding of chroma.
    """

    luma: Tensor
    chroma: Tensor

    def __init__(self, samplings: Sequence[str]) -> None:
        super().__init__()
        self.samplings = tuple(samplings)
        self.coder = BlockCoder()
        self.register_buffer("luma", torch.tensor(LUMA_TABLE), persistent=False)
        self.register_buffer("chroma", torch.tensor(CHROMA_TABLE), persistent=False)

    def forward(self, canvas: Canvas, quality: Tensor, sampling: Tensor) -> Canvas:
        """Compress and decompress.

        Args:
            canvas: RGB ``(B, 3, H, W)``, clipped to [0, 1] and rounded to 8 bits first.
            quality: ``(B,)`` int64, 1..100.
            sampling: ``(B,)`` int64, a sampling's name as a number: 420, 422, ...

        Returns:
            Multiples of 1/255.
        """
        height, width = canvas.pixels.shape[2:]
        levels = canvas.holding((canvas.pixels.clamp(0, 1) * 255).round())
        luma, blue_red = _luma_chroma(levels.pixels)
        bottom, right = -height % 8, -width % 8
        coded = self.coder(
            canvas.holding(luma).extended(0, bottom, 0, right, "replicate"),
            quantiser(self.luma, quality, torch.float64),
        )
        table = quantiser(self.chroma, quality, torch.float64)
        chroma = self._chroma(canvas.holding(blue_red), table, self.samplings[0])
        for name in self.samplings[1:]:
            other = self._chroma(canvas.holding(blue_red), table, name)
            chroma = torch.where((sampling == int(name))[:, None, None, None], other, chroma)
        return canvas.holding(divide_by_255(_rgb(coded[..., :height, :width], chroma)))

    def _chroma(self, canvas: Canvas, table: Tensor, sampling: str) -> Tensor:
        """``(B, 2, H, W)`` as coded."""
        height, width = canvas.pixels.shape[2:]
        small = reduced(canvas, *FACTORS[sampling])
        coded = small.holding(self.coder(small.pixels, table))
        return enlarged(coded, *FACTORS[sampling])[..., :height, :width]


def _luma_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """JFIF's Y ``(B, 1, H, W)`` and Cb, Cr ``(B, 2, H, W)``, whole numbers, all less 128."""
    red, green, blue = rgb.chunk(3, 1)
    luma = ((red * 19595 + green * 38470 + blue * 7471 + 32768) / _ONE).floor() - 128
    cb = (blue * 32768 - red * 11059 - green * 21709 + 32767) / _ONE
    cr = (red * 32768 - green * 27439 - blue * 5329 + 32767) / _ONE
    return luma, torch.cat((cb, cr), 1).floor()


def _rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """``(B, 3, H, W)``, whole numbers 0..255."""
    cb, cr = chroma.chunk(2, 1)
    red = ((cr * 91881 + 32768) / _ONE).floor()
    green = ((32768 - cb * 22554 - cr * 46802) / _ONE).floor()
    blue = ((cb * 116130 + 32768) / _ONE).floor()
    return (torch.cat((red, green, blue), 1) + luma + 128).clamp(0, 255)
