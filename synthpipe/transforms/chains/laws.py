"""Settings from uniform numbers, one of each sample's own; in float64, so that every device draws the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["between", "log_between", "pick", "whole_between"]


def between(limits: tuple[float, float], u: Tensor) -> Tensor:
    """Uniform on [low, high), from ``u`` in [0, 1)."""
    return u * (limits[1] - limits[0]) + limits[0]


def log_between(limits: tuple[float, float], u: Tensor) -> Tensor:
    """Uniform in the logarithm, on [low, high); both above 0."""
    low, high = (math.log(limit) for limit in limits)
    return (u * (high - low) + low).exp()


def whole_between(limits: tuple[int, int], u: Tensor) -> Tensor:
    """Whole numbers low..high, both included and all alike; int64."""
    low, high = limits
    return (low + (u * (high - low + 1)).floor()).to(torch.int64).clamp(max=high)


def pick(weights: Sequence[float], u: Tensor) -> Tensor:
    """``(B,)`` int64: which of the weights, in proportion to them; at least one is above 0."""
    # By a power of 2, which changes no digit: the sum of the largest numbers is infinite, that of the smallest coarse.
    exponent = math.frexp(max(weights))[1]
    weights = [math.ldexp(weight, -exponent) for weight in weights]
    total, sofar, picked = sum(weights), 0.0, torch.zeros_like(u, dtype=torch.int64)
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    for weight in weights[:last]:
        sofar += weight
        picked = picked + (u >= sofar / total)
    return picked
