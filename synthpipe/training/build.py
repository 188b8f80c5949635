"""From options to a run: the only place that knows which objective and which data a kind needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.dde_generator import TrainDDEGeneratorOptions
from synthpipe.config.training import RunOptions, TrainDeFlowOptions
from synthpipe.density.dde import DDE
from synthpipe.errors import OptionError
from synthpipe.flows.deflow import DeFlow
from synthpipe.training.base import BatchSource, Objective
from synthpipe.training.dde import DDEObjective
from synthpipe.training.dde_generator import build_objective as build_dde_generator
from synthpipe.training.deflow import DeFlowObjective
from synthpipe.training.domains import DomainData, build_degraders
from synthpipe.training.generator_data import build_source
from synthpipe.training.loop import Trainer
from synthpipe.training.unpaired import UnpairedData

__all__ = ["train"]


def train(options: RunOptions, stop: Callable[[], bool] = lambda: False) -> Path:
    """Train what ``options`` describe; returns the path of the final weights.

    Args:
        options: from :func:`synthpipe.config.training.read_train_options`.
        stop: asked after every step; true ends the run cleanly.

    Raises:
        OptionError: options that do not fit together.
        TrainingError: a run that cannot start or cannot go on.
    """
    if isinstance(options, TrainDeFlowOptions):
        return Trainer(options, _deflow(options), _unpaired(options), stop).run()
    if isinstance(options, TrainDDEOptions):
        return Trainer(options, _dde(options), _domains(options), stop).run()
    if isinstance(options, TrainDDEGeneratorOptions):
        return Trainer(
            options,
            lambda: build_dde_generator(options),
            lambda rank, world_size: build_source(options.data, options.seed, world_size),
            stop,
        ).run()
    raise OptionError(f"nothing trains options of type {type(options).__name__} (kind {options.kind!r})")


def _deflow(options: TrainDeFlowOptions) -> Callable[[], Objective]:
    def build() -> Objective:
        model = DeFlow(**options.model.arguments())
        if options.data.crop % model.size_multiple:
            raise OptionError(
                f"data.crop: expected a multiple of {model.size_multiple}, which this model needs, "
                f"got {options.data.crop}"
            )
        return DeFlowObjective(model)

    return build


def _unpaired(options: TrainDeFlowOptions) -> Callable[[int, int], BatchSource]:
    return lambda rank, world_size: UnpairedData(options.data, options.seed, rank, world_size)


def _dde(options: TrainDDEOptions) -> Callable[[], Objective]:
    data = options.data

    def build() -> Objective:
        model = DDE(**options.model.arguments(data.domains))
        return DDEObjective(model, build_degraders(data), data.crop, data.crops_per_context, data.grey)

    return build


def _domains(options: TrainDDEOptions) -> Callable[[int, int], BatchSource]:
    return lambda rank, world_size: DomainData(options.data, options.seed, rank, world_size)
