"""Linear systems of a few unknowns, many at once, that a CUDA graph can hold."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eliminate", "solve_positive"]


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
    size = left.shape[-1]
    rows = torch.cat([left, right], -1)
    own = torch.eye(size, dtype=torch.bool, device=rows.device)
    for place in range(size):
        pivot = rows[..., place : place + 1, :] / rows[..., place : place + 1, place : place + 1]
        rows = torch.where(own[:, place : place + 1], pivot, rows - rows[..., place : place + 1] * pivot)
    return rows[..., size:]
