"""From options to a run: the only place that knows which objective and which data a kind needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthpipe.config.blind_spot import TrainBlindSpotOptions
from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.dde_generator import TrainDDEGeneratorOptions
from synthpipe.config.distillation import TrainDistillOptions
from synthpipe.config.flow_prior import TrainFlowPriorOptions
from synthpipe.config.glow import TrainGlowOptions
from synthpipe.config.map_denoiser import TrainMapDenoiserOptions
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.config.training import RunOptions, TrainDeFlowOptions
from synthpipe.density.dde import DDE
from synthpipe.errors import OptionError
from synthpipe.flows.deflow import DeFlow
from synthpipe.training import blind_spot, distillation, flow_prior, glow, map_denoiser, plain_denoiser
from synthpipe.training.base import BatchSource, Objective
from synthpipe.training.data.domains import DomainData, build_degraders
from synthpipe.training.data.generator_data import build_source
from synthpipe.training.data.image_data import ImageData
from synthpipe.training.data.unpaired import UnpairedData
from synthpipe.training.dde import DDEObjective
from synthpipe.training.dde_generator import build_objective as build_dde_generator
from synthpipe.training.deflow import DeFlowObjective
from synthpipe.training.loop import Trainer

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
    for kind, parts in _RUNS.items():
        if isinstance(options, kind):
            objective, data = parts(options)
            return Trainer(options, objective, data, stop).run()
    raise OptionError(f"nothing trains options of type {type(options).__name__} (kind {options.kind!r})")


_Objective = Callable[[], Objective]
_Data = Callable[[int, int], BatchSource]


def _deflow(options: TrainDeFlowOptions) -> tuple[_Objective, _Data]:
    def build() -> Objective:
        model = DeFlow(**options.model.arguments())
        if options.data.crop % model.size_multiple:
            raise OptionError(
                f"data.crop: expected a multiple of {model.size_multiple}, which this model needs, "
                f"got {options.data.crop}"
            )
        return DeFlowObjective(model)

    return build, lambda rank, world_size: UnpairedData(options.data, options.seed, rank, world_size)


def _dde(options: TrainDDEOptions) -> tuple[_Objective, _Data]:
    data = options.data

    def build() -> Objective:
        model = DDE(**options.model.arguments(data.domains))
        return DDEObjective(model, build_degraders(data), data.crop, data.crops_per_context, data.grey)

    return build, lambda rank, world_size: DomainData(data, options.seed, rank, world_size)


def _dde_generator(options: TrainDDEGeneratorOptions) -> tuple[_Objective, _Data]:
    return (
        lambda: build_dde_generator(options),
        lambda rank, world_size: build_source(options.data, options.seed, world_size),
    )


def _one_domain(build: Callable[[Any], Objective]) -> Callable[[Any], tuple[_Objective, _Data]]:
    """Kinds whose ``data`` are the images of one domain; ``build`` makes the objective from their options."""
    return lambda options: (
        lambda: build(options),
        lambda rank, world_size: ImageData(options.data, options.seed, rank, world_size),
    )


#: What each kind of run is made of.
_RUNS: dict[type[RunOptions], Callable[[Any], tuple[_Objective, _Data]]] = {
    TrainDeFlowOptions: _deflow,
    TrainDDEOptions: _dde,
    TrainDDEGeneratorOptions: _dde_generator,
    TrainFlowPriorOptions: _one_domain(flow_prior.build_objective),
    TrainGlowOptions: _one_domain(glow.build_objective),
    TrainBlindSpotOptions: _one_domain(blind_spot.build_objective),
    TrainPlainDenoiserOptions: _one_domain(plain_denoiser.build_objective),
    TrainMapDenoiserOptions: _one_domain(map_denoiser.build_objective),
    TrainDistillOptions: _one_domain(distillation.build_objective),
}
