"""How far a set of samples is from another: divergence of histograms in the plane, shares of modes."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["histogram_divergence", "mode_shares"]

#: Added to every cell: Jeffreys' prior, so that an empty cell does not make the divergence infinite.
_PRIOR = 0.5


def histogram_divergence(
    samples: Tensor, reference: Tensor, bins: int = 50, half_side: float = 5.0
) -> tuple[float, float]:
    """``KL(q || p)`` and ``KL(p || q)`` of two histograms, in nats.

    As in the measurements of arXiv 2001.02728's code: 50x50 cells on [-5, 5]^2; here one more cell holds everything
    outside.  Finite sets give more than 0 for equal laws, about ``cells in use / (2 N)`` for each set of ``N``: take
    many, and compare with two independent sets of the reference.

    Args:
        samples: ``(N, 2)`` of ``q``.
        reference: ``(M, 2)`` of ``p``.
        bins: cells on each side.
        half_side: of the box about 0.

    Raises:
        ShapeError: no points in the plane.
    """
    q, p = (_shares(points, bins, half_side) for points in (samples, reference))
    return float((q * (q / p).log()).sum()), float((p * (p / q).log()).sum())


def mode_shares(samples: Tensor, centres: Tensor) -> Tensor:
    """The share of samples nearest to each centre, ``(K,)``.

    Args:
        samples: ``(N, d)``.
        centres: ``(K, d)``.

    Raises:
        ShapeError: points of different dimensions.
    """
    if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1:] != centres.shape[1:] or not len(samples):
        raise ShapeError(f"mode_shares: expected (N, d) and (K, d), got {tuple(samples.shape)}, {tuple(centres.shape)}")
    nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in torch.split(samples, 65536)])
    return torch.bincount(nearest, minlength=len(centres)) / len(samples)


def _shares(points: Tensor, bins: int, half_side: float) -> Tensor:
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ShapeError(f"histogram_divergence: expected points (N, 2), got {tuple(points.shape)}")
    cell = ((points + half_side) * (bins / (2 * half_side))).floor().long()
    inside = ((cell >= 0) & (cell < bins)).all(1)
    index = torch.where(inside, cell[:, 0] * bins + cell[:, 1], bins**2)
    counts = torch.bincount(index, minlength=bins**2 + 1).double() + _PRIOR
    return counts / counts.sum()
