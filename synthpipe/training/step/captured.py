"""The gradient of a batch as one CUDA graph: a training step that is not bound by its launches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from synthpipe.transforms.batch import Batch

__all__ = ["CapturedGradient", "Gradient"]

logger = logging.getLogger("synthpipe.training")

#: Loss and numbers, scalars, of a batch and its seeds ``(B,)``; the gradient is left at the parameters.
Gradient = Callable[[Batch, Tensor], dict[str, Tensor]]

#: Calls before capture: cuDNN chooses its algorithms, and what asks the device a question once has asked it.
_WARM_UP = 2
#: Loss and norm of the gradient of one batch, captured and plain, differ by less: kernels that add in any order.
_AGREEMENT = 1e-3


class CapturedGradient:
    """``plain`` with the cost of one launch, for batches of the shapes that came first; others go through ``plain``.

    What is captured MUST ask the device for no value, MUST make no tensors from the host's data and MUST use of the
    batch its tensors alone (:attr:`synthpipe.training.base.Objective.capturable`).  The first batch is computed both
    ways; where they differ, or capturing fails, all goes through ``plain`` from then on, and the log says so.

    Args:
        plain: sets gradients to None before it computes them.
        parameters: that are trained.
        device: of the parameters.
    """

    def __init__(self, plain: Gradient, parameters: Sequence[nn.Parameter], device: torch.device) -> None:
        self._plain, self._device = plain, device
        self._parameters = list(parameters)
        self._inputs: dict[str, Tensor] = {}
        self._numbers: dict[str, Tensor] = {}
        self._gradients: list[Tensor | None] = []
        self._replay: Callable[[], None] | None = None
        self._failed = False
        self._at_parameters = False

    def __call__(self, batch: Batch, seeds: Tensor) -> dict[str, Tensor]:
        """Loss and numbers, valid until the next call."""
        inputs = _tensors(batch, seeds)
        if self._replay is None and not self._failed:
            return self._first(inputs)
        if self._replay is None or not self._fits(inputs):
            self._at_parameters = False
            return self._plain(batch, seeds)
        return self._replayed(inputs)

    def _first(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Capture, and compare the first replay with what the plain way gave for the same batch."""
        self._inputs = {name: value.to(self._device, copy=True) for name, value in inputs.items()}
        wanted = self._warm_up()
        for value in self._inputs.values():
            value.zero_()  # nothing of this batch is there while it is captured
        try:
            self._replay = self._capture(self._compute)
        except RuntimeError as error:
            return self._give_up(inputs, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        self._gradients = [parameter.grad for parameter in self._parameters]
        other = self._summary(self._replayed(inputs | {"seeds": torch.zeros_like(inputs["seeds"])}))
        numbers = self._replayed(inputs)
        found = self._summary(numbers)
        # A graph that holds what was an input would give the numbers of another batch, or of the same noise each time.
        if not torch.allclose(found, wanted, rtol=_AGREEMENT, atol=_AGREEMENT, equal_nan=True):
            return self._give_up(inputs, f"loss and gradient norm were {found.tolist()}, not {wanted.tolist()}")
        if bool(found.isfinite().all()) and torch.equal(found, other):
            return self._give_up(inputs, "its noise does not follow the seeds")
        logger.info("the training step is one CUDA graph")
        return numbers

    def _give_up(self, inputs: dict[str, Tensor], why: str) -> dict[str, Tensor]:
        logger.warning("the training step could not be captured and runs as plain code: %s", why)
        self._failed, self._replay = True, None
        self._inputs, self._numbers, self._gradients = {}, {}, []
        return self._plain(*_batch_of(inputs))

    def _warm_up(self) -> Tensor:
        for _ in range(_WARM_UP):
            numbers = self._aside(self._compute)
        return self._summary(numbers)

    def _compute(self) -> dict[str, Tensor]:
        return self._plain(*_batch_of(self._inputs))

    def _aside(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Call in a stream of its own, as what is captured will be."""
        stream, here = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            result = function()
        here.wait_stream(stream)
        return result

    def _capture(self, function: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
        """Record ``function``, which is not run; sets the numbers that a replay fills."""
        graph = torch.cuda.CUDAGraph()
        # Readers and other threads go on with their own work on the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._numbers = function()
        return graph.replay

    def _replayed(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self._replay is not None
        for name, value in inputs.items():
            self._inputs[name].copy_(value, non_blocking=True)
        self._replay()
        if not self._at_parameters:
            for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
                parameter.grad = gradient
            self._at_parameters = True
        return dict(self._numbers)

    def _fits(self, inputs: dict[str, Tensor]) -> bool:
        return inputs.keys() == self._inputs.keys() and all(
            (value.shape, value.dtype) == (self._inputs[name].shape, self._inputs[name].dtype)
            for name, value in inputs.items()
        )

    def _summary(self, numbers: dict[str, Tensor]) -> Tensor:
        """Loss and norm of the gradient, on the host."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return torch.stack([numbers["loss"].float(), norm.float()]).cpu()


def _tensors(batch: Batch, seeds: Tensor) -> dict[str, Tensor]:
    """What of a batch a graph can read; texts and lists of numbers stay out."""
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)} | {"seeds": seeds}


def _batch_of(inputs: dict[str, Tensor]) -> tuple[Batch, Tensor]:
    return {name: value for name, value in inputs.items() if name != "seeds"}, inputs["seeds"]
