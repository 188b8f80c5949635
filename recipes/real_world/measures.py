"""How good a result is: PSNR, SSIM, NIQE of 8-bit results without a border of 4 pixels, by BasicSR's own functions."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence

from networks import enhance
from scenes import Columns, Pair
from torch import Tensor, nn

from synthpipe.images import to_uint8

__all__ = ["measure_columns"]

_BORDER = 4
#: dB, for equal images.
_MOST_PSNR = 100.0
#: Columns of which BasicSR's NIQE (blocks of 96 pixels, half a second an image) is asked.
_NATURAL = ("choose", "judge")


def measure_columns(
    net: nn.Module | None, columns: Columns, scale: int, most: int | None = None
) -> dict[str, dict[str, float]]:
    """Means over the images of each column: ``{"psnr": {column: dB}, "ssim": ..., "niqe": ...}``.

    Args:
        net: the network; None enlarges bicubically.
        columns: pairs by name.
        scale: of the pairs.
        most: images of a column; None: all.
    """
    measures = {name: dict[str, float]() for name in ("psnr", "ssim", "niqe")}
    for column, pairs in columns.items():
        natural = scale > 1 and column.startswith(_NATURAL)
        for name, value in _means(net, pairs[:most], scale, natural).items():
            measures[name][column] = value
    return measures


def _means(net: nn.Module | None, pairs: Sequence[Pair], scale: int, niqe: bool) -> dict[str, float]:
    from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim

    rows = []
    for lq, gt in pairs:
        made, reference = (_bgr(x) for x in (to_uint8(enhance(net, lq, scale).clamp(0, 1)), gt))
        psnr = min(_MOST_PSNR, calculate_psnr(made, reference, _BORDER))
        row = {"psnr": psnr, "ssim": calculate_ssim(made, reference, _BORDER)}
        if niqe:
            with warnings.catch_warnings():  # blocks of one colour, which it leaves out
                warnings.simplefilter("ignore", RuntimeWarning)
                row["niqe"] = calculate_niqe(made, _BORDER)
        rows.append(row)
    return {name: statistics.fmean(float(row[name]) for row in rows) for name in rows[0]}


def _bgr(x: Tensor) -> object:
    """As BasicSR takes images: ``(H, W, 3)``, blue first."""
    return x.flip(0).permute(1, 2, 0).contiguous().numpy()
