"""Functions of tensors that run as one CUDA graph for each shape; on a CPU they are called as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["CapturedFunction"]

#: Calls before capture: cuDNN chooses its algorithms and the allocator its blocks.
_WARM_UP = 2


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class CapturedFunction:
    """``function`` with the cost of one launch on a CUDA device.

    What is captured MUST ask the device for no value, MUST make no tensors from the host's data, and its only inputs
    are its arguments: numbers of the host are frozen into the graph.  It works in the current stream.

    Args:
        function: tensors on one device -> one tensor.
        most: shapes that are kept, each with the memory of one call; further ones are refused.
    """

    def __init__(self, function: Callable[..., Tensor], most: int = 4) -> None:
        self._function = function
        self._most = most
        self._captured: dict[tuple[tuple[int, ...], ...], _Captured] = {}

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result, in memory of its own.

        Raises:
            ShapeError: more than ``most`` different shapes.
        """
        if inputs[0].device.type != "cuda":
            return self._function(*inputs)
        shapes = tuple(tuple(value.shape) for value in inputs)
        captured = self._captured.get(shapes)
        if captured is None:
            if len(self._captured) == self._most:
                known = sorted(self._captured)
                raise ShapeError(f"CapturedFunction: {shapes} after {known}; pad batches to one shape, or allow more")
            captured = self._captured[shapes] = self._capture(inputs)
        for static, value in zip(captured.inputs, inputs, strict=True):
            static.copy_(value, non_blocking=True)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        static = tuple(value.clone() for value in inputs)
        stream = torch.cuda.Stream(inputs[0].device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._function(*static)
        torch.cuda.current_stream(inputs[0].device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on with their own work on the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._function(*static)
        return _Captured(graph, static, output)
