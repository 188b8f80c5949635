"""What JPEG does to an image, without the file: ITU-T T.81 baseline with 4:2:0 chroma, batched, on any device.

Only the lossy steps are computed: colour conversion (JFIF), chroma averaging, 8x8 cosine transform, quantisation
with the tables of T.81 annex K scaled the way libjpeg's ``quality`` does, and all of it back.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.images import divide_by_255

__all__ = ["jpeg_round_trip"]

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
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
    height, width = x.shape[-2:]
    levels = (x.clamp(0, 1) * 255).round()
    ycc = torch.einsum("ij,bjhw->bihw", x.new_tensor(_RGB_TO_YCC), levels)
    ycc[:, 0] -= 128
    ycc = F.pad(ycc.round(), (0, -width % 16, 0, -height % 16), mode="replicate")
    luma = _code_plane(ycc[:, :1], _quantiser(_LUMA, quality, x))
    # libjpeg rounds ties down in even and up in odd columns, when averaging and when interpolating alike.
    halved = (F.avg_pool2d(ycc[:, 1:], 2) + _alternating(ycc.shape[-1] // 2, 1 / 4, 2 / 4, x)).floor()
    chroma = _code_plane(halved, _quantiser(_CHROMA, quality, x))
    # Its default ("fancy") upsampling has the weights 3/4 and 1/4, which is what bilinear gives for x2.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    chroma = (chroma + _alternating(chroma.shape[-1], 8 / 16, 7 / 16, x)).floor()
    decoded = torch.cat((luma + 128, chroma), 1)[..., :height, :width]
    rgb = torch.einsum("ij,bjhw->bihw", x.new_tensor(_YCC_TO_RGB), decoded)
    return divide_by_255(rgb.round().clamp(0, 255))


def _alternating(length: int, even: float, odd: float, like: Tensor) -> Tensor:
    return like.new_tensor((even, odd)).repeat(length // 2)


def _quantiser(table: tuple[tuple[int, ...], ...], quality: Tensor, like: Tensor) -> Tensor:
    """libjpeg's scaling of a table by quality; ``(B, 8, 8)``."""
    q = quality.to(device=like.device, dtype=torch.int64)
    percent = torch.where(q < 50, 5000 // q, 200 - 2 * q)
    base = torch.tensor(table, device=like.device)
    return ((base * percent[:, None, None] + 50) // 100).clamp(1, 255).to(like.dtype)


def _code_plane(plane: Tensor, quantiser: Tensor) -> Tensor:
    """Transform, round and transform back every 8x8 block of ``(B, C, H, W)``, values about -128..127."""
    batch, channels, height, width = plane.shape
    blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8)
    dct = _cosines(plane)
    step = quantiser[:, None, None, :, None, :]
    coefficients = torch.einsum("ui,bcyixj,vj->bcyuxv", dct, blocks, dct)
    coefficients = (coefficients / step).round() * step
    decoded = torch.einsum("ui,bcyuxv,vj->bcyixj", dct, coefficients, dct)
    return decoded.reshape(batch, channels, height, width).round().clamp(-128, 127)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal 8-point DCT-II: row u holds frequency u."""
    u = torch.arange(8, dtype=torch.float64)[:, None]
    i = torch.arange(8, dtype=torch.float64)[None]
    matrix = torch.cos((2 * i + 1) * u * math.pi / 16) / 2
    matrix[0] = math.sqrt(1 / 8)
    return matrix.to(device=like.device, dtype=like.dtype)
