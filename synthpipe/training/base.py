"""The contracts that the training loop asks of an objective and of a source of batches.

Each kind of run has a module here with the stem of its options' module (``training/glow.py`` for ``config/glow.py``).
It MUST have a function ``build_run(options) -> RunParts``, which is all that :mod:`synthpipe.training.build` asks for;
where the options are no ``RunOptions``, because the result is computed at once, ``compute(options, stop) -> Path``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from synthpipe.config.run import OptimizerOptions
from synthpipe.errors import TrainingError, excerpt
from synthpipe.flows.draws import SeededNoise
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.transforms.batch import Batch

__all__ = [
    "BatchSource",
    "Objective",
    "ResumableData",
    "RunParts",
    "channels_last",
    "generators_of",
    "noise_of",
    "resumed_step",
    "step_generators",
    "step_seeds",
]

#: The class of the model that an objective trains.
M = TypeVar("M", bound=nn.Module)
#: Keeps what is drawn in training apart from what else is drawn from seeds.
_SALT = "train"


class ResumableData(Protocol):
    """Data without end that continues where a state was taken."""

    def describe(self) -> dict[str, Any]:
        """What JSON can hold, for the weights' header: where the images are from, how many, what was skipped."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dictionaries that continue after what was handed out last."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; called before anything is handed out."""
        ...

    def close(self) -> None:
        """Stop threads and processes."""
        ...


def resumed_step(state: Mapping[str, Any]) -> int:
    """The number of the next step in a state of data.

    Raises:
        TrainingError: there is none.
    """
    step = state.get("step")
    if type(step) is not int or step < 0:
        raise TrainingError(f"state of the data: expected a whole number from 0 as 'step', got {excerpt(step)}")
    return step


class BatchSource(ResumableData, Protocol):
    """Batches without end, with state.

    A batch is a dictionary; tensors in it are moved to the device.  Images MUST be uint8: under mixed precision the
    library casts floating-point inputs to half precision, which would round 8-bit images.  ``"slot"`` MUST hold one
    number per image, its place in the batch of all processes together.
    """

    def next_batch(self) -> Batch:
        """This process's part of the next step's batch."""
        ...

    def example(self, count: int) -> Batch | None:
        """The batch for sample pictures of ``count`` images, the same at every call; None: show one trained on."""
        ...


class Objective(nn.Module, ABC, Generic[M]):
    """A model of class ``M`` and the loss it is trained with.

    A subclass MUST

    * return from :meth:`forward` a scalar loss that is a mean over images, so that averaging gradients over processes
      equals one process with all images;
    * draw everything random about an image from its own seed, by :func:`noise_of` on the device or by
      :func:`generators_of` on the CPU, never from the global generator;
    * keep its trained network in ``model``, a kind that :mod:`synthpipe.checkpoints` can save; networks that are only
      needed to train it may stand beside it: they are in the checkpoints, and neither averaged nor in the final file.
    """

    model: M
    #: Whether :meth:`forward` and its gradient can be one CUDA graph: they ask the device for no value, make no tensors
    #: from the host's data, keep nothing from step to step, and use of a batch its tensors alone.
    capturable: ClassVar[bool] = False
    #: What :meth:`judge` measures, where that is not the weights as they are: distances of one name are one curve.
    measured: str = ""
    #: Distances of :meth:`judge` that differ by no more are alike: of such weights the last are kept.
    alike: ClassVar[float] = 0.0

    def __init__(self, model: M) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one step.

        Args:
            batch: of the run's source, on the model's device.
            seeds: ``(B,)`` int64, one for each of ``batch["slot"]``; see :func:`step_seeds`.

        Returns:
            A scalar, and named numbers (detached scalars) for the log.
        """

    def initialize(self, batch: Batch, seeds: Tensor) -> None:
        """Data-dependent initialisation on the first batch of a new run; nothing by default."""

    def prepare(self, data: BatchSource) -> None:
        """Before :meth:`initialize` of a new run: take what the model keeps of its data, and refuse data on which
        :meth:`finish` would fail; nothing by default."""

    def starting_point(self, model: M) -> M:
        """Loaded weights as a run takes them up; as they are by default."""
        return model

    def finish(self, model: M, data: BatchSource) -> dict[str, Any]:
        """Last changes of the averaged ``model`` of a finished run, and what to say of them in its header."""
        return {}

    def judge(self, model: M, data: BatchSource) -> dict[str, float] | None:
        """How good ``model``, the averaged weights, is, by what of its data can be measured.

        MUST draw nothing from the global generator, and change neither the model nor what ``data`` hands out.

        Returns:
            Named numbers, ``"distance"`` among them: less is better.  None, the default: nothing can be said.
        """
        return None

    def pages(self, model: M, data: BatchSource, name: str) -> dict[str, str]:
        """Texts that a finished run writes into its folder, by file name; none by default.

        Args:
            model: the best weights, finished.
            data: of the run.
            name: of the run, for titles.
        """
        return {}

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """Optimizer groups; one with every trained parameter by default."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": options.lr}]

    def companions(self) -> dict[str, Tensor]:
        """State of all that stands beside ``model``; empty for most objectives."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("model.")}

    def load_companions(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`companions` gave."""
        own = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        self.load_state_dict(own | state)

    def numbers(self) -> dict[str, float]:
        """Named numbers of the model itself, or of the steps since :meth:`forget_numbers`; none by default.

        Asked for with each line of the log and for what checkpoints and weights say of their step: MUST change nothing.
        """
        return {}

    def forget_numbers(self) -> None:
        """A line of the log was written: what :meth:`numbers` tells of steps begins anew; nothing by default."""

    @abstractmethod
    def pictures(self, model: M, batch: Batch, seed: int) -> Tensor:
        """One picture ``(3, H, W)`` in [0, 1] that shows what ``model`` (the averaged weights) does to ``batch``."""


class RunParts(NamedTuple):
    """What a run is made of, beside its options."""

    #: Makes the model and its loss; called once, with torch's default generator seeded.
    build_objective: Callable[[], Objective[Any]]
    #: ``(rank, world_size)`` -> batches.
    build_data: Callable[[int, int], BatchSource]


def channels_last(network: M) -> M:
    """``network`` itself, its weights in the order of memory that makes 3x3 convolutions on a CPU 2 to 4 times as fast.

    Saved weights, and their values, are the same in either order.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def step_seeds(seed: int, step: int, slots: Sequence[int]) -> Tensor:
    """One seed per image, from its slot in the batch of all processes together: ``(B,)`` int64 on the CPU.

    The same whether or not the run was interrupted, and however many processes share the batch.
    """
    return torch.tensor([sample_seed(seed, step, f"slot{slot}") for slot in slots], dtype=torch.int64)


def generators_of(seeds: Tensor) -> list[torch.Generator]:
    """One CPU generator for each of the seeds ``(B,)``."""
    return [generator_for(seed, _SALT) for seed in seeds.tolist()]


def noise_of(seeds: Tensor, device: torch.device) -> SeededNoise:
    """Noise of images with the seeds ``(B,)``, made on ``device``; nothing is asked of it."""
    return SeededNoise(seeds.to(device, non_blocking=True), _SALT)


def step_generators(seed: int, step: int, slots: Sequence[int]) -> list[torch.Generator]:
    """:func:`generators_of` the :func:`step_seeds`."""
    return generators_of(step_seeds(seed, step, slots))
