"""The objective of the plain denoiser: least squares on pairs, the supervised twin of those that need none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from synthpipe.config.noise import TrainingNoise
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.training.base import Objective
from synthpipe.training.images import noisy_crops
from synthpipe.transforms.base import Batch, generator_for

__all__ = ["PlainDenoiserObjective", "build_objective"]


class PlainDenoiserObjective(Objective):
    """Mean square of ``D(noisy, sigma) - clean``, in units of (1/255)^2.

    Args:
        model: the denoiser.
        noise: what makes clean crops noisy.
    """

    def __init__(self, model: PlainDenoiser, noise: TrainingNoise) -> None:
        super().__init__(model.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self._noise = noise

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8 and clean."""
        model = cast(PlainDenoiser, self.model)
        noisy, clean, truth = noisy_crops(batch, model.channels, self._noise, generators)
        mse = (model(noisy, truth["sigma"]) - clean).square().mean() * 255**2
        return mse, {"mse": mse.detach()}

    def pictures(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """A row for each image: clean | noisy | denoised."""
        denoiser = cast(PlainDenoiser, model)
        generators = [generator_for(seed, f"picture{place}") for place in range(len(batch["x"]))]
        noisy, clean, truth = noisy_crops(batch, denoiser.channels, self._noise, generators)
        rows = torch.cat([clean, noisy, denoiser.denoise(noisy, truth["sigma"])], 3)  # (B, C, side, 3 * side)
        return torch.cat(list(rows.clamp(0, 1)), 1).expand(3, -1, -1)


def build_objective(options: TrainPlainDenoiserOptions) -> PlainDenoiserObjective:
    """The objective that ``options`` describe."""
    return PlainDenoiserObjective(PlainDenoiser(**options.model.arguments()), options.data.noise)
