"""The objectives of the plain denoiser: least squares against clean images, or against masked pixels of noisy ones.

The first makes the supervised twin of the denoisers that need no pairs; the second is Noise2Void, their rival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import assert_never

import torch
from torch import Tensor

from synthpipe.config.noise import AnyTrainingNoise, DegradeTrainingNoise
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of
from synthpipe.training.data.degraded_crops import DegradedCrops
from synthpipe.training.data.image_data import ImageData, noisy_crops
from synthpipe.training.data.noise2void import mask_pixels
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["Noise2VoidObjective", "PlainDenoiserObjective", "build_objective", "build_run"]

#: Mean square, in units of (1/255)^2, below which an image is as good as clean to the logarithm.
_FLOOR = 0.25


class PlainDenoiserObjective(Objective[PlainDenoiser]):
    """Mean square of ``D(noisy, sigma) - clean``, in units of (1/255)^2, or the logarithm of each image's own.

    Args:
        model: the denoiser.
        noise: what makes clean crops noisy; None: they are noisy already.
        log: whether the loss is the mean of ``ln(mse_i + floor)`` over images i, so that each counts by how far it
            comes and not by how noisy it was; else their mean square.
        level_error: factor by which the level that the model is told may be off, either way.
    """

    def __init__(
        self, model: PlainDenoiser, noise: AnyTrainingNoise | None, log: bool = False, level_error: float = 1.0
    ) -> None:
        super().__init__(channels_last(model))
        self._degrade = DegradedCrops(noise.degrade) if isinstance(noise, DegradeTrainingNoise) else None
        self._noise = None if isinstance(noise, DegradeTrainingNoise) else noise
        self._log, self._level_error = log, math.log(level_error)

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8 and clean."""
        generators = generators_of(seeds)
        noisy, clean, truth = self._crops(batch, self.model.channels, seeds, generators)
        told = truth["sigma"]
        if self._level_error:
            # After the noise, so that it stays what it is without an error.
            draws = torch.cat([2 * torch.rand(1, generator=generator) - 1 for generator in generators])
            told = told * (self._level_error * draws).exp().to(told)
        squares = (self.model(noisy, told) - clean).square().flatten(1).mean(1) * 255**2
        mse = squares.mean()
        loss = (squares + _FLOOR).log().mean() if self._log else mse
        return loss, {"mse": mse.detach()}

    def pictures(self, model: PlainDenoiser, batch: Batch, seed: int) -> Tensor:
        """A row for each image: as read | noisy | denoised."""
        generators = picture_generators(seed, len(batch["x"]))
        seeds = torch.tensor([generator.initial_seed() for generator in generators])
        noisy, clean, truth = self._crops(batch, model.channels, seeds, generators)
        return picture_grid(torch.stack([clean, noisy, model.denoise(noisy, truth.get("sigma"))], 1))

    def _crops(
        self, batch: Batch, channels: int, seeds: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As :func:`noisy_crops`."""
        if self._degrade is None:
            return noisy_crops(batch, channels, self._noise, generators)
        return self._degrade(batch["x"], channels, seeds)


class Noise2VoidObjective(PlainDenoiserObjective):
    """Mean square of ``D(masked) - noisy`` at the masked pixels, in units of (1/255)^2; clean images are never used.

    Where the noise is independent between pixels, its variance plus the error of ``D`` at pixels that it cannot see.

    Args:
        model: the denoiser; it is told no level, since none is known.
        noise: what makes the crops noisy; None: they are noisy already.
        share: of the pixels that are masked.
    """

    def __init__(self, model: PlainDenoiser, noise: AnyTrainingNoise | None, share: float) -> None:
        super().__init__(model, noise)
        self._share = share

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8."""
        generators = generators_of(seeds)
        noisy, _, _ = self._crops(batch, self.model.channels, seeds, generators)
        masked, mask = mask_pixels(noisy, self._share, generators)
        squares = (self.model(masked, noisy.new_zeros(len(noisy))) - noisy).square().mean(1, keepdim=True) * mask
        # Each image by its own number of masked pixels, so that the loss is a mean over images.
        mse = (squares.flatten(1).sum(1) / mask.flatten(1).sum(1)).mean() * 255**2
        return mse, {"mse_masked": mse.detach()}


def build_objective(options: TrainPlainDenoiserOptions) -> PlainDenoiserObjective:
    """The objective that ``options`` describe."""
    model = PlainDenoiser(**options.model.arguments(), level=options.target == "clean" and options.level)
    match options.target:
        case "clean":
            return PlainDenoiserObjective(model, options.data.noise, options.loss == "log_mse", options.level_error)
        case "noise2void":
            return Noise2VoidObjective(model, options.data.noise, options.masked)
        case _:
            assert_never(options.target)


def build_run(options: TrainPlainDenoiserOptions) -> RunParts:
    """A plain denoiser, and crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))
