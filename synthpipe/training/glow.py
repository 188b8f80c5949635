"""The objective of Glow: the likelihood of clean crops."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from synthpipe.config.glow import TrainGlowOptions
from synthpipe.flows.glow import Glow
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, noise_of
from synthpipe.training.data.image_data import ImageData, float_crops
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["GlowObjective", "build_objective", "build_run"]

#: Samples are shown a little below the spread of the model, where they look best (Glow, section 6).
TEMPERATURE = 0.7


class GlowObjective(Objective[Glow]):
    """Mean negative log-likelihood, in bits per dimension, so that one ``clip_norm`` serves all windows.

    Args:
        model: the flow.
    """

    capturable = True

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, window, window)`` uint8; also logs nats per crop."""
        x = float_crops(batch["x"], self.model.channels)
        bits = self.model.bits_per_dim(x, noise_of(seeds, x.device), check_values=False).mean()
        nats = bits.detach() * (x[0].numel() * math.log(2))
        return bits, {"bits_per_dim": bits.detach(), "nll": nats}

    def initialize(self, batch: Batch, seeds: Tensor) -> None:
        """Data-dependent ActNorm scales from the first batch."""
        x = float_crops(batch["x"], self.model.channels)
        self.model.initialize(x, noise_of(seeds, x.device))

    def pictures(self, model: Glow, batch: Batch, seed: int) -> Tensor:
        """A row for each image: the image | four samples."""
        x = float_crops(batch["x"], model.channels)
        generators = picture_generators(seed, 4 * len(x))
        samples = model.sample(4 * len(x), generators, TEMPERATURE)
        return picture_grid(torch.cat([x[:, None], samples.view(len(x), 4, *samples.shape[1:])], 1))


def build_objective(options: TrainGlowOptions) -> GlowObjective:
    """The objective that ``options`` describe."""
    model = Glow(**options.model.arguments())
    model.checkpoint_activations(options.activation_checkpointing)
    return GlowObjective(model)


def build_run(options: TrainGlowOptions) -> RunParts:
    """A Glow, and crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))
