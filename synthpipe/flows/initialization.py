"""Starting a whole flow from its first batch: every ActNorm, and the whitening of its levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from synthpipe.flows.actnorm import actnorms_of
from synthpipe.flows.base import Checkpointed
from synthpipe.flows.invertible_conv import InvertibleConv

__all__ = ["DataInitialized"]


class DataInitialized(nn.Module):
    """A flow of ``levels`` whose ActNorms start from data."""

    levels: nn.ModuleList

    @property
    def initialized(self) -> bool:
        """Whether every ActNorm has been initialised, from data or by loading."""
        return all(bool(layer.initialized) for layer in actnorms_of(self))

    def checkpoint_activations(self, on: bool = True) -> None:
        """Train with less memory and more time: see :class:`synthpipe.flows.base.Checkpointed`."""
        for part in self.modules():
            if isinstance(part, Checkpointed):
                part.checkpointing = on

    def mark_initialized(self) -> None:
        """Accept all ActNorms as they are."""
        for layer in actnorms_of(self):
            layer.mark_initialized()

    @contextmanager
    def _starting(self, whiten: bool) -> Iterator[None]:
        """What is computed inside starts the ActNorms; with ``whiten``, in a new flow, first 1x1 convolutions too."""
        training = self.training
        self.train()
        hooks = [
            _first_conv(level).register_forward_pre_hook(_whiten)
            for level in self.levels
            if whiten and not self.initialized
        ]
        yield
        for hook in hooks:
            hook.remove()
        self.train(training)


def _first_conv(level: nn.Module) -> InvertibleConv:
    return next(layer for layer in level.modules() if isinstance(layer, InvertibleConv))


def _whiten(conv: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Start ``conv`` at the whitening of its input; a covariance of too few positions has directions without spread."""
    x = inputs[0]
    if x.numel() >= 4 * x.shape[1] ** 2:
        cast(InvertibleConv, conv).whiten(x)
