"""Whether what looks like noise belongs to the photograph: logistic regressions on the features of
:mod:`synthpipe.flat_noise.regression`.

Weak noise may be grain, as film and scans leave it (fitted by ``recipes/noise_levels/grain.py``), and strong noise of
grey images may be texture (``recipes/noise_levels/grey_texture.py``).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["grain_probability", "texture_probability"]


def grain_probability(x: Tensor) -> float:
    """Probability, 0 to 1, that weak noise is the photograph's own.

    Args:
        x: ``(B, 3, F)`` float32 on the CPU, features of the tiles of one image, standardised as those of colour are.
    """
    return _probability(x, "grain")


def texture_probability(x: Tensor) -> float:
    """Probability, 0 to 1, that strong noise of a grey image is texture.

    Args:
        x: ``(B, 3, F)`` float32 on the CPU, features of the tiles of one image, standardised as those of grey are.
    """
    return _probability(x, "grey_texture")


def _probability(x: Tensor, name: str) -> float:
    weight, bias = _load(name)
    return float(torch.sigmoid(-(x.mean((0, 1)) @ weight + bias)))


@functools.cache
def _load(name: str) -> tuple[Tensor, Tensor]:
    """``(F,)``, and one number."""
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as file:
        return torch.from_numpy(file["weight"]), torch.from_numpy(file["bias"])
