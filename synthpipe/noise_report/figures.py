"""Figures of the noise of many photographs or pairs, of one level or of several.

Photographs of several ISO settings show different brightnesses, so that a plain mean would take a noisy dark one for
noise that grows in the dark.  The variance of image i at node k is taken as ``l_i * s_k``, level times shape; both are
found by alternating weighted means, and figures are those of the shape at the mean level.

Legend: I images, K brightness nodes, F = 256 coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from synthpipe.flat_noise import NODES
from synthpipe.flat_noise.spectrum import LAGS, SIDE, autocorrelation, diagonal, radius
from synthpipe.noise_report.blocks import NoisePart, part_of_image, part_of_pair

__all__ = ["BINS", "RINGS", "NoiseFigures", "figures_of", "figures_of_images", "figures_of_pairs"]

#: Rings of frequency from 1/16 to 1/2 cycle per pixel, and bins of the histogram over -6 to 6 standard deviations.
RINGS, BINS = 14, 49
_REACH = 6.0
_LOWEST_FREQUENCY = 1 / 32
_ROUNDS = 30
#: Pixels of flat area at which an image counts half of what one with endless area does.
_HALF_TRUST = 4000.0
#: Share of an image's area that makes a node one of those it lies at.
_SPREAD = 0.1


@dataclass(frozen=True)
class NoiseFigures:
    """Noise on flat areas; standard deviations on the [0, 1] scale."""

    images: int
    #: Pixels of flat area, in all and near each node.
    pixels: int
    counts: tuple[float, ...]
    #: Brightnesses of the nodes.
    brightness: tuple[float, ...]
    #: By node: R, G, B; 0 where nothing counts.
    sigma: tuple[tuple[float, float, float], ...]
    #: Covariance of R, G, B over all nodes, each at the level of its middle.
    channel_correlation: tuple[float, float, float]
    #: 9x9, mean of channels: correlation with the neighbour so many rows and columns away, 1 in the middle.
    correlation: tuple[tuple[float, ...], ...]
    #: Power in rings of frequency over the mean power: 1 in each for white noise.
    spectrum: tuple[float, ...]
    frequencies: tuple[float, ...]
    #: Shares of values between -6 and 6 standard deviations, and how far their tails exceed a Gaussian's.
    histogram: tuple[float, ...]
    excess_kurtosis: float
    #: Standard deviation of the least and of the most noisy image, at equal brightness.
    levels: tuple[float, float]
    #: How many of the images are grey: their channels are equal, and so is the noise in them.
    grey: int = 0

    @property
    def all_grey(self) -> bool:
        """Whether there is no colour whose channels could be compared."""
        return self.grey == self.images

    def lag(self, rows: int, columns: int) -> float:
        """Correlation with the neighbour so many rows and columns away."""
        return self.correlation[LAGS + rows][LAGS + columns]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: what JSON can hold."""
        return asdict(self)


def figures_of_images(images: Iterable[Tensor]) -> NoiseFigures | None:
    """Of photographs ``(3, H, W)``, uint8 or float in [0, 1], by their flat areas; None where none has any."""
    return figures_of(part_of_image(image) for image in images)


def figures_of_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> NoiseFigures | None:
    """Of ``(clean, noisy)``, each as above, where the clean side is flat; None where none is.

    Raises:
        ShapeError: two sizes in a pair.
    """
    return figures_of(part_of_pair(clean, noisy) for clean, noisy in pairs)


@torch.no_grad()
def figures_of(parts: Iterable[NoisePart | None]) -> NoiseFigures | None:
    """Of what each photograph or pair says; None where none says anything."""
    found = [part for part in parts if part is not None and bool(part.counts.any())]
    if not found:
        return None
    counts = torch.stack([part.counts for part in found])  # (I, K)
    area = counts.sum(1)
    variance = torch.stack([diagonal(part.power.mean(3)).mean(1) for part in found])  # (I, K)
    levels, trust = _levels(variance, counts), area / (area + _HALF_TRUST)
    mean_level = float((trust * levels).sum() / trust.sum())
    weights = counts * (trust / area)[:, None]
    power = torch.zeros_like(found[0].power)
    for part, level, weight in zip(found, levels.tolist(), weights, strict=True):
        power += weight[:, None, None, None] * part.power * (mean_level / max(level, 1e-12))
    power /= weights.sum(0).clamp(min=1e-12)[:, None, None, None]
    at_nodes = power.mean(3)  # (K, 3, 3)
    share = weights.sum(0) / weights.sum()
    total = torch.einsum("k,kabf->abf", share, power)
    at_mean_level = diagonal(at_nodes).mean(1).clamp(min=1e-12)
    ratios = ((counts * variance / at_mean_level).sum(1) / area).sqrt()
    middle = math.sqrt(float((share * at_mean_level).sum()))
    histogram, kurtosis = _histogram(torch.cat([part.values for part in found]))
    spectrum, frequencies = _rings(total.diagonal(dim1=0, dim2=1).mean(1))
    return NoiseFigures(
        images=len(found),
        pixels=round(float(area.sum())),
        counts=tuple(counts.sum(0).tolist()),
        brightness=tuple(((torch.arange(NODES) + 0.5) / NODES).tolist()),
        sigma=_triples(diagonal(at_nodes).clamp(min=0).sqrt()),
        channel_correlation=_channel_correlation(total.mean(2)),
        correlation=tuple(map(tuple, autocorrelation(total.diagonal(dim1=0, dim2=1).T.contiguous()).mean(0).tolist())),
        spectrum=spectrum,
        frequencies=frequencies,
        histogram=histogram,
        excess_kurtosis=kurtosis,
        levels=(float(ratios.min()) * middle, float(ratios.max()) * middle),
        grey=sum(part.grey for part in found),
    )


def _levels(variance: Tensor, counts: Tensor) -> Tensor:
    """``l_i`` of ``variance = l_i * s_k`` ``(I, K)``, weighted by ``counts``: ``(I,)``, of mean about 1.

    An image whose area lies at one brightness, which reading it may have shared between two nodes, says nothing of how
    noise changes with brightness, and so nothing of its level: it counts as 1.
    """
    weights = counts / (counts + _HALF_TRUST)
    wide = (counts >= _SPREAD * counts.sum(1, keepdim=True)).sum(1) > 2
    levels = torch.ones(len(variance), dtype=variance.dtype)
    for _ in range(_ROUNDS):
        shape = (weights * variance / levels[:, None]).sum(0) / weights.sum(0).clamp(min=1e-12)
        shape = torch.where(weights.sum(0) > 0, shape, torch.ones_like(shape)).clamp(min=1e-9)
        found = ((weights * variance / shape).sum(1) / weights.sum(1).clamp(min=1e-12)).clamp(min=1e-9)
        levels = torch.where(wide, found / found[wide].mean() if bool(wide.any()) else found, torch.ones_like(found))
    return levels


def _rings(power: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``(F,)`` in rings, over its mean; and the frequencies of their middles, cycles per pixel."""
    frequency = radius() / (2 * SIDE)
    edges = torch.linspace(_LOWEST_FREQUENCY, 0.5, RINGS + 1).tolist()
    mean = power.mean().clamp(min=1e-18)
    values = [float(power[(frequency >= a) & (frequency < b)].mean() / mean) for a, b in pairwise(edges)]
    return tuple(values), tuple((a + b) / 2 for a, b in pairwise(edges))


def _histogram(values: Tensor) -> tuple[tuple[float, ...], float]:
    if not len(values):
        return (0.0,) * BINS, 0.0
    counts = torch.histc(values.clamp(-_REACH, _REACH), BINS, -_REACH, _REACH).double()
    kurtosis = values.double().pow(4).mean() / values.double().square().mean().square().clamp(min=1e-18) - 3
    return tuple((counts / counts.sum()).tolist()), float(kurtosis)


def _channel_correlation(covariance: Tensor) -> tuple[float, float, float]:
    deviation = covariance.diagonal().clamp(min=1e-18).sqrt()
    correlation = covariance / (deviation[:, None] * deviation)
    return float(correlation[0, 1]), float(correlation[1, 2]), float(correlation[0, 2])


def _triples(values: Tensor) -> tuple[tuple[float, float, float], ...]:
    return tuple((r, g, b) for r, g, b in values.tolist())
