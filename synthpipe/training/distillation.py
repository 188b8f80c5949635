"""The objective of distillation: a plain denoiser learns what a slower one says of noisy images.

No clean image is needed: the teacher's results stand for them.  Where the teacher is a blind-spot network, the student
has no blind spot, sees the noisy pixel itself, and costs a fraction (Wu et al., ECCV 2020, and most that followed).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.distillation import TrainDistillOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.errors import OptionError
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of
from synthpipe.training.data.image_data import ImageData, noisy_crops
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["DistillObjective", "build_objective", "build_run"]


class DistillObjective(Objective[PlainDenoiser]):
    """Mean square of ``student(noisy, sigma) - teacher(noisy, sigma)``, in units of (1/255)^2.

    Args:
        model: the student.
        teacher: frozen here; stands beside the model in checkpoints.
        noise: what makes clean crops noisy; None: they are noisy as read.
        sigma: level of crops that are noisy as read; None: estimated for each.
        frame: pixels at the borders of crops that do not count.
    """

    def __init__(
        self,
        model: PlainDenoiser,
        teacher: Denoiser,
        noise: TrainingNoise | None,
        sigma: float | None = None,
        frame: int = 0,
    ) -> None:
        super().__init__(channels_last(model))
        self.teacher = channels_last(teacher.eval().requires_grad_(False))
        self._noise, self._sigma, self._frame = noise, sigma, frame

    def train(self, mode: bool = True) -> DistillObjective:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, crop, crop)`` uint8, noisy or to be made so."""
        generators = generators_of(seeds)
        noisy, clean, level, is_synthetic = self._noisy(batch, generators)
        with torch.no_grad(), torch.autocast(noisy.device.type, enabled=False):
            target = self.teacher(noisy, level)
        learnt = self.model(noisy, level).float()
        mse = self._inside(learnt - target).square().mean() * 255**2
        numbers = {"mse": mse.detach()}
        if is_synthetic:
            numbers["psnr"] = self._psnr(learnt.detach(), clean)
            numbers["psnr_teacher"] = self._psnr(target, clean)
        return mse, numbers

    def pictures(self, model: PlainDenoiser, batch: Batch, seed: int) -> Tensor:
        """A row for each image: noisy | teacher | student."""
        generators = picture_generators(seed, len(batch["x"]))
        noisy, _, level, _ = self._noisy(batch, generators)
        results = [denoiser.denoise(noisy, level) for denoiser in (self.teacher, model)]
        return picture_grid(torch.stack([noisy, *results], 1))

    def _noisy(self, batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Noisy crops, the crops as read, levels ``(B,)``, and whether the noise was added here."""
        noisy, clean, truth = noisy_crops(batch, self.model.channels, self._noise, generators)
        if truth:
            return noisy, clean, truth["sigma"], True
        level = estimate_sigma(noisy) if self._sigma is None else noisy.new_full((len(noisy),), self._sigma)
        return noisy, clean, level, False

    def _inside(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return x[:, :, self._frame : height - self._frame, self._frame : width - self._frame]

    def _psnr(self, denoised: Tensor, clean: Tensor) -> Tensor:
        error = self._inside(denoised.clamp(0, 1) - clean).flatten(1).square().mean(1)
        return -10 * error.clamp(min=1e-12).log10().mean()


def build_objective(options: TrainDistillOptions) -> DistillObjective:
    """The objective that ``options`` describe, with its teacher loaded.

    Raises:
        OptionError: weights that are no denoiser, or one of other channels.
        CheckpointError: no such weights.
    """
    teacher = checkpoints.load(options.teacher)
    if not isinstance(teacher, Denoiser):
        raise OptionError(f"teacher: expected weights of a denoiser, got a {type(teacher).__name__}")
    if teacher.channels != options.model.channels:
        raise OptionError(
            f"model.channels: expected {teacher.channels}, as the teacher has, got {options.model.channels}"
        )
    student = PlainDenoiser(**options.model.arguments())
    return DistillObjective(student, teacher, options.data.noise, options.sigma, options.frame)


def build_run(options: TrainDistillOptions) -> RunParts:
    """A student beside its teacher, and crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))
