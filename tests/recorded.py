"""A captured function without a GPU: the same places in memory at every call, as a CUDA graph has them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from synthpipe.transforms.captured import Recording

__all__ = ["record_on_cpu"]


def record_on_cpu(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> Recording:
    """For ``CapturedFunction(record=...)``: a replay computes again what is in the inputs, into the first outputs."""
    outputs = tuple(value.clone() for value in function(*inputs))

    def replay() -> None:
        for into, value in zip(outputs, function(*inputs), strict=True):
            into.copy_(value)

    return Recording(replay, outputs)
