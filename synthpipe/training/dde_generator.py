"""The objective of a DDE generator: two density estimators and the generator between them, one step at a time.

arXiv 2001.02728, section 4, with two changes.  The noise level is drawn from a range, the same for both estimators, so
that the generator's objective is the mean over levels of ``sigma^k KL(q_sigma || p_sigma)``: high levels carry mass
between modes that low levels do not see, low levels carry detail.  And as the two estimators meet the same levels and
the same noise in a step, their errors agree where the two laws do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, assert_never

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.dde_generator import (
    ArrayData,
    DensityFromWeights,
    GeneratorOptions,
    ImageData,
    LocalDensity,
    PointData,
    PyramidDensity,
    TrainDDEGeneratorOptions,
    VectorDensity,
)
from synthpipe.config.run import OptimizerOptions
from synthpipe.density.base import DensityEstimator, dde_loss
from synthpipe.density.dde import DDE
from synthpipe.density.dde_generator import DDEGenerator, kl_gradient, require_same_levels, slope
from synthpipe.density.pyramid import PyramidDDE
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import OptionError, ShapeError, TrainingError
from synthpipe.images import luma, to_float
from synthpipe.training.base import Objective, RunParts, generators_of
from synthpipe.training.data.generator_data import build_source, sample_shape
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["DDEGeneratorObjective", "build_objective", "build_run"]

#: The estimators' scale is watched at one in so many of the generator's turns, on one part in so many of the batch.
_TURNS_BETWEEN, _PART = 20, 4
#: A fixed estimator whose slope is outside this range is of other data, another level or another scale.
_SLOPES = (0.67, 1.5)
#: Numbers in a batch below which a slope says too little: its standard error is about 1 / sqrt(0.3 n).
_ENOUGH = 256
#: Cells on each side of a picture of points.
_CELLS = 160
#: Small images are enlarged to about this many pixels.
_SHOWN = 64


class DDEGeneratorObjective(Objective[DDEGenerator]):
    """Trains ``model`` towards the data's law.

    In every step both estimators descend their loss ``J``; in every ``options.every``-th, from ``options.start`` on,
    the generator follows :func:`synthpipe.density.dde_generator.kl_gradient`.  The parts of the loss share no
    parameter, and a step in which the generator rests leaves its gradient None, so that Adam leaves it alone.

    Args:
        model: the generator; what the run saves.
        data_density: estimator of the data; kept in the checkpoint.
        sample_density: estimator of the samples, of the same kind.
        sigma: lowest and highest noise level.
        options: of the generator.
        fixed: ``data_density`` is trained already.

    Raises:
        ShapeError: estimators of different noise levels.
    """

    def __init__(
        self,
        model: DDEGenerator,
        data_density: DensityEstimator,
        sample_density: DensityEstimator,
        sigma: tuple[float, float],
        options: GeneratorOptions,
        fixed: bool = False,
    ) -> None:
        super().__init__(model)
        require_same_levels(data_density, sample_density, sigma)
        self.data_density, self.sample_density = data_density, sample_density
        self.sigma, self.options, self.fixed = sigma, options, fixed
        self._watched: dict[str, Tensor] = {}
        data_density.requires_grad_(not fixed)

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The two losses ``J`` plus, in the generator's turn, a term of value 0 whose gradient is the divergence's."""
        generators = generators_of(seeds)
        x = self._as_floats(batch["x"])
        turn = int(batch["step"]) - self.options.start
        draws = _Draws(generators, len(x), x)
        noise = draws.normal(self.model.shape)
        sigma = self.sigma[0] * (self.sigma[1] / self.sigma[0]) ** draws.uniform()
        with torch.set_grad_enabled(turn >= 0 and turn % self.options.every == 0):
            samples = self.model(draws.normal((self.model.latent_size,)))
        loss = dde_loss(self.sample_density, samples.detach(), sigma, noise).mean()
        numbers = {"j_samples": loss.detach()}
        if not self.fixed:
            j_data = dde_loss(self.data_density, x, sigma, noise).mean()
            loss = loss + j_data
            numbers["j_data"] = j_data.detach()
        if samples.requires_grad:
            loss = loss + self._divergence(samples, sigma, noise)
            if turn // self.options.every % _TURNS_BETWEEN == 0:
                self._watch(x, samples, sigma, noise)
        return loss, numbers

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """The estimators as ``optimizer`` says, the generator at its own rate and momentum."""
        estimators = [*self.sample_density.parameters(), *self.data_density.parameters()]
        return [
            {"params": [p for p in estimators if p.requires_grad], "lr": options.lr},
            {"params": list(self.model.parameters()), "lr": self.options.lr, "betas": self.options.betas},
        ]

    def numbers(self) -> dict[str, float]:
        """At the generator's last turn: ``gap``, the mean of ``|sigma (grad S_q - grad S_p)|^2 / d``, which is 0 where
        the two laws agree, and the slopes of both estimators, which should be 1."""
        return {name: float(value) for name, value in self._watched.items()}

    def pictures(self, model: DDEGenerator, batch: Batch, seed: int) -> Tensor:
        """Points: real and generated as two densities side by side; images: a row of each."""
        x = self._as_floats(batch["x"])
        samples = model.sample(len(x), torch.Generator().manual_seed(seed))
        if x.ndim == 2:
            return _densities(x, samples)
        return _rows(x, samples.clamp(0, 1))

    def _divergence(self, samples: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """0, with the gradient of the mean of ``sigma^k KL`` in the generator's parameters."""
        scale = sigma.reshape(-1, *([1] * (samples.ndim - 1)))
        gradient = kl_gradient(self.data_density, self.sample_density, samples + scale * noise, sigma)
        self._watched["gap"] = (scale * gradient).square().mean()
        along = (scale**self.options.level_power * gradient * samples).flatten(1).sum(1).mean()
        return along - along.detach()

    def _watch(self, x: Tensor, samples: Tensor, sigma: Tensor, noise: Tensor) -> None:
        first = "slope_data" not in self._watched
        part = slice(len(x) if first else -(-len(x) // _PART))
        slopes = {
            name: slope(density, of.detach()[part], sigma[part], noise[part])
            for name, density, of in (
                ("slope_data", self.data_density, x),
                ("slope_samples", self.sample_density, samples),
            )
        }
        if self.fixed and first:
            found = float(slopes["slope_data"])
            if x.numel() >= _ENOUGH and not _SLOPES[0] <= found <= _SLOPES[1]:
                raise TrainingError(
                    f"the density in density.path has slope {found:.3g} on this data at noise levels "
                    f"{list(self.sigma)}, expected about 1: it is of other data, another level or another scale; "
                    "train it on this data, or let the run train it"
                )
        self._watched |= slopes

    def _as_floats(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return x
        x = to_float(x)
        if self.model.shape[0] == 3:
            return x
        return luma(x)


class _Draws:
    """Random numbers of a batch; each block of it has its own generator, on the CPU."""

    def __init__(self, generators: Sequence[torch.Generator], count: int, like: Tensor) -> None:
        sizes = [len(part) for part in torch.arange(count).tensor_split(len(generators))]
        self._parts, self._like = list(zip(generators, sizes, strict=True)), like

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """``(count, *shape)``."""
        parts = [torch.randn(size, *shape, generator=generator) for generator, size in self._parts]
        return torch.cat(parts).to(self._like)

    def uniform(self) -> Tensor:
        """``(count,)`` in [0, 1)."""
        parts = [torch.rand(size, generator=generator) for generator, size in self._parts]
        return torch.cat(parts).to(self._like)


def build_objective(options: TrainDDEGeneratorOptions) -> DDEGeneratorObjective:
    """Generator and estimators, new; the estimators are equal at the start.

    Raises:
        OptionError: options that do not fit together.
        CheckpointError: ``density.path`` holds no density.
    """
    shape = sample_shape(options.data)
    _check_fit(options.data, options.density, shape)
    try:
        model = DDEGenerator(**options.generator.arguments(shape))
        data_density = _build_density(options, shape)
        return DDEGeneratorObjective(
            model,
            data_density,
            copy.deepcopy(data_density),
            options.sigma,
            options.generator,
            fixed=isinstance(options.density, DensityFromWeights),
        )
    except ShapeError as error:
        raise OptionError(f"these options make no run: {error}") from error


def build_run(options: TrainDDEGeneratorOptions) -> RunParts:
    """A generator between two estimators, and what it imitates."""
    return RunParts(partial(build_objective, options), partial(build_source, options.data, options.seed))


def _check_fit(
    data: PointData | ArrayData | ImageData,
    density: VectorDensity | LocalDensity | PyramidDensity | DensityFromWeights,
    shape: tuple[int, ...],
) -> None:
    points = len(shape) == 1
    fitting = ("vector", "weights") if points else ("local", "pyramid", "weights")
    if density.type not in fitting:
        raise OptionError(
            f"density.type: data.type {data.type!r} has samples of shape {list(shape)}, which need one of "
            f"{list(fitting)}, got {density.type!r}"
        )


def _build_density(options: TrainDDEGeneratorOptions, shape: tuple[int, ...]) -> DensityEstimator:
    chosen, sigma = options.density, options.sigma
    match chosen:
        case VectorDensity():
            return VectorDDE(shape[0], chosen.width, chosen.depth, chosen.spread, sigma)
        case PyramidDensity():
            return PyramidDDE(shape[0], chosen.width, chosen.levels, sigma)
        case LocalDensity():
            return DDE(shape[0], chosen.width, chosen.depth, chosen.outputs, sigma_range=sigma)
        case DensityFromWeights():
            return _load_density(chosen.path, shape)
        case _:
            assert_never(chosen)


def _load_density(path: str, shape: tuple[int, ...]) -> DensityEstimator:
    density = checkpoints.load(path)
    if not isinstance(density, DensityEstimator):
        raise OptionError(f"density.path {path!r}: expected a density, got a {type(density).__name__}")
    wanted = {"dim": shape[0]} if len(shape) == 1 else {"channels": shape[0]}
    if {name: density.config.get(name) for name in wanted} != wanted:
        raise OptionError(f"density.path {path!r}: expected {wanted}, got a density of {density.config}")
    return density


def _densities(x: Tensor, samples: Tensor) -> Tensor:
    """Two densities over the box of ``x``, dark where dense, ``(3, cells, 2 * cells + gap)``."""
    plane = [
        torch.cat([points, torch.zeros_like(points)], 1)[:, [0, min(1, points.shape[1])]] for points in (x, samples)
    ]
    low, high = plane[0].amin(0), plane[0].amax(0)
    margin = 0.1 * (high - low).clamp(min=1e-6)
    low, high = low - margin, high + margin
    shown = []
    for points in plane:
        cell = ((points - low) / (high - low) * _CELLS).floor().long()
        cell = cell[((cell >= 0) & (cell < _CELLS)).all(1)]
        # The second coordinate points up.
        counts = torch.bincount((_CELLS - 1 - cell[:, 1]) * _CELLS + cell[:, 0], minlength=_CELLS**2)
        shown.append(1 - (counts / counts.max().clamp(min=1)).sqrt().reshape(_CELLS, _CELLS))
    gap = shown[0].new_zeros(_CELLS, 2)
    return torch.cat([shown[0], gap, shown[1]], 1).expand(3, -1, -1)


def _rows(x: Tensor, samples: Tensor) -> Tensor:
    """Real images in the upper row, samples in the lower, ``(3, 2 * H, n * W)``, small ones enlarged."""
    rows = picture_grid(torch.stack([x, samples]))
    factor = max(1, math.ceil(_SHOWN / x.shape[2]))
    return rows.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
