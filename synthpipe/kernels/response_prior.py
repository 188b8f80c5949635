"""What is thought of a blur's response before it is measured: smooth, 1 at the frequency 0, perhaps a sharpening.

Legend: K nodes of a response, evenly from 0 to 0.5 cycles per pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["NODES", "nodes", "response_prior"]

#: Number of nodes.
NODES = 33
#: Standard deviations of a u^2 and b u^4 in log H at f, with u = f / 0.4.
_QUADRATIC, _QUARTIC, _UNIT = 2.0, 0.3, 0.4
#: Radii of the unsharp masks that stand for all, pixels.
_RADII = (1.0, 1.4, 1.8)


def nodes() -> Tensor:
    """``(K,)`` float64: cycles per pixel."""
    return torch.linspace(0, 0.5, NODES, dtype=torch.float64)


def response_prior(smooth: float, reach: float, sharpening: float = 0.0) -> Tensor:
    """Covariance of log H at the nodes, ``(K, K)`` float64.

    Args:
        smooth: standard deviation at u = 1 of a smooth remainder, which grows as u^2.
        reach: of that remainder, over how many cycles per pixel it hangs together.
        sharpening: standard deviation of the amount of an unsharp mask, which raises low frequencies by more than a
            smooth response may; 0: none is expected.
    """
    node = nodes()
    unit = (node / _UNIT).square()
    remainder = smooth**2 * (-0.5 * ((node[:, None] - node) / reach).square()).exp()
    quartic = _QUARTIC**2 * unit[:, None] * unit
    covariance = (remainder + _QUADRATIC**2 + quartic) * unit[:, None] * unit
    if sharpening:
        square = 2 * math.pi**2 * node.square()
        masks = torch.stack([1 - (-square * radius**2).exp() for radius in _RADII])
        covariance = covariance + sharpening**2 / len(_RADII) * masks.T @ masks
    return covariance
