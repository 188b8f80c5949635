"""The peer without a flow and without pairs: Gaussian noise drawn straight from the flat-area statistics of a pile.

Three independent fields, each white noise through the filter whose square is the spectrum of its channel's
autocorrelation, mixed in each pixel by the symmetric root of the covariance at its brightness and level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from comparison import Generator, read
from torch import Tensor

from synthpipe.flat_noise import noise_level
from synthpipe.flows.flat_correction import local_brightness, node_weights
from synthpipe.images import to_uint8
from synthpipe.training.data.flat_calibration import PileNoise, group_levels, measure_pile

__all__ = ["flat_gaussian", "pile_noise"]


def pile_noise(folder: Path) -> PileNoise:
    """The statistics that a correction goes by, of the images of ``folder``."""
    images = [to_uint8(read(path)[None])[0] for path in sorted(folder.iterdir())]
    levels = [noise_level(image) for image in images]
    known = [(image, level) for image, level in zip(images, levels, strict=True) if level is not None]
    return measure_pile(group_levels([level for _, level in known]), lambda number: known[number][0])


def flat_gaussian(pile: PileNoise, level: float) -> Generator:
    """Clean images ``(B, 3, H, W)`` to noisy ones, at one level on the [0, 1] scale."""
    weights = node_weights(torch.tensor([math.log(level)], dtype=torch.float64), pile.levels.log())[0]
    relative = pile.covariance / pile.levels.square()[:, None, None, None]
    covariance = level**2 * torch.einsum("l,lkij->kij", weights, relative)
    values, vectors = torch.linalg.eigh(covariance)
    roots = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT  # (K, 3, 3)
    correlation = torch.einsum("l,lcyx->cyx", weights, pile.autocorrelation)

    def run(clean: Tensor, seeds: Sequence[int]) -> Tensor:
        shape = clean.shape[1:]
        white = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).double()
        fields = torch.fft.irfft2(torch.fft.rfft2(white) * _gain(correlation, shape[1], shape[2]), s=shape[1:])
        at = torch.einsum("nkhw,kij->nijhw", node_weights(local_brightness(clean.double()), pile.brightness), roots)
        return clean + torch.einsum("nijhw,njhw->nihw", at, fields).to(clean.dtype)

    return run


def _gain(correlation: Tensor, height: int, width: int) -> Tensor:
    """Root of the spectrum of an autocorrelation ``(3, S, S)``, cut at 0, of mean square 1."""
    half = correlation.shape[-1] // 2
    lags = torch.zeros(3, height, width, dtype=torch.float64)
    lags[:, : 2 * half + 1, : 2 * half + 1] = correlation
    power = torch.fft.fft2(lags.roll((-half, -half), (1, 2))).real.clamp(min=0)
    gain: Tensor = (power / power.mean((1, 2), keepdim=True)).sqrt()
    return gain[..., : width // 2 + 1]
