"""Functions of tensors that run as one CUDA graph for each shape; on a CPU they are called as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["CapturedFunction", "Recording", "record_graph"]

#: Calls before capture: cuDNN chooses its algorithms and the allocator its blocks.
_WARM_UP = 2

_Tensors = tuple[Tensor, ...]
_Shapes = tuple[tuple[tuple[int, ...], str], ...]


class Recording(NamedTuple):
    """A function's work on the inputs that it was recorded with: ``replay`` does it again, into ``outputs``."""

    replay: Callable[[], object]
    outputs: _Tensors


def record_graph(function: Callable[..., _Tensors], inputs: _Tensors) -> Recording:
    """``function(*inputs)`` as a CUDA graph; inputs and outputs stay where they are in memory."""
    device = inputs[0].device
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            function(*inputs)
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads go on with their own work on the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*inputs)
    return Recording(graph.replay, outputs)


class _Static(NamedTuple):
    inputs: _Tensors
    recording: Recording


class CapturedFunction:
    """``function`` with the cost of one launch on a CUDA device.

    What is captured MUST ask the device for no value, MUST make no tensors from the host's data, and its only inputs
    are its arguments: numbers of the host are frozen into the graph.  It works in the current stream.

    Args:
        function: tensors on one device -> tensors.
        rows: shorter inputs are filled up to so many rows by repeating their first, and outputs cut to match, so that a
            short last batch is no other shape; rows MUST not depend on each other.  None: as they come.
        most: shapes (with their types) that are kept, each with the memory of one call; further ones are refused.
        record: makes the recording.
    """

    def __init__(
        self,
        function: Callable[..., _Tensors],
        rows: int | None = None,
        most: int = 4,
        record: Callable[[Callable[..., _Tensors], _Tensors], Recording] = record_graph,
    ) -> None:
        self._function = function
        self._rows = rows
        self._most = most
        self._record = record
        self._kept: dict[_Shapes, _Static] = {}

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> _Tensors:
        """The results, in memory that the next call with these shapes overwrites; on a CPU the function's own.

        Args:
            inputs: on the device of the function, or (the later ones) in page-locked memory of the host.

        Raises:
            ShapeError: more than ``most`` different shapes, more rows than ``rows``, or inputs of different lengths.
        """
        if self._record is record_graph and inputs[0].device.type != "cuda":
            return self._function(*inputs)
        count = len(inputs[0])
        rows = self._rows or count
        if count > rows:
            raise ShapeError(f"CapturedFunction: expected at most {rows} rows, got {count}")
        if any(len(value) != count for value in inputs):
            raise ShapeError(f"CapturedFunction: inputs of {[len(value) for value in inputs]} rows; each row needs all")
        if not count:  # no row that could fill up others
            return self._function(*(value.to(inputs[0].device) for value in inputs))
        static = self._static_for(inputs, rows)
        for into, value in zip(static.inputs, inputs, strict=True):
            into[:count].copy_(value, non_blocking=True)
        static.recording.replay()
        if count == rows:
            return static.recording.outputs
        return tuple(output[: len(output) * count // rows] for output in static.recording.outputs)

    def takes(self, *inputs: Tensor) -> bool:
        """Whether a call with these shapes and types is kept, or there is room for it."""
        return self._shapes(inputs, self._rows or len(inputs[0])) in self._kept or len(self._kept) < self._most

    @staticmethod
    def _shapes(inputs: _Tensors, rows: int) -> _Shapes:
        # Another type would be converted, in silence, to that of the recording.
        return tuple(((rows, *value.shape[1:]), str(value.dtype)) for value in inputs)

    def _static_for(self, inputs: _Tensors, rows: int) -> _Static:
        shapes = self._shapes(inputs, rows)
        static = self._kept.get(shapes)
        if static is None:
            if len(self._kept) == self._most:
                known = sorted(self._kept)
                raise ShapeError(f"CapturedFunction: {shapes} after {known}; pad batches to one shape, or allow more")
            device = inputs[0].device
            filled = tuple(_filled(value.to(device), rows) for value in inputs)
            static = self._kept[shapes] = _Static(filled, self._record(self._function, filled))
        return static


def _filled(value: Tensor, rows: int) -> Tensor:
    """A copy, its first row repeated at the end."""
    more = value[:1].expand(rows - len(value), *value.shape[1:])
    return torch.cat([value, more])
