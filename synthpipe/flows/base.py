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

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["FlowLayer", "Sequential"]


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
