"""How libjpeg reduces chroma planes and enlarges them again (its "fancy" upsampling); whole numbers in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.transforms.chains.canvas import Canvas

__all__ = ["enlarged", "reduced"]


def reduced(canvas: Canvas, down: int, right: int) -> Canvas:
    """Means of ``down`` x ``right`` pixels, as planes whose sides are multiples of 8.

    Ties go up; at half the width they go down in even columns.
    """
    height, width = canvas.pixels.shape[2:]
    extended = canvas.extended(0, -height % (8 * down), 0, -width % (8 * right), "replicate")
    total = extended[:, :, ::down, ::right]
    for place in range(1, down * right):
        total = total + extended[:, :, place // right :: down, place % right :: right]
    ties = down * right // 2
    means = ((total + _alternating(ties - (right == 2), ties, total)) / (down * right)).floor()
    # Beyond the image to the right libjpeg repeats its pixels, but below it rows of means.
    heights, widths = _divided(canvas.heights, down), _divided(canvas.widths, right)
    rows = Canvas(means, heights, torch.full_like(widths, means.shape[3]))
    return Canvas(rows.extended(0, 0, 0, 0, "replicate"), heights, widths)


def enlarged(canvas: Canvas, down: int, right: int) -> Tensor:
    """Planes of ``down`` times the height and ``right`` times the width.

    A factor of 2 interpolates between neighbours, 3 to 1, at a width of three and more; others repeat.
    """
    planes = canvas.pixels
    plain = planes.repeat_interleave(down, 2).repeat_interleave(right, 3)
    if 2 not in (down, right):
        return plain
    smooth = canvas.extended(int(down == 2), int(down == 2), int(right == 2), int(right == 2), "replicate")
    if down == 2:
        smooth = _between(smooth, 2)
    if right == 2:
        smooth = _between(smooth, 3)
    # Sums are over 4, or over 16 after both; half of it is added before they are cut, and by turns one less.
    whole = 4 ** ((down == 2) + (right == 2))
    first, second = (8, 7) if whole == 16 else (1, 2)
    if right == 2:
        smooth = smooth + _alternating(first, second, smooth)
    else:
        smooth = smooth + _alternating(first, second, smooth.transpose(2, 3)).unsqueeze(1)
    smooth = (smooth / whole).floor()
    return smooth if right == 1 else torch.where((canvas.widths > 2)[:, None, None, None], smooth, plain)


def _between(planes: Tensor, dim: int) -> Tensor:
    """Four times the values at 1/4 and 3/4 of each place along ``dim``, whose ends are neighbours only."""
    inner = planes.shape[dim] - 2
    here = planes.narrow(dim, 1, inner) * 3
    return torch.stack((here + planes.narrow(dim, 0, inner), here + planes.narrow(dim, 2, inner)), dim + 1).flatten(
        dim, dim + 1
    )


def _divided(sides: Tensor, by: int) -> Tensor:
    return (sides + by - 1) // by


def _alternating(even: int, odd: int, like: Tensor) -> Tensor:
    """``(W,)``: one number for even columns of ``like``, another for odd ones."""
    place = torch.arange(like.shape[-1], device=like.device, dtype=like.dtype) % 2
    return even + (odd - even) * place
