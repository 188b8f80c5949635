"""The average of the weights, which is what a run saves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["WarmedAverage"]


class WarmedAverage(AveragedModel):
    """The library's averaged model, moved in a few kernels, and only by steps that were finite.

    The decay rises as ``(1 + n) / (10 + n)``, n being the averages made before, up to ``decay``, so that short runs
    forget their start.  Nothing is asked of the device.

    Args:
        model: whose parameters are averaged; stays where it is.
        decay: the highest.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, device=next(model.parameters()).device)
        self._model, self._decay = [model], decay  # in a list: not a part of this module
        self._own: list[Tensor] = list(self.module.parameters())
        self._followed = [parameter.detach() for parameter in model.parameters()]

    @torch.no_grad()
    def follow(self, bad: Tensor) -> None:
        """Move towards the model's parameters; not at all where ``bad``, a scalar on the device, is 1."""
        counted = 1 - bad
        weight = torch.clamp_min(9 / (10.0 + self.n_averaged), 1 - self._decay)
        weight = torch.where(self.n_averaged == 0, torch.ones_like(weight), weight) * counted
        moves = list(torch._foreach_sub(self._followed, self._own))
        torch._foreach_mul_(moves, weight)
        torch._foreach_add_(self._own, moves)
        self.n_averaged += counted.to(self.n_averaged.dtype)

    @torch.no_grad()
    def take_buffers(self) -> None:
        """Set the buffers to the model's, which are not averaged; before the averaged model is used or saved."""
        for own, followed in zip(self.module.buffers(), self._model[0].buffers(), strict=True):
            own.copy_(followed)
