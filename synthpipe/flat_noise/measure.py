"""The noise of single photographs, without references: what the flat areas of one image or of a pile say.

Camera noise is correlated over several pixels and between channels, grows and falls with brightness, and is mixed with
texture.  The estimate goes by 16x16 blocks in the DCT domain, brightness by brightness:

* *flat* blocks are those of the least low-frequency power, within bounds against their own fine noise, so that the
  calmest places of uneven noise do not stand for all.  Half of the coefficients (a chessboard of frequencies)
  judge, the other half are measured, and the other way round, so that being chosen makes no measured one smaller
  (as Ponomarenko et al. 2007 and Colom & Buades, IPOL 2013, whose means these are);
* the power of a coefficient is the *median* of its squares over the flat blocks, divided by that of a squared normal
  number: blocks with texture, up to half of them, do not raise it.  Covariances of channels come from the powers of
  their sums and differences;
* a part of the brightness range whose variance is far above what the others allow is texture and counts little;
* the few lowest frequencies hold shading, so that they get no more than the next ones let expect.

Everything is on the [0, 1] scale.  The figures mean the same as those of aligned pairs
(:func:`synthpipe.noise_statistics.measure_noise` with ``LOCAL_MEAN_WINDOW`` and ``flat_only``).

Legend: N blocks, F = 256 frequencies of a block, K brightness nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise.flat_blocks import FlatPart, check_image, flat_parts
from synthpipe.flat_noise.spectrum import FREQUENCIES, LAGS, SIDE, autocorrelation, diagonal, without_shading

__all__ = ["LAGS", "NODES", "FlatNoise", "flat_power", "measure_flat_noise", "noise_level"]

#: Nodes of brightness: the middles of as many equal parts of [0, 1].
NODES = 8

#: Pixels of flat area that neighbouring nodes count for.
_SHRINKAGE = 100.0
#: Over the whole range of brightness sigma grows by a factor of at most exp of the first and falls, as tone curves
#: press what is bright, by exp of the second; said by parts within the tone range.
_GROWTH, _FALL, _TONE_RANGE = 1.5, 3.5, (0.06, 0.85)
#: Variance that rounding to 8 bits and coding may leave where they have erased all noise.
_ERASED = (0.7 / 255) ** 2
#: Variance that a part may have above the bound, as a factor, and to which power trust falls beyond.
_ALLOWED, _DISTRUST = 1.2, 4


@dataclass(frozen=True)
class FlatNoise:
    """Noise of flat areas; variances and covariances on the [0, 1] scale, float64."""

    #: Pixels of flat area that counted.
    pixels: int
    #: ``(K,)``: brightnesses (mean of R, G, B) that the covariances are of.
    nodes: Tensor
    #: ``(K, 3, 3)``: covariance of R, G, B in one pixel; nodes with little area lean on their neighbours.
    covariance: Tensor
    #: ``(K,)``: pixels of flat area near each node.
    counts: Tensor
    #: ``(3, 9, 9)``: correlation of a channel with itself, displaced by -4..4 rows and columns; the middle is 1.
    autocorrelation: Tensor
    #: One number: standard deviation, root mean square over channels, middle brightnesses weighted most.
    level: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: what JSON can hold."""
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(self).items()}


@torch.no_grad()
def measure_flat_noise(images: Iterable[Tensor]) -> FlatNoise:
    """Noise of a pile of photographs, from their flat areas.

    Args:
        images: ``(3, H, W)`` each, uint8 or float in [0, 1], of any sizes; they count by their flat area.  Values
            beyond are taken as they are.

    Raises:
        ShapeError: an image of another shape or below 16x16, or no flat area in any of them.
    """
    power, counts = flat_power(images)
    covariance = _lean_on_neighbours(power.mean(3), counts)
    total = torch.einsum("k,kccf->cf", counts, power) / counts.sum()
    nodes = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
    return FlatNoise(
        pixels=round(float(counts.sum())),
        nodes=nodes,
        covariance=covariance,
        counts=counts,
        autocorrelation=autocorrelation(total),
        level=_level(nodes, covariance),
    )


@torch.no_grad()
def flat_power(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What :func:`measure_flat_noise` goes by: the noise in each coefficient of 16x16 DCT blocks.

    Args:
        images: as there.

    Returns:
        ``(K, 3, 3, F)`` float64, covariance of the channels by node and frequency, and ``(K,)``, pixels near each node.

    Raises:
        ShapeError: as there.
    """
    power = torch.zeros(NODES, 3, 3, FREQUENCIES, dtype=torch.float64)
    counts = torch.zeros(NODES, dtype=torch.float64)
    seen = 0
    for image in images:
        seen += 1
        parts = flat_parts(image)
        for part, trust in zip(parts, _trust(parts), strict=True):
            weight = trust * part.pixels * _node_weights(part.brightness)
            power += weight[:, None, None, None] * part.power
            counts += weight
    if not counts.any():
        raise ShapeError(f"measure_flat_noise: no flat, unclipped area of 16x16 pixels in {seen} images")
    return without_shading(power / counts.clamp(min=1e-9)[:, None, None, None]), counts


def noise_level(image: Tensor) -> float | None:
    """The level of one image, comparable between images: see ``level`` of :class:`FlatNoise`.

    Args:
        image: ``(3, H, W)``, uint8 or float in [0, 1]; values beyond are taken as they are.

    Returns:
        A standard deviation on the [0, 1] scale; None where there is no flat, unclipped area.

    Raises:
        ShapeError: another shape or scale, NaN.

    >>> import torch
    >>> from synthpipe.flat_noise import noise_level
    >>> level = noise_level(0.5 + 0.05 * torch.randn(3, 96, 96))
    >>> bool(abs(level - 0.05) < 0.005)
    True
    """
    check_image(image, least=1)
    if min(image.shape[1:]) < SIDE:
        return None
    try:
        return measure_flat_noise([image]).level
    except ShapeError:
        return None


def _trust(parts: list[FlatPart]) -> list[float]:
    """Share, 0 to 1, in which each part of like brightness counts: little where it holds much more than others allow.

    Texture only adds to a variance, and noise changes little between like brightnesses: each part sets a bound for all
    others, a wider one for those that are darker.  Noise near black and white, where tone curves press it, says nothing
    of others; drawn areas have none.
    """
    if not parts:
        return []
    variance = torch.tensor([float(_variances(part).mean()) for part in parts]).clamp(min=1e-12)
    brightness = torch.tensor([part.brightness for part in parts])
    above = brightness[:, None] - brightness
    bound = variance * (2 * torch.where(above > 0, _GROWTH * above, -_FALL * above)).exp()
    pressed = (brightness < _TONE_RANGE[0]) | (brightness > _TONE_RANGE[1])
    bound[:, pressed | (variance < _ERASED)] = math.inf
    lowest = bound.min(1).values.minimum(variance)
    trust: list[float] = ((_ALLOWED * lowest / variance).clamp(max=1) ** _DISTRUST).tolist()
    return trust


def _variances(part: FlatPart) -> Tensor:
    """Of R, G, B without the mean of blocks, ``(3,)``."""
    return part.power.diagonal(dim1=0, dim2=1)[1:].mean(0)


def _node_weights(brightness: float) -> Tensor:
    """How much of a brightness belongs to each node, ``(K,)``, by linear interpolation."""
    place = min(max(brightness * NODES - 0.5, 0.0), NODES - 1.0)
    return (1 - (torch.arange(NODES, dtype=torch.float64) - place).abs()).clamp(min=0)


def _lean_on_neighbours(covariance: Tensor, counts: Tensor) -> Tensor:
    """Least squares of ``(K, 3, 3)`` with a penalty on differences between neighbouring nodes.

    All weights of the solution are positive, so that covariances stay what they are; an empty node lies on the line
    between its neighbours, one at the end is as the next.
    """
    chain = torch.eye(NODES, dtype=torch.float64).diff(dim=0)
    left = torch.diag(counts) + _SHRINKAGE * chain.T @ chain
    right = counts[:, None] * covariance.flatten(1)
    return _positive(torch.linalg.solve(left, right).unflatten(1, (3, 3)))


def _positive(covariance: Tensor) -> Tensor:
    """The nearest covariances: those of pairs of channels, each by itself, need not fit together."""
    values, vectors = torch.linalg.eigh(covariance)
    nearest: Tensor = vectors @ torch.diag_embed(values.clamp(min=0)) @ vectors.mT
    return nearest


def _level(nodes: Tensor, covariance: Tensor) -> float:
    weight = nodes * (1 - nodes)
    variance = diagonal(covariance).mean(1)
    return math.sqrt(max(0.0, float((weight * variance).sum() / weight.sum())))
