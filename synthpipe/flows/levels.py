"""The levels of a flow: a squeeze, then steps of ActNorm, invertible 1x1 convolution and coupling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import Checkpointed, FlowLayer, Sequential
from synthpipe.flows.coupling import AffineCoupling, ConditionalCoupling
from synthpipe.flows.invertible_conv import InvertibleConv
from synthpipe.flows.reshape import Squeeze

__all__ = ["Level", "conditional_level", "glow_level"]


class Level(Sequential, Checkpointed):
    """Layers in order, whose steps can be checkpointed.

    Of a step, its input and the outputs of the sub-networks' 3x3 convolutions are then kept, but for the one that sees
    the features alone: those are half of its operations, and all else is nine tenths of its memory.
    """

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :class:`Sequential`."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return super().forward(x, cond)
        total = x.new_zeros(x.shape[0])
        features = 0 if cond is None else cond.shape[1]
        for step in self._steps():
            x, total = checkpoint(
                partial(_through, step),
                x,
                total,
                cond,
                use_reentrant=False,
                preserve_rng_state=False,  # there is nothing random in a step
                context_fn=partial(create_selective_checkpoint_contexts, partial(_keep_or_compute_again, features)),
            )
        return x, total

    def _steps(self) -> Iterator[list[FlowLayer]]:
        """The layers, in parts that end with a coupling."""
        step: list[FlowLayer] = []
        for layer in self.layers:
            assert isinstance(layer, FlowLayer)
            step.append(layer)
            if isinstance(layer, AffineCoupling | ConditionalCoupling):
                yield step
                step = []
        if step:
            yield step


def _through(step: Sequence[FlowLayer], x: Tensor, total: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
    for layer in step:
        x, logdet = layer(x, cond)
        total = total + logdet
    return x, total


def _keep_or_compute_again(
    features: int, context: Any, operation: Any, *arguments: Any, **options: Any
) -> CheckpointPolicy:
    """Keep what 3x3 convolutions gave, but for those of as many channels as there are ``features``."""
    if operation is torch.ops.aten.convolution.default:
        weight = arguments[1]
        if weight.shape[2] > 1 and weight.shape[1] != features:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def conditional_level(
    channels: int, cond: int, steps: int, transitions: int, hidden: int, scale_eps: float, additive: bool
) -> Level:
    """A level of DeFlow.

    Args:
        channels: C, after the squeeze.
        cond: channels of the features.
        steps: with a coupling.
        transitions: steps without one, which come first.
        hidden: width of the couplings' networks.
        scale_eps, additive: see :class:`ConditionalCoupling`.
    """
    layers: list[FlowLayer] = [Squeeze()]
    for _ in range(transitions):
        layers += [ActNorm(channels), InvertibleConv(channels)]
    for _ in range(steps):
        layers += [
            ActNorm(channels),
            InvertibleConv(channels),
            ConditionalCoupling(channels, cond, hidden, scale_eps, additive),
        ]
    return Level(*layers)


def glow_level(channels: int, steps: int, hidden: int) -> Level:
    """A level of Glow of ``channels`` after the squeeze, its couplings' networks of width ``hidden``."""
    layers: list[FlowLayer] = [Squeeze()]
    for _ in range(steps):
        layers += [ActNorm(channels), InvertibleConv(channels), AffineCoupling(channels, hidden)]
    return Level(*layers)
