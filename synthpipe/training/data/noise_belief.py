"""What a training takes the noise of its images to be: additive, Gaussian, of known spread and correlation.

Legend: B batch, C channels, H, W size, k side of a kernel.  All spreads are on the [0, 1] scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.flow_prior import MeasuredNoiseOptions, NoiseModel
from synthpipe.denoisers.noise_level import estimate_noise_line, estimate_sigma

__all__ = ["NoiseBelief", "believed_noise", "binomial_kernel", "kernel_of"]

#: Variances below this times their image's mean are raised to it: weights stay finite near black.
_FLOOR = 0.05
#: No file of 8 bits has less noise than half a level of grey.
_LEAST = 0.5 / 255


@dataclass(frozen=True)
class NoiseBelief:
    """Noise ``sqrt(slope x + offset) * w``, w white of unit variance or that filtered with ``kernel``.

    ``slope`` and ``offset`` are ``(B,)``; ``level`` ``(B,)`` is the root mean square over each image; ``kernel`` is
    ``(k, k)``, k odd, with squares that add up to 1.
    """

    slope: Tensor
    offset: Tensor
    level: Tensor
    kernel: Tensor

    def variance(self, x: Tensor) -> Tensor:
        """Variance at each value of ``x`` ``(B, C, H, W)``, which is clipped to [0, 1]."""
        variance = self.slope[:, None, None, None] * x.clamp(0, 1) + self.offset[:, None, None, None]
        return variance.maximum(_FLOOR * self.level.square()[:, None, None, None])

    def draw(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Another realisation on images ``x`` ``(B, C, H, W)``; one CPU generator for each."""
        channels, height, width = x.shape[1:]
        more = len(self.kernel) - 1
        shape = (channels, height + more, width + more)
        white = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(x)
        if more:
            white = F.conv2d(white.flatten(0, 1)[:, None], self.kernel.to(x)[None, None]).view_as(x)
        return self.variance(x).sqrt() * white


def binomial_kernel(times: int) -> Tensor:
    """``times`` 3x3 binomial kernels in one, ``(2 times + 1, 2 times + 1)``, of unit energy; 0 gives a single pixel."""
    line = torch.ones(1, 1, 1)
    for _ in range(times):
        line = F.conv1d(line, torch.tensor([[[1.0, 2.0, 1.0]]]), padding=2)
    line = line.flatten() / line.norm()
    return torch.outer(line, line)


def kernel_of(correlation: Tensor) -> Tensor:
    """A kernel that gives white noise a correlation, up to what no noise can have.

    Args:
        correlation: ``(n, n)`` at so many rows and columns, the same in either direction; 1 at ``[0, 0]``.

    Returns:
        ``(2 n - 1, 2 n - 1)``, symmetric, of unit energy: the square root of the spectrum, cut to that size.
    """
    n = len(correlation)
    rows = torch.cat([correlation.flip(0)[:-1], correlation], 0)
    padded = correlation.new_zeros(4 * n, 4 * n)
    padded[: 2 * n - 1, : 2 * n - 1] = torch.cat([rows.flip(1)[:, :-1], rows], 1)
    spectrum = torch.fft.fft2(padded.roll((1 - n, 1 - n), (0, 1))).real.clamp_min(0)
    whole: Tensor = torch.fft.ifft2(spectrum.sqrt()).real
    kernel = whole.roll((n - 1, n - 1), (0, 1))[: 2 * n - 1, : 2 * n - 1]
    energy: Tensor = kernel.norm()
    return kernel / energy


def believed_noise(noisy: Tensor, truth: dict[str, Tensor], chosen: NoiseModel, kernel: Tensor) -> NoiseBelief:
    """The noise of ``noisy`` as the options ``noise_model`` of kind flow_prior say it is.

    Args:
        noisy: ``(B, C, H, W)``.
        truth: of :func:`synthpipe.transforms.training_noise.add_noise`, for ``"known"``.
        chosen: ``"known"``, ``"estimated"`` or ``"estimated_line"`` (from each image), a standard deviation, or a
            line over brightness.
        kernel: correlation, as in :class:`NoiseBelief`.
    """
    zero = noisy.new_zeros(len(noisy))
    match chosen:
        case MeasuredNoiseOptions():
            return _on_line(noisy, zero + chosen.a, zero + chosen.b, kernel)
        case "estimated_line":
            return _on_line(noisy, *estimate_noise_line(noisy), kernel)
        case "known" if "lam" in truth:
            return _on_line(noisy, 1 / truth["lam"], zero, kernel)
        case "known" if "a" in truth:
            return _on_line(noisy, truth["a"], truth["b"], kernel)
        case "known":
            return _of_level(truth["sigma"], kernel)
        case "estimated":
            return _of_level(estimate_sigma(noisy), kernel)
        case float() | int():
            return _of_level(zero + chosen, kernel)
        case _:
            assert_never(chosen)


def _of_level(level: Tensor, kernel: Tensor) -> NoiseBelief:
    """The same at every brightness."""
    level = level.clamp_min(_LEAST)
    return NoiseBelief(torch.zeros_like(level), level.square(), level, kernel)


def _on_line(noisy: Tensor, slope: Tensor, offset: Tensor, kernel: Tensor) -> NoiseBelief:
    mean = noisy.flatten(1).mean(1).clamp(0, 1)  # noise has mean 0, so that this is the clean image's
    return NoiseBelief(slope, offset, (slope * mean + offset).sqrt().clamp_min(_LEAST), kernel)
