"""Covariances between the channels of each pixel: small matrices whose entries are images.

Worked out entry by entry, so that a batch of images needs no call to a solver for each pixel.

Legend: B batch, C channels (1 or 3), H, W size.  A covariance is ``(B, C, C, H, W)``, in squared units of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "covariance_from_factor",
    "factor_size",
    "marginal_std",
    "plus_diagonal",
    "solve",
    "subtract_diagonal",
    "whiten",
]

#: Least pivot: variance of rounding to a tenth of a level of 8 bits.
_TINY = 1e-8


def factor_size(channels: int) -> int:
    """Entries of an upper-triangular C x C matrix."""
    return channels * (channels + 1) // 2


def covariance_from_factor(factor: Tensor, channels: int) -> Tensor:
    """``A^T A`` of the upper-triangular A whose rows are ``factor`` ``(B, C (C + 1) / 2, H, W)``."""
    entries = iter(factor.unbind(1))
    upper = {(row, column): next(entries) for row in range(channels) for column in range(row, channels)}
    return _gram([[upper[k, i] for k in range(i + 1)] for i in range(channels)])


def whiten(covariance: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """``L^-1 r`` ``(B, C, H, W)`` and ``log det`` ``(B, H, W)`` of the covariance ``L L^T``."""
    lower = _cholesky(covariance)
    white = _forward(lower, residual)
    logdet = 2 * _sum([lower[i][i].log() for i in range(len(lower))])
    return torch.stack(white, 1), logdet


def solve(covariance: Tensor, residual: Tensor) -> Tensor:
    """``covariance^-1 r``, ``(B, C, H, W)``."""
    lower = _cholesky(covariance)
    found = _forward(lower, residual)
    for i in reversed(range(len(lower))):
        later = [lower[k][i] * found[k] for k in range(i + 1, len(lower))]
        found[i] = (found[i] - _sum(later) if later else found[i]) / lower[i][i]
    return torch.stack(found, 1)


def subtract_diagonal(covariance: Tensor, variance: Tensor) -> Tensor:
    """``covariance - diag(variance)`` where that is a covariance, and a near one where it is not.

    The diagonal is kept, at least 0, and correlations are cut to what a covariance may have, channel after channel.

    Args:
        covariance: ``(B, C, C, H, W)``.
        variance: ``(B, C, H, W)``.
    """
    channels = covariance.shape[1]
    lower: list[list[Tensor]] = []
    for i in range(channels):
        left = (covariance[:, i, i] - variance[:, i]).clamp(min=0)  # what is left of this channel's variance
        row: list[Tensor] = []
        for j in range(i):
            known = _sum([covariance[:, i, j], *(-row[k] * lower[j][k] for k in range(j))])
            bound = left.sqrt()
            row.append((known / lower[j][j].clamp(min=_TINY**0.5)).clamp(-bound, bound))
            left = (left - row[j].square()).clamp(min=0)
        lower.append([*row, left.sqrt()])
    return _gram(lower)


def plus_diagonal(covariance: Tensor, variance: Tensor) -> Tensor:
    """``covariance + diag(variance)``, the latter ``(B, C, H, W)``."""
    total = covariance.clone()
    torch.diagonal(total, dim1=1, dim2=2).add_(variance.movedim(1, -1))
    return total


def marginal_std(covariance: Tensor) -> Tensor:
    """Standard deviation of each channel by itself, ``(B, C, H, W)``."""
    return torch.diagonal(covariance, dim1=1, dim2=2).movedim(-1, 1).clamp(min=0).sqrt()


def _cholesky(covariance: Tensor) -> list[list[Tensor]]:
    """Rows of the lower factor, each entry ``(B, H, W)``; pivots are at least ``_TINY``."""
    lower: list[list[Tensor]] = []
    for i in range(covariance.shape[1]):
        row: list[Tensor] = []
        for j in range(i):
            known = _sum([covariance[:, i, j], *(-row[k] * lower[j][k] for k in range(j))])
            row.append(known / lower[j][j])
        pivot = _sum([covariance[:, i, i], *(-entry.square() for entry in row)])
        lower.append([*row, pivot.clamp(min=_TINY).sqrt()])
    return lower


def _forward(lower: list[list[Tensor]], residual: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    for i, row in enumerate(lower):
        known = _sum([residual[:, i], *(-row[k] * found[k] for k in range(i))])
        found.append(known / row[i])
    return found


def _gram(lower: list[list[Tensor]]) -> Tensor:
    """``L L^T`` of the rows of a lower factor."""
    sides = range(len(lower))
    entries = {(i, j): _sum([lower[i][k] * lower[j][k] for k in range(j + 1)]) for i in sides for j in range(i + 1)}
    flat = torch.stack([entries[max(i, j), min(i, j)] for i in sides for j in sides], 1)
    return torch.unflatten(flat, 1, (len(lower), len(lower)))


def _sum(terms: list[Tensor]) -> Tensor:
    """The sum of at least one tensor, typed as one."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
