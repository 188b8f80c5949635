"""Linear degradations ``y = K x + noise`` whose proximal step is solved exactly.

Restoration asks an operator for one thing above all, the data step

    argmin_x ||K x - y||^2 + weight ||x - v||^2  =  v + K^T (K K^T + weight)^-1 (y - K v),

in which ``weight`` is the noise's variance times the penalty.  A subclass MUST

* give ``forward`` (K) and ``adjoint`` (K^T), exactly adjoint: ``<K x, y> = <x, K^T y>``;
* solve ``(K K^T + weight) s = r`` in ``solve_gram``, exactly or to a stated tolerance;
* act on each image and channel by itself, at the precision and on the device of its input.

Legend: B batch, C channels, h, w size of what is observed, H, W of the unknown image, s its scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["DegradationOperator", "Identity", "Mask"]


class DegradationOperator(nn.Module, ABC):
    """K; see the module's docstring for what a subclass must keep."""

    __call__: Callable[..., Tensor]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """K x: ``(B, C, H, W)`` -> ``(B, C, h, w)``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """K^T y: ``(B, C, h, w)`` -> ``(B, C, H, W)``."""

    @abstractmethod
    def solve_gram(self, residual: Tensor, weight: Tensor) -> Tensor:
        """``(K K^T + weight)^-1 residual``: ``(B, C, h, w)`` and ``(B,)``, positive -> ``(B, C, h, w)``."""

    def data_step(self, v: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """``argmin_x ||K x - y||^2 + weight ||x - v||^2``.

        Args:
            v: ``(B, C, H, W)``.
            y: ``(B, C, h, w)``.
            weight: ``(B,)``, positive.
        """
        return v + self.adjoint(self.solve_gram(y - self(v), weight))

    def first_guess(self, y: Tensor) -> Tensor:
        """A plain estimate ``(B, C, H, W)`` to begin with; the observation itself where sizes agree."""
        return y

    def aligned(self, x: Tensor, height: int, width: int) -> Tensor:
        """The part ``(B, C, s height, s width)`` of ``x`` under an observation of this size; all by default."""
        return x

    def measurements(self, y: Tensor) -> Tensor:
        """How many values were measured for each image ``(B,)``; by default each that ``y`` holds."""
        return y.new_full((len(y),), y[0].numel())


class Identity(DegradationOperator):
    """Noise alone."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself, ``(B, C, H, W)``."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """``y`` itself, ``(B, C, H, W)``."""
        return y

    def solve_gram(self, residual: Tensor, weight: Tensor) -> Tensor:
        """``residual / (1 + weight)``, ``(B, C, H, W)``."""
        return residual / (1 + weight[:, None, None, None])


class Mask(DegradationOperator):
    """Missing pixels, which the observation holds as zeros.

    Args:
        mask: ``(1 or B, 1 or C, H, W)``, 1 where a pixel is observed, 0 where it is missing.

    Raises:
        ShapeError: another rank, or values other than 0 and 1.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if mask.ndim != 4 or not bool(((mask == 0) | (mask == 1)).all()):
            raise ShapeError(
                f"Mask: expected (1 or B, 1 or C, H, W) of zeros (missing) and ones, got {tuple(mask.shape)} with "
                f"values from {float(mask.min()):.4g} to {float(mask.max()):.4g}"
            )
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)`` with zeros where pixels are missing.

        Raises:
            ShapeError: images of another size than the mask.
        """
        if x.shape[2:] != self.mask.shape[2:]:
            raise ShapeError(
                f"Mask: expected images of {self.mask.shape[2]}x{self.mask.shape[3]} like the mask, got "
                f"{x.shape[2]}x{x.shape[3]}"
            )
        return x * self.mask.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``y`` ``(B, C, H, W)`` with zeros where pixels are missing."""
        return y * self.mask.to(y)

    def solve_gram(self, residual: Tensor, weight: Tensor) -> Tensor:
        """``residual / (mask + weight)``, ``(B, C, H, W)``."""
        return residual / (self.mask.to(residual) + weight[:, None, None, None])

    def first_guess(self, y: Tensor) -> Tensor:
        """``y`` with missing pixels filled by the mean of 3x3 windows, where those are empty of 5x5, and so on."""
        known = self.mask.to(y).expand(len(y), y.shape[1], -1, -1)
        y = y * known
        filled, todo = y, known == 0
        for radius in range(1, max(y.shape[2:]) + 1):
            if not bool(todo.any()):
                break
            total, count = (_window_mean(z, radius) for z in (y, known))
            hit = todo & (count > 0.5 / (2 * radius + 1) ** 2)
            filled = torch.where(hit, total / count.clamp(min=torch.finfo(y.dtype).tiny), filled)
            todo = todo & ~hit
        return filled

    def measurements(self, y: Tensor) -> Tensor:
        """How many values of each image the mask lets through, ``(B,)``."""
        return self.mask.to(y).expand_as(y).sum((1, 2, 3))


def _window_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the square around each pixel, with zeros beyond the border."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(x, (side, 1), 1, (radius, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, radius))
