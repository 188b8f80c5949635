"""The levels of a flow: a squeeze, then steps of ActNorm, invertible 1x1 convolution and coupling."""

from __future__ import annotations

from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import FlowLayer, Sequential
from synthpipe.flows.coupling import AffineCoupling, ConditionalCoupling
from synthpipe.flows.invertible_conv import InvertibleConv
from synthpipe.flows.reshape import Squeeze

__all__ = ["conditional_level", "glow_level"]


def conditional_level(
    channels: int, cond: int, steps: int, transitions: int, hidden: int, scale_eps: float, additive: bool
) -> Sequential:
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
    return Sequential(*layers)


def glow_level(channels: int, steps: int, hidden: int) -> Sequential:
    """A level of Glow of ``channels`` after the squeeze, its couplings' networks of width ``hidden``."""
    layers: list[FlowLayer] = [Squeeze()]
    for _ in range(steps):
        layers += [ActNorm(channels), InvertibleConv(channels), AffineCoupling(channels, hidden)]
    return Sequential(*layers)
