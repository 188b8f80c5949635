"""What JPEG does to an image, without the file: ITU-T T.81 baseline with 4:2:0 chroma, batched, on any device.

Only the lossy steps are computed: colour conversion (JFIF), chroma averaging, 8x8 cosine transform, quantisation
with the tables of T.81 annex K scaled the way libjpeg's ``quality`` does, and all of it back.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.images import divide_by_255

__all__ = ["CHROMA_TABLE", "LUMA_TABLE", "JpegRoundTrip", "jpeg_round_trip", "quantiser"]

#: Divisors of each frequency at quality 50 (T.81 annex K); of luma, then of chroma.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
) + ((99,) * 8,) * 4
_RGB_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_YCC_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg_round_trip(x: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Shapes: ``x`` ``(B, 3, H, W)`` in [0, 1] (clipped and rounded to 8 bits first, as an encoder would see it),
    ``quality`` ``(B,)`` integers 1..100 -> ``(B, 3, H, W)``, multiples of 1/255.

    Raises:
        ShapeError: a quality out of range, or not one per image.
    """
    if quality.shape != (len(x),) or int(quality.min()) < 1 or int(quality.max()) > 100:
        raise ShapeError(f"jpeg_round_trip: expected {len(x)} qualities in 1..100, got {quality.tolist()}")
    codec = JpegRoundTrip().to(x.device)
    result: Tensor = codec(x, quality.to(x.device))
    return result


class JpegRoundTrip(nn.Module):
    """:func:`jpeg_round_trip` with its tables where the images are, so that it can stand in a CUDA graph."""

    luma: Tensor
    chroma: Tensor
    to_ycc: Tensor
    to_rgb: Tensor
    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        tables = {
            "luma": torch.tensor(LUMA_TABLE),
            "chroma": torch.tensor(CHROMA_TABLE),
            "to_ycc": torch.tensor(_RGB_TO_YCC, dtype=torch.float64),
            "to_rgb": torch.tensor(_YCC_TO_RGB, dtype=torch.float64),
            "cosines": _cosines(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """As :func:`jpeg_round_trip`, whose checks are left out; ``quality`` ``(B,)`` int64 is where ``x`` is."""
        height, width = x.shape[-2:]
        levels = (x.clamp(0, 1) * 255).round()
        ycc = torch.einsum("ij,bjhw->bihw", self.to_ycc.to(x), levels)
        ycc[:, 0] -= 128
        ycc = F.pad(ycc.round(), (0, -width % 16, 0, -height % 16), mode="replicate")
        luma = self._code_plane(ycc[:, :1], quantiser(self.luma, quality, x.dtype))
        # libjpeg rounds ties down in even and up in odd columns, when averaging and when interpolating alike.
        halved = (F.avg_pool2d(ycc[:, 1:], 2) + _alternating(ycc.shape[-1] // 2, 1 / 4, 2 / 4, x)).floor()
        chroma = self._code_plane(halved, quantiser(self.chroma, quality, x.dtype))
        # Its default ("fancy") upsampling has the weights 3/4 and 1/4, which is what bilinear gives for x2.
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        chroma = (chroma + _alternating(chroma.shape[-1], 8 / 16, 7 / 16, x)).floor()
        decoded = torch.cat((luma + 128, chroma), 1)[..., :height, :width]
        rgb = torch.einsum("ij,bjhw->bihw", self.to_rgb.to(x), decoded)
        return divide_by_255(rgb.round().clamp(0, 255))

    def _code_plane(self, plane: Tensor, quantiser: Tensor) -> Tensor:
        """Transform, round and transform back every 8x8 block of ``(B, C, H, W)``, values about -128..127."""
        batch, channels, height, width = plane.shape
        blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8)
        dct = self.cosines.to(plane)
        step = quantiser[:, None, None, :, None, :]
        coefficients = torch.einsum("ui,bcyixj,vj->bcyuxv", dct, blocks, dct)
        coefficients = (coefficients / step).round() * step
        decoded = torch.einsum("ui,bcyuxv,vj->bcyixj", dct, coefficients, dct)
        return decoded.reshape(batch, channels, height, width).round().clamp(-128, 127)


def _alternating(length: int, even: float, odd: float, like: Tensor) -> Tensor:
    place = torch.arange(length, device=like.device, dtype=like.dtype) % 2
    return even + (odd - even) * place


def quantiser(table: Tensor, quality: Tensor, dtype: torch.dtype) -> Tensor:
    """libjpeg's scaling of a table ``(8, 8)`` int64 by quality ``(B,)`` int64, 1..100; ``(B, 8, 8)``."""
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((table * percent[:, None, None] + 50) // 100).clamp(1, 255).to(dtype)


def _cosines() -> Tensor:
    """The orthonormal 8-point DCT-II: row u holds frequency u."""
    u = torch.arange(8, dtype=torch.float64)[:, None]
    i = torch.arange(8, dtype=torch.float64)[None]
    matrix = torch.cos((2 * i + 1) * u * math.pi / 16) / 2
    matrix[0] = math.sqrt(1 / 8)
    return matrix
