"""How good a result is: PSNR, SSIM, NIQE of 8-bit results without a border of 4 pixels, by BasicSR's own functions.

PSNR once more, as ``tone``, of results whose lowest frequencies are the reference's: two photographs by other focal
lengths differ in the tone of whole areas, which no pile tells, while pairs of neighbouring scenes tell some of it.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

import torch
from networks import enhance
from scenes import Columns, Pair
from torch import Tensor, nn

from synthpipe.images import to_float, to_uint8

__all__ = ["lowest", "measure_columns", "tone_sigma", "with_tone_of"]

_BORDER = 4
#: Cycles per pixel of the reference at which half of a wave's tone is taken from it.
_TONE = 0.02
#: dB, for equal images.
_MOST_PSNR = 100.0
#: Columns of which BasicSR's NIQE (blocks of 96 pixels, half a second an image) is asked.
_NATURAL = ("choose", "judge")


def measure_columns(
    net: nn.Module | None, columns: Columns, scale: int, most: int | None = None
) -> dict[str, dict[str, float]]:
    """Means over the images of each column: ``{"psnr": {column: dB}, "ssim": ..., "niqe": ..., "tone": ...}``.

    Args:
        net: the network; None enlarges bicubically.
        columns: pairs by name.
        scale: of the pairs.
        most: images of a column; None: all.
    """
    measures = {name: dict[str, float]() for name in ("psnr", "ssim", "niqe", "tone")}
    for column, pairs in columns.items():
        natural = scale > 1 and column.startswith(_NATURAL)
        for name, value in _means(net, pairs[:most], scale, natural).items():
            measures[name][column] = value
    return measures


def _means(net: nn.Module | None, pairs: Sequence[Pair], scale: int, niqe: bool) -> dict[str, float]:
    from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim

    rows = []
    for lq, gt in pairs:
        enhanced = enhance(net, lq, scale)
        made, reference = (_bgr(x) for x in (to_uint8(enhanced.clamp(0, 1)), gt))
        psnr = min(_MOST_PSNR, calculate_psnr(made, reference, _BORDER))
        row = {"psnr": psnr, "ssim": calculate_ssim(made, reference, _BORDER)}
        if niqe:
            toned = to_uint8(with_tone_of(enhanced, to_float(gt)).clamp(0, 1))
            row["tone"] = min(_MOST_PSNR, calculate_psnr(_bgr(toned), reference, _BORDER))
            with warnings.catch_warnings():  # blocks of one colour, which it leaves out
                warnings.simplefilter("ignore", RuntimeWarning)
                row["niqe"] = calculate_niqe(made, _BORDER)
        rows.append(row)
    return {name: statistics.fmean(float(row[name]) for row in rows) for name in rows[0]}


def with_tone_of(image: Tensor, reference: Tensor) -> Tensor:
    """The image with the reference's lowest frequencies in the place of its own, ``(3, H, W)``.

    A Gaussian parts them, whose response is 1/2 at :data:`_TONE`; beyond the border lies the mirror.

    Args:
        image: ``(3, H, W)`` float.
        reference: the same shape.
    """
    return image + lowest(reference - image, tone_sigma())


def tone_sigma() -> float:
    """Of that Gaussian, pixels of the reference."""
    return math.sqrt(math.log(2) / 2) / (math.pi * _TONE)


def lowest(image: Tensor, sigma: float) -> Tensor:
    """What a Gaussian of ``sigma`` pixels leaves of an image ``(3, H, W)``; beyond the border lies the mirror."""
    reach = math.ceil(3 * sigma)
    line = (-0.5 * (torch.arange(-reach, reach + 1) / sigma).square()).exp()
    line = line / line.sum()
    padded = nn.functional.pad(image[:, None], (reach,) * 4, mode="reflect")
    low = nn.functional.conv2d(nn.functional.conv2d(padded, line[None, None, None]), line[None, None, :, None])
    return low[:, 0]


def _bgr(x: Tensor) -> object:
    """As BasicSR takes images: ``(H, W, 3)``, blue first."""
    return x.flip(0).permute(1, 2, 0).contiguous().numpy()
