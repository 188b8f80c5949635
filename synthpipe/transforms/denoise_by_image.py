"""Denoising as it comes: what is done about an image follows from the noise that is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.denoisers.pixel_shuffle import denoise_by_stride
from synthpipe.errors import ShapeError
from synthpipe.flat_noise import estimate_noise
from synthpipe.images import check_images
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.denoise import finished, tiled_result
from synthpipe.transforms.treatment import Treatment, treatment_of

__all__ = ["DenoiseByImage"]


class DenoiseByImage(BatchTransform):
    """Replaces ``gt`` by its denoised version, each image by the level and the correlation of its own noise.

    Level, correlation and how far they are to be trusted come from :func:`synthpipe.flat_noise.estimate_noise`, what is
    done about them from :func:`synthpipe.transforms.treatment.treatment_of`.  An image changes by no more than the
    noise that was measured on it, and by less where the measurement is weak.  Measuring asks for values, so that this
    is no part of a captured graph.

    Args:
        model: any denoiser.  Of a blind-spot network of white noise (trained with known levels, without a hole), hole
            and stride are chosen, too.
        white: another one, for images whose noise is white, and not the same in all channels as in grey images; None:
            ``model``.
        tile: longest side denoised at once.
        overlap: as of :class:`synthpipe.transforms.Denoise`.

    Raises:
        ShapeError: what is no denoiser.
    """

    def __init__(
        self, model: nn.Module, white: nn.Module | None = None, *, tile: int = 512, overlap: int | None = None
    ) -> None:
        models = [model] if white is None else [model, white]
        for given in models:
            if not isinstance(given, Denoiser):
                raise ShapeError(f"DenoiseByImage: expected denoisers, got {type(given).__name__}")
            given.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._models = nn.ModuleList(models)
        self.tile, self._overlap = tile, overlap

    @property
    def model(self) -> Denoiser:
        """The one that sees farthest."""
        return max((self._of(place) for place in range(len(self._models))), key=lambda model: model.reach)

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """``treatments``: of each image, from its own pixels; nothing is random."""
        check_images(batch["gt"], "DenoiseByImage")
        return {"treatments": [treatment_of(estimate_noise(image.cpu())) for image in batch["gt"]]}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Replace ``gt`` by a new tensor of the same shape, dtype and device, of multiples of 1/255.

        Raises:
            ShapeError: ``gt`` is no RGB image or holds NaN.
        """
        check_images(batch["gt"], "DenoiseByImage")
        return {**batch, "gt": self._cleaned(batch["gt"], params["treatments"], rounded=True)}

    def clean(self, x: Tensor, *, rounded: bool = True) -> Tensor:
        """As :meth:`synthpipe.transforms.Denoise.clean`, each image by its own noise.

        Raises:
            ShapeError: no RGB images, or NaN.
        """
        return self._cleaned(x, self.sample_params({"gt": x})["treatments"], rounded)

    def to(self, device: torch.device | str) -> DenoiseByImage:
        """Move the networks."""
        self._models.to(device)
        return self

    @torch.no_grad()
    def _cleaned(self, x: Tensor, treatments: list[Treatment | None], rounded: bool) -> Tensor:
        out = x.clone()
        for row, treatment in enumerate(treatments):
            if treatment is not None:
                image = x[row : row + 1]
                out[row] = finished(image + _held(self._result(image, treatment) - image, treatment.most), rounded)[0]
        return out

    def _result(self, x: Tensor, treatment: Treatment) -> Tensor:
        """One image ``(1, 3, H, W)`` by the network that suits it, neither clipped nor held back."""
        model = self._of(-1 if treatment.white and not treatment.same else 0)
        level = estimate_sigma(x) if treatment.level is None else x.new_full((1,), treatment.level)

        def run(part: Tensor, sigma: Tensor) -> Tensor:
            """An image at some size, neither clipped nor held back."""
            return tiled_result(model, part, sigma, self.tile, self._overlap)

        if treatment.white:
            return run(x, level)
        if not _of_white_noise(model):
            twice = partial(_both_ways_up, run)
            return _without_slow_noise(twice(x, level), twice, level * treatment.coarse)
        assert isinstance(model, BlindSpotDenoiser)
        model.hole = treatment.hole
        try:
            return denoise_by_stride(run, x, level, treatment.stride)
        finally:
            model.hole = 0

    def _of(self, place: int) -> Denoiser:
        model = self._models[place]
        assert isinstance(model, Denoiser)
        return model


def _both_ways_up(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, level: Tensor) -> Tensor:
    """The mean of a network's results for an image ``(1, 3, H, W)`` and for the same turned by 180 degrees."""
    return (run(x, level) + run(x.flip(2, 3), level).flip(2, 3)) / 2


def _without_slow_noise(y: Tensor, run: Callable[[Tensor, Tensor], Tensor], level: Tensor) -> Tensor:
    """What a network leaves of noise that is many pixels long it sees at half the size.

    Args:
        y: a result ``(1, 3, H, W)``.
        run: the network.
        level: ``(1,)``, that it is told at half the size.
    """
    half = F.avg_pool2d(y, 2, ceil_mode=True)
    change = F.interpolate(run(half, level) - half, scale_factor=2, mode="bilinear", align_corners=False)
    return y + change[..., : y.shape[2], : y.shape[3]]


def _of_white_noise(model: Denoiser) -> bool:
    """Whether a network knows noise that is independent from pixel to pixel, and can be shown less to fit other."""
    return isinstance(model, BlindSpotDenoiser) and model.level == "known" and model.hole == 0


def _held(change: Tensor, most: float) -> Tensor:
    """``(1, 3, H, W)``, scaled down where its root mean square is above ``most``; NaN and infinity stay."""
    size = change.square().mean().sqrt()
    return change * (most / size.clamp(min=most))
