"""The objective of the MAP denoiser: the proximal operator of a prior, learnt from clean images and no solutions.

The prior is either a denoising autoencoder R, whose step is the prior's gradient (the paper, arXiv 1912.09299), or a
trained density, which is minimised outright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias, assert_never

import torch
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.config.map_denoiser import DAEPriorOptions, DDEPriorOptions, TrainMapDenoiserOptions
from synthpipe.config.run import OptimizerOptions
from synthpipe.denoisers.map_denoiser import MapDenoiser, dae_map_loss, dde_map_objective
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.density.dde import DDE
from synthpipe.errors import OptionError, counted
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of
from synthpipe.training.data.image_data import ImageData, float_crops
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["AutoencoderPrior", "DensityPrior", "MapDenoiserObjective", "build_objective", "build_run"]

#: What a plain denoiser and a MAP denoiser of the same network have in common.
_SIZE = ("channels", "width", "depth")


class AutoencoderPrior(nn.Module):
    """The gradient of ``log p_s`` from a least-squares denoiser R, by ``(R(x) - x) / s^2``.

    R sees inputs of the level that it was trained for only: fresh noise is put on what it is asked about.

    Args:
        denoiser: R.
        trained: whether R learns beside the model, by least squares on the same clean crops.
    """

    def __init__(self, denoiser: PlainDenoiser, trained: bool) -> None:
        super().__init__()
        self.denoiser = channels_last(denoiser.requires_grad_(trained))
        self.trained = trained

    def loss(self, d: Tensor, v: Tensor, sigma: Tensor, s: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the model, ``(B,)`` in units of a mean square over pixels; ``noise`` is standard normal, as ``d``."""
        with torch.no_grad():
            r = self.denoiser(d + _wide(s) * noise, s)
        return dae_map_loss(d, r, v, sigma, s), {}

    def own_loss(self, x: Tensor, s: Tensor, noise: Tensor) -> Tensor:
        """Mean square of ``R(x + s n) - x``, ``(B,)``."""
        error: Tensor = self.denoiser(x + _wide(s) * noise, s) - x
        return error.flatten(1).square().mean(1)


class DensityPrior(nn.Module):
    """``log p_s`` itself, from trained weights that stay as they are.

    Args:
        density: of as many channels as the model.
    """

    def __init__(self, density: DDE) -> None:
        super().__init__()
        self.density = channels_last(density.requires_grad_(False))

    def loss(self, d: Tensor, v: Tensor, sigma: Tensor, s: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the model, ``(B,)``: the objective in units of a mean square over pixels, up to a constant.

        Logged: ``map_gain``, by how many nats per value the objective at ``d`` is below that at ``v``.
        """
        objective = dde_map_objective(d, self.density.log_density(d, s), v, sigma)
        with torch.no_grad():
            gain = -self.density.log_density(v, s) - objective
        per_value = 1 / v[0].numel()
        return 2 * sigma.square() * per_value * objective, {"map_gain": (gain * per_value).mean()}


#: Of clean images, what a MAP denoiser minimises.
Prior: TypeAlias = AutoencoderPrior | DensityPrior


class MapDenoiserObjective(Objective[MapDenoiser]):
    """A MAP denoiser, and the prior that it minimises.

    Each crop x gets a level sigma, log-uniform over the model's range, and the input ``v = x + t sigma n`` with t
    uniform in [0, ``input_noise``].  Logged: ``step``, the root mean square of ``D(v) - v`` over sigma; ``mse_prior``,
    that of a trained R in units of (1/255)^2.

    Args:
        model: the denoiser.
        prior: of clean images.
        input_noise: highest t; 0 trains on clean inputs, as the paper does.
        level_power: an image's loss, in units of a mean square, is divided by sigma to this power.
    """

    def __init__(self, model: MapDenoiser, prior: Prior, input_noise: float, level_power: float) -> None:
        super().__init__(channels_last(model))
        self.prior = prior
        self._input_noise, self._power = input_noise, level_power
        self._middle = math.sqrt(model.sigma_range[0] * model.sigma_range[1])

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8 and clean."""
        generators = generators_of(seeds)
        model = self.model
        with torch.autocast(batch["x"].device.type, enabled=False):
            x = float_crops(batch["x"], model.channels)
            sigma, strength = _levels(model.sigma_range, self._input_noise, generators)
            sigma, s = sigma.to(x), model.smoothing * sigma.to(x)
            v = x + _wide(strength.to(x)) * _normal(x, generators) if self._input_noise else x
        d = model(v, sigma).float()
        loss, numbers = self.prior.loss(d, v, sigma, s, _normal(x, generators))
        step = ((d - v).detach().flatten(1).square().mean(1).sqrt() / sigma).mean()
        numbers = {**numbers, "step": step}
        if isinstance(self.prior, AutoencoderPrior) and self.prior.trained:
            own = self.prior.own_loss(x, s, _normal(x, generators))
            loss = loss + own
            numbers["mse_prior"] = own.detach().mean() * 255**2
        weight = (self._middle / sigma) ** self._power
        return (weight * loss).mean() * 255**2, numbers

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """The model's parameters, and those of an autoencoder that is trained too."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": options.lr}]

    def pictures(self, model: MapDenoiser, batch: Batch, seed: int) -> Tensor:
        """A row for each image: clean | with noise of the middle level | its MAP estimate."""
        x = float_crops(batch["x"], model.channels)
        generators = picture_generators(seed, len(x))
        sigma = x.new_full((len(x),), self._middle)
        noisy = x + _wide(sigma) * _normal(x, generators)
        return picture_grid(torch.stack([x, noisy, model.denoise(noisy, sigma)], 1))


def build_objective(options: TrainMapDenoiserOptions) -> MapDenoiserObjective:
    """The objective that ``options`` describe.

    Raises:
        CheckpointError: weights of another kind.
        OptionError: a prior that does not fit the model.
    """
    model = MapDenoiser(**options.model.arguments())
    prior = _build_prior(options.prior, model)
    if options.start_from is not None:
        _start(model, options.start_from)
    return MapDenoiserObjective(model, prior, options.input_noise, options.level_power)


def build_run(options: TrainMapDenoiserOptions) -> RunParts:
    """A MAP denoiser beside its prior, and clean crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))


def _start(model: MapDenoiser, path: str) -> None:
    """Begin as the least-squares denoiser that ``path`` holds: nearer to the goal than the identity."""
    start = checkpoints.load(path, kind="plain_denoiser")
    assert isinstance(start, PlainDenoiser)
    theirs = {name: start.config[name] for name in _SIZE} | {"level": start.config.get("level", True)}
    ours = {name: model.config[name] for name in _SIZE} | {"level": True}
    if theirs != ours:
        raise OptionError(f"start_from {path!r}: a plain denoiser of {theirs}, expected one of the model's {ours}")
    model.net.load_state_dict(start.net.state_dict())


def _build_prior(options: DAEPriorOptions | DDEPriorOptions, model: MapDenoiser) -> Prior:
    match options:
        case DAEPriorOptions():
            return _autoencoder(options, model)
        case DDEPriorOptions():
            return _density(options, model)
        case _:
            assert_never(options)


def _check_channels(what: str, prior: PlainDenoiser | DDE, model: MapDenoiser) -> None:
    if prior.channels != model.channels:
        raise OptionError(f"{what} of {counted(prior.channels, 'channel')}, expected model.channels, {model.channels}")


def _autoencoder(options: DAEPriorOptions, model: MapDenoiser) -> AutoencoderPrior:
    if options.teacher is None:
        return AutoencoderPrior(PlainDenoiser(**{name: model.config[name] for name in _SIZE}), trained=True)
    teacher = checkpoints.load(options.teacher, kind="plain_denoiser")
    assert isinstance(teacher, PlainDenoiser)
    _check_channels(f"prior.teacher {options.teacher!r}: a denoiser", teacher, model)
    if model.config["level_map"] and not teacher.config.get("level", True):
        raise OptionError(
            f"prior.teacher {options.teacher!r}: a denoiser that is not told the level, expected one that is"
        )
    return AutoencoderPrior(teacher, options.train)


def _density(options: DDEPriorOptions, model: MapDenoiser) -> DensityPrior:
    density = checkpoints.load(options.weights, kind="dde")
    assert isinstance(density, DDE)
    _check_channels(f"prior.weights {options.weights!r}: a density", density, model)
    needed = [model.smoothing * level for level in model.sigma_range]
    low, high = density.sigma_range
    if not (low <= needed[0] * 1.001 and needed[1] <= high * 1.001):
        raise OptionError(
            f"prior.weights {options.weights!r}: a density for levels {low:g} to {high:g}, expected it to cover "
            f"{needed[0]:g} to {needed[1]:g}: model.smoothing {model.smoothing:g} times model.sigma_range"
        )
    return DensityPrior(density)


def _levels(
    sigma_range: tuple[float, float], input_noise: float, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Log-uniform levels and the noise of the inputs, ``(B,)`` each."""
    low, high = sigma_range
    draws = torch.stack([torch.rand(2, generator=generator) for generator in generators])  # (B, 2)
    sigma = low * (high / low) ** draws[:, 0]
    return sigma, input_noise * draws[:, 1] * sigma


def _normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators]).to(like)


def _wide(values: Tensor) -> Tensor:
    """``(B,)`` -> ``(B, 1, 1, 1)``."""
    return values[:, None, None, None]
