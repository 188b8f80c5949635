"""Blocks of 8x8 as libjpeg codes them: its accurate integer cosine transform ("islow"), quantised, and back.

Its transform (Loeffler, Ligtenberg and Moschytz 1989) is linear in integers, with constants of 13 bits, and rounds only
at the end of each of its two passes.  So each pass is a matrix of integers, a shift and a rounding; the matrix is had
by putting unit vectors through the algorithm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BlockCoder"]

_BITS = 13  # of the constants
_MORE = 2  # bits that are kept between the passes


class BlockCoder(nn.Module):
    """What is left of planes whose blocks were transformed and quantised."""

    forward_rows: Tensor
    forward_columns: Tensor
    inverse_columns: Tensor
    inverse_rows: Tensor
    rounding: Tensor

    def __init__(self) -> None:
        super().__init__()
        scale = 2.0**_BITS
        passes = {
            "forward_rows": _forward_matrix() / scale * 2**_MORE,
            "forward_columns": _forward_matrix() / scale / 2**_MORE,
            "inverse_columns": _inverse_matrix() / scale * 2**_MORE,
            "inverse_rows": _inverse_matrix() / scale / 2 ** (_MORE + 3),
            "rounding": torch.full((8,), 0.5, dtype=torch.float64),
        }
        for name, table in passes.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, plane: Tensor, table: Tensor) -> Tensor:
        """Code and decode.

        Args:
            plane: ``(B, C, H, W)`` float32, whole numbers -128..127, sides multiples of 8.
            table: ``(B, 8, 8)`` float64: the divisor of each frequency.
        """
        batch, channels, height, width = plane.shape
        blocks = plane.double().reshape(batch, channels, height // 8, 8, width // 8, 8)
        rows = self._pass(blocks, self.forward_rows)  # (B, C, Y, y, X, horizontal frequency)
        # (B, C, Y, X, horizontal frequency, vertical frequency)
        coefficients = self._pass(rows.permute(0, 1, 2, 4, 5, 3), self.forward_columns)
        step = table.transpose(1, 2)[:, None, None, None]
        # The transform is 8 times the orthonormal one; ties go away from zero.
        whole = (coefficients.abs() / (8 * step) + 0.5).floor().copysign(coefficients) * step
        columns = self._pass(whole, self.inverse_columns)  # (..., horizontal frequency, y)
        decoded = self._pass(columns.transpose(4, 5), self.inverse_rows)  # (B, C, Y, X, y, x)
        return decoded.clamp(-128, 127).float().transpose(3, 4).reshape(plane.shape)

    def _pass(self, values: Tensor, matrix: Tensor) -> Tensor:
        """A pass along the last axis, rounded: exact, since matrix and values are whole numbers over powers of 2."""
        return F.linear(values, matrix, self.rounding).floor()


def _fix(value: float) -> int:
    return round(value * (1 << _BITS))


def _forward_matrix() -> Tensor:
    """Row u: 2^13 sqrt(8) times the DCT-II of frequency u, as sums of the algorithm's constants."""
    i = torch.eye(8, dtype=torch.float64)
    sums = [i[k] + i[7 - k] for k in range(4)]
    outer, inner = (sums[0] + sums[3], sums[0] - sums[3]), (sums[1] + sums[2], sums[1] - sums[2])
    zero, four = (outer[0] + inner[0]) * 2**_BITS, (outer[0] - inner[0]) * 2**_BITS
    shared = (inner[1] + outer[1]) * _fix(0.541196100)
    two, six = shared + outer[1] * _fix(0.765366865), shared - inner[1] * _fix(1.847759065)
    seven, five, three, one = _odd_part([i[3] - i[4], i[2] - i[5], i[1] - i[6], i[0] - i[7]])
    return torch.stack([zero, one, two, three, four, five, six, seven])


def _inverse_matrix() -> Tensor:
    """Column u: what frequency u adds to each of 8 pixels, times 2^13 sqrt(8)."""
    i = torch.eye(8, dtype=torch.float64)
    shared = (i[2] + i[6]) * _fix(0.541196100)
    low, high = shared - i[6] * _fix(1.847759065), shared + i[2] * _fix(0.765366865)
    total, difference = (i[0] + i[4]) * 2**_BITS, (i[0] - i[4]) * 2**_BITS
    even = [total + high, difference + low, difference - low, total - high]
    three, two, one, zero = _odd_part([i[7], i[5], i[3], i[1]])
    odd = [zero, one, two, three]
    first = [e + o for e, o in zip(even, odd, strict=True)]
    last = [e - o for e, o in zip(even, odd, strict=True)]
    return torch.stack(first + last[::-1])


def _odd_part(t: list[Tensor]) -> list[Tensor]:
    """The butterflies of the odd frequencies, which the transform and its inverse share."""
    z1, z2, z3, z4 = t[0] + t[3], t[1] + t[2], t[0] + t[2], t[1] + t[3]
    z5 = (z3 + z4) * _fix(1.175875602)
    z1, z2 = z1 * -_fix(0.899976223), z2 * -_fix(2.562915447)
    z3, z4 = z3 * -_fix(1.961570560) + z5, z4 * -_fix(0.390180644) + z5
    return [
        t[0] * _fix(0.298631336) + z1 + z3,
        t[1] * _fix(2.053119869) + z2 + z4,
        t[2] * _fix(3.072711026) + z2 + z3,
        t[3] * _fix(1.501321110) + z1 + z4,
    ]
