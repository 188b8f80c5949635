"""The contract of flow layers.

A layer is an invertible map of feature maps, possibly conditioned on features ``cond``.  It MUST

* return from :meth:`FlowLayer.forward` the pair ``(z, logdet)`` with ``logdet = log|det dz/dx|``, a ``(B,)`` tensor
  in nats, also where it is constant;
* return from :meth:`FlowLayer.inverse` the pair ``(x, logdet)`` with ``logdet = log|det dx/dz|``, which is minus the
  forward one at that point;
* work in the dtype of its input (float32 or float64), whatever autocast says: reduced precision is for the
  sub-networks that produce scales and shifts, never for the map itself.

Shapes: ``x``, ``z`` are ``(B, C, H, W)``; ``cond`` is ``(B, F, H, W)`` or None where the layer has none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synthpipe.errors import ShapeError

__all__ = ["MAX_LEVELS", "Checkpointed", "FlowLayer", "Sequential", "bits_per_dim", "check_levels"]

T = TypeVar("T")

#: Of any flow of images: each halves the sides and multiplies the channels.
MAX_LEVELS = 16


class Checkpointed(nn.Module):
    """What can keep little for backward and compute the rest again there (Chen et al. 2016, arXiv 1604.06174).

    The gradient is the same to the bit.  What is computed again MUST NOT draw random numbers.
    """

    #: Whether it does; only where a gradient is asked for.
    checkpointing = False

    def _computed(self, function: Callable[..., T], *inputs: Tensor | None) -> T:
        """``function(*inputs)``, of which, with ``checkpointing``, the inputs alone are kept.

        Backward computes no more of it again than it needs: not the last operation, where that needs its inputs alone.
        """
        if not (self.checkpointing and torch.is_grad_enabled()):
            return function(*inputs)
        result: T = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result


class FlowLayer(nn.Module, ABC):
    """One invertible map; see the module's docstring for what a subclass must keep."""

    @abstractmethod
    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data ``(B, C, H, W)`` to latent, of that shape in most layers, with the log-determinant ``(B,)`` in nats."""

    @abstractmethod
    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data, with the log-determinant ``(B,)`` of this direction."""


class Sequential(FlowLayer):
    """Layers applied in order; log-determinants add up."""

    def __init__(self, *layers: FlowLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` through the layers in order -> ``z`` and the sum ``(B,)`` of the log-determinants, in nats."""
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, logdet = layer(x, cond)
            total = total + logdet
        return x, total

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``z`` through the inverses, the last layer first -> ``x`` and the sum ``(B,)`` of their log-determinants."""
        total = z.new_zeros(z.shape[0])
        for layer in reversed(self.layers):
            z, logdet = layer.inverse(z, cond)  # type: ignore[operator]
            total = total + logdet
        return z, total


def bits_per_dim(nll: Tensor, shape: Sequence[int], quant: int) -> Tensor:
    """True bits per dimension of images whose levels are 1 / quant apart: an upper bound on the code length.

    Args:
        nll: ``(B,)`` in nats, a density on the [0, 1] scale of images dequantised by noise of width 1 / quant.
        shape: of the images, ``(..., C, H, W)``.
        quant: 1 over the distance of two levels.  (DeFlow's reference prints ``3 * bits_per_dim - 10`` at quant 32.)

    The uniform density needs all of the 8 bits:

    >>> import torch
    >>> from synthpipe.flows import bits_per_dim
    >>> bits_per_dim(torch.zeros(1), (3, 16, 16), quant=256)
    tensor([8.])
    """
    dims = math.prod(shape[-3:])
    return (nll / dims + math.log(quant)) / math.log(2)


def check_levels(name: str, levels: int, least: int) -> None:
    """Refuse levels of model ``name`` below ``least`` or above ``MAX_LEVELS``; raises :class:`ShapeError`."""
    if levels < least:
        raise ShapeError(f"{name}: levels must be at least {least}, got {levels}")
    if levels > MAX_LEVELS:
        raise ShapeError(f"{name}: levels must be at most {MAX_LEVELS}, got {levels}")
