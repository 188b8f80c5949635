"""Whether weak noise is a photograph's own grain, which belongs to it, or a camera's; a logistic regression on the
features of :mod:`synthpipe.flat_noise.regression`, fitted by ``recipes/noise_levels/grain.py``."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["grain_probability"]

_FILE = Path(__file__).with_name("grain.npz")


def grain_probability(x: Tensor) -> float:
    """Probability, 0 to 1, that the noise is the photograph's own.

    Args:
        x: ``(B, 3, F)`` float32 on the CPU, standardised features of the tiles of one image.
    """
    weight, bias = _load()
    return float(torch.sigmoid(-(x.mean((0, 1)) @ weight + bias)))


@functools.cache
def _load() -> tuple[Tensor, Tensor]:
    """``(F,)``, and one number."""
    with np.load(_FILE, allow_pickle=False) as file:
        return torch.from_numpy(file["weight"]), torch.from_numpy(file["bias"])
