"""ActNorm: a per-channel affine map initialised from the first batch (Glow, Kingma & Dhariwal 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from synthpipe.errors import TrainingError
from synthpipe.flows.base import FlowLayer

__all__ = ["ActNorm", "actnorms_of"]


class ActNorm(FlowLayer):
    """``z = (x + bias) * exp(logs)`` per channel, so ``log|det J| = H * W * sum(logs)``.

    The first batch seen in training mode sets ``bias = -mean`` and ``logs = -log(std + 1e-6)``.  That it has happened
    is part of the state: a loaded layer never initialises again, and a layer that was neither trained nor loaded
    refuses to run in eval mode.

    Args:
        channels: number of channels C.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(False))
        # Mirrors the buffer once it is known to be true, so that a step does not wait for the device.
        self._ready = False

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` ``(B, C, H, W)`` -> ``z`` of that shape and ``log|det|`` ``(B,)`` in nats.

        Raises:
            TrainingError: in eval mode, of a layer that was neither trained nor loaded.
        """
        self._require_initialized(x)
        return (x + self.bias.to(x.dtype)) * self.logs.to(x.dtype).exp(), self._logdet(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``z`` ``(B, C, H, W)`` -> ``x`` and the log-determinant ``(B,)`` of this direction.

        Raises:
            TrainingError: of a layer that was neither trained nor loaded.
        """
        self._require_initialized(None)
        return z * (-self.logs.to(z.dtype)).exp() - self.bias.to(z.dtype), -self._logdet(z)

    def mark_initialized(self) -> None:
        """Accept the parameters as they are (after importing foreign weights, or in tests)."""
        self.initialized.fill_(True)

    def _require_initialized(self, x: Tensor | None) -> None:
        if self._ready:
            return
        if not bool(self.initialized):
            if x is None or not self.training:
                raise TrainingError(
                    "ActNorm: used before it was initialised; run one training batch (initialize), "
                    "load trained weights, or call mark_initialized()"
                )
            self._initialize(x)
        self._ready = True

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        mean = x.mean(dim=(0, 2, 3), keepdim=True)[0]
        std = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)[0].sqrt()
        self.bias.copy_(-mean)
        self.logs.copy_(-(std + 1e-6).log())
        self.initialized.fill_(True)

    def _logdet(self, x: Tensor) -> Tensor:
        return (self.logs.to(x.dtype).sum() * x.shape[2] * x.shape[3]).expand(x.shape[0])

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = False


def actnorms_of(module: nn.Module) -> Iterator[ActNorm]:
    """All ActNorm layers inside ``module``."""
    return (layer for layer in module.modules() if isinstance(layer, ActNorm))
