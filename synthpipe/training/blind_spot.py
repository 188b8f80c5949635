"""The objective of the blind-spot denoiser: the likelihood of noisy pixels given their noisy surroundings."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synthpipe.config.blind_spot import TrainBlindSpotOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.config.run import OptimizerOptions
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.noise_level import choose_hole
from synthpipe.denoisers.noise_model import AdditiveNoise, ImpulseNoise, noise_of
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of
from synthpipe.training.data.image_data import ImageData, noisy_crops
from synthpipe.training.data.noise_measurement import measured_correlation
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["BlindSpotObjective", "build_objective", "build_run"]

logger = logging.getLogger("synthpipe.training")

#: Reward for explaining a residual by noise rather than by the prior, where the level is learned (Laine et al.).
_LEVEL_REWARD = 0.1
_LEVEL_SPEED = 30


class BlindSpotObjective(Objective[BlindSpotDenoiser]):
    """Mean over pixels of :meth:`BlindSpotDenoiser.nll`, in float64 behind the network.

    Args:
        model: the denoiser.
        noise: what makes clean crops noisy; None: they are noisy as read.
        hole: of the network while it trains.
        inference_hole: of the model afterwards; None: the same.
        frame: pixels at the borders of crops that do not count.
        level_lr: learning rate of a learned level; None: 30 times the others'.
    """

    hole: Tensor

    def __init__(
        self,
        model: BlindSpotDenoiser,
        noise: TrainingNoise | None,
        hole: int = 0,
        inference_hole: int | None = None,
        frame: int = 0,
        level_lr: float | None = None,
    ) -> None:
        super().__init__(channels_last(model))
        self._noise, self._inference_hole, self._frame, self._level_lr = noise, inference_hole, frame, level_lr
        self.register_buffer("hole", torch.tensor(0))
        self._set_hole(hole)

    def _set_hole(self, hole: int) -> None:
        self.hole.fill_(hole)
        self.model.hole = hole if self._inference_hole is None else self._inference_hole

    def load_companions(self, state: dict[str, Tensor]) -> None:
        """Also sets the hole of the model that is trained."""
        super().load_companions(state)
        self._set_hole(int(self.hole))

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """A learned level has a group of its own."""
        groups: list[dict[str, Any]] = [{"params": list(self.model.net.parameters()), "lr": options.lr}]
        if self.model.raw_level is not None:
            lr = _LEVEL_SPEED * options.lr if self._level_lr is None else self._level_lr
            groups.append({"params": [self.model.raw_level], "lr": lr})
        return groups

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8."""
        generators = generators_of(seeds)
        model = self.model
        noisy, clean, truth = noisy_crops(batch, model.channels, self._noise, generators)
        mu, factor = model.predict(noisy, int(self.hole))
        with torch.autocast(noisy.device.type, enabled=False):
            known = (
                noise_of({name: value.double() for name, value in truth.items()}) if model.level == "known" else None
            )
            nll = model.nll(noisy.double(), mu.double(), factor.double(), known)  # (B, crop, crop)
            side, frame = nll.shape[-1], self._frame
            loss = nll[:, frame : side - frame, frame : side - frame].mean()
            numbers = {"nll": loss.detach().float()}
            if self._noise is not None:
                numbers["mu_rmse"] = (mu.detach() - clean).square().mean().sqrt() * 255
            if model.level == "learned":
                loss = loss - _LEVEL_REWARD * self._learned_std(mu)
            return loss.float(), numbers

    def _learned_std(self, mu: Tensor) -> Tensor:
        noise = self.model.learned_noise(len(mu))
        if isinstance(noise, ImpulseNoise):
            return noise.alpha.mean()
        assert isinstance(noise, AdditiveNoise)
        return noise.variance(mu).sqrt().mean()

    def pictures(self, model: BlindSpotDenoiser, batch: Batch, seed: int) -> Tensor:
        """A row for each image: clean (as read) | noisy | from the surroundings | denoised."""
        generators = picture_generators(seed, len(batch["x"]))
        noisy, clean, truth = noisy_crops(batch, model.channels, self._noise, generators)
        mu, _ = model.predict(noisy)
        return picture_grid(torch.stack([clean, noisy, mu, model.denoise(noisy, truth.get("sigma"))], 1))


def build_objective(options: TrainBlindSpotOptions) -> BlindSpotObjective:
    """The objective that ``options`` describe."""
    hole = _hole_of_the_noise(options) if options.hole == "auto" else options.hole
    return BlindSpotObjective(
        BlindSpotDenoiser(**options.model.arguments()),
        options.data.noise,
        hole,
        options.inference_hole,
        options.frame,
        options.level_lr,
    )


def build_run(options: TrainBlindSpotOptions) -> RunParts:
    """A blind-spot denoiser, and crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))


def _hole_of_the_noise(options: TrainBlindSpotOptions) -> int:
    """``hole: auto``: as far as the noise of the images is correlated."""
    hole = choose_hole(measured_correlation(options.data, options.model.channels, options.seed))
    logger.info("hole: auto: %d pixels on each side, from the correlation of the noise", hole)
    return hole
