"""Linear systems of a few unknowns, many at once, that a CUDA graph can hold."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eliminate", "inverse_and_log_det", "solve_positive"]


def solve_positive(left: Tensor, right: Tensor) -> Tensor:
    """``left^-1 right`` of symmetric positive definite systems; LAPACK on a CPU, else :func:`eliminate`.

    Args:
        left: ``(..., N, N)``.
        right: ``(..., N, K)``.

    Returns:
        ``(..., N, K)``.
    """
    if left.device.type == "cpu":
        solution: Tensor = torch.linalg.solve(left, right)
        return solution
    # Libraries on a device ask it whether the system was singular.
    return eliminate(left.double(), right.double()).to(right.dtype)


def eliminate(left: Tensor, right: Tensor) -> Tensor:
    """``left^-1 right`` by Gauss and Jordan, without pivoting, which positive definite systems do not need.

    Four operations for each unknown, whatever the number of systems.

    Args:
        left: ``(..., N, N)``, symmetric positive definite.
        right: ``(..., N, K)``.

    Returns:
        ``(..., N, K)``.
    """
    return _reduced(left, right)[0]


def inverse_and_log_det(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Of positive definite ``(..., N, N)``, by :func:`eliminate`: ``(..., N, N)`` and ``(...)``, natural logarithms."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    inverse, pivots = _reduced(matrix, identity)
    return inverse, pivots.log().sum(-1)


def _reduced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """``left^-1 right``, and the pivots ``(..., N)``, whose product is the determinant."""
    size, pivots = left.shape[-1], []
    rows = torch.cat([left, right], -1)
    own = torch.eye(size, dtype=torch.bool, device=rows.device)
    for place in range(size):
        pivots.append(rows[..., place, place])
        row = rows[..., place : place + 1, :] / pivots[-1][..., None, None]
        rows = torch.where(own[:, place : place + 1], row, rows - rows[..., place : place + 1] * row)
    return rows[..., size:], torch.stack(pivots, -1)
