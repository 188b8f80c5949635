"""A bank of kernels of a degraded pile relative to a clean one: no pairs, one kernel for each degraded image.

Edges of both piles are compared at the same rank of sharpness: a blur that all of a pile's edges went through moves
every quantile of their spectra by its response, while the sharpest isolated edges of photographs, at a pixel's width,
are alike whatever the content.  What differs between images of the clean pile is content alone; as much of the spread
of the degraded pile is not believed, and its images' kernels are drawn to the pile's (empirical Bayes).

Legend: n edges, F frequencies, K nodes of a response, N kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.errors import ShapeError, counted
from synthpipe.kernels.bank import KernelBank
from synthpipe.kernels.edge_model import ResponseModel
from synthpipe.kernels.edges import FREQUENCIES
from synthpipe.kernels.response import radial_kernel

__all__ = ["LEAST_EDGES", "KernelEstimate", "edge_ratio", "estimate_kernels"]

#: Edges that a pile needs, and that an image needs for a kernel of its own.
LEAST_EDGES, _LEAST_OF_IMAGE = 100, 20
#: The rank of sharpness: share of the edges with less power.
_RANK = 0.75
#: Least power of what is left when the noise is taken off.
_FLOOR = 1e-5
#: Frequencies whose amplitudes tell images apart, and resamplings that tell how well they are known.
_TELLING = slice(4, 10)
_RESAMPLINGS = 16


class KernelEstimate(NamedTuple):
    """What was found.

    Args:
        bank: one kernel for each degraded image with edges enough, in the order of their names.
        names: of these images.
        pile: the kernel of the whole pile, ``(S, S)``.
        believed: share of each image's own deviation from the pile that its kernel has, ``(N,)``.
        edges: edges of the clean and of the degraded pile.
    """

    bank: KernelBank
    names: tuple[str, ...]
    pile: Tensor
    believed: Tensor
    edges: tuple[int, int]


def estimate_kernels(
    clean: Mapping[str, Tensor], degraded: Mapping[str, Tensor], side: int = 13, most: int = 64, seed: int = 0
) -> KernelEstimate:
    """Kernels of the degraded pile.

    Args:
        clean: powers across the edges of each clean image, from :func:`synthpipe.kernels.edges.edge_powers`, by a name.
        degraded: the same of each degraded image.
        side: S, of the kernels, pixels, odd.
        most: kernels at most; where more images have edges enough, as many of them are drawn.
        seed: of these draws, and of the resampling.

    Raises:
        ShapeError: a pile with fewer than :data:`LEAST_EDGES` edges; an even ``side``, or no kernel at ``most``.
    """
    if most < 1:
        raise ShapeError(f"estimate_kernels: most: expected at least 1 kernel, got {most}")
    sharp, blurred = _pooled(clean.values(), "clean"), _pooled(degraded.values(), "degraded")
    model = ResponseModel()
    common = _amplitudes(blurred)
    ratio = common - _amplitudes(sharp)
    pile = radial_kernel(model.solve(ratio.exp()), side)
    generator = torch.Generator().manual_seed(seed)
    content = _Spread.of(list(clean.values()), _amplitudes(sharp), generator)
    names = sorted(name for name, powers in degraded.items() if len(powers) >= _LEAST_OF_IMAGE)
    if len(names) > most:
        names = [names[place] for place in sorted(torch.randperm(len(names), generator=generator)[:most].tolist())]
    own = _Spread.of([degraded[name] for name in names], common, generator)
    truly = max(own.between - content.between, 0.0)
    believed = truly / (truly + content.between + own.errors).clamp(min=1e-12)
    kernels = [
        radial_kernel(model.solve((ratio + share * deviation).exp()), side)
        for share, deviation in zip(believed, own.deviations, strict=True)
    ]
    bank = KernelBank.of(torch.stack(kernels) if kernels else pile[None])
    edges = (len(sharp), len(blurred))
    return KernelEstimate(bank, tuple(names) if kernels else ("all images",), pile, believed, edges)


def edge_ratio(clean: Collection[Tensor], degraded: Collection[Tensor]) -> Tensor:
    """Logarithm of the amplitudes across the edges of the degraded pile over the clean one's: ``(F,)`` float64.

    Args:
        clean: powers ``(n, F)`` of each clean image, as of :func:`estimate_kernels`.
        degraded: of each degraded one.

    Raises:
        ShapeError: a pile with fewer than :data:`LEAST_EDGES` edges.
    """
    sharp, blurred = _pooled(clean, "clean"), _pooled(degraded, "degraded")
    return _amplitudes(blurred) - _amplitudes(sharp)


class _Spread(NamedTuple):
    """How images of a pile differ from the whole, in the logarithm of amplitudes."""

    deviations: Tensor  # (N, F)
    errors: Tensor  # (N,): variance of each from the number of its edges, mean over the telling frequencies
    between: float  # variance beyond that

    @classmethod
    def of(cls, images: Sequence[Tensor], common: Tensor, generator: torch.Generator) -> _Spread:
        images = [powers for powers in images if len(powers) >= _LEAST_OF_IMAGE]
        if not images:
            return cls(torch.zeros(0, len(FREQUENCIES), dtype=torch.float64), torch.zeros(0, dtype=torch.float64), 0.0)
        deviations = torch.stack([_amplitudes(powers) - common for powers in images])
        errors = torch.stack([_error(powers, generator) for powers in images])
        square = deviations[:, _TELLING].square().mean(1)
        return cls(deviations, errors, max(float((square - errors).median()), 0.0))


def _error(powers: Tensor, generator: torch.Generator) -> Tensor:
    """Variance of an image's amplitudes, by drawing as many of its edges again."""
    draws = torch.randint(len(powers), (_RESAMPLINGS, len(powers)), generator=generator)
    again = torch.stack([_amplitudes(powers[draw]) for draw in draws])
    return again[:, _TELLING].var(0).mean()


def _amplitudes(powers: Tensor) -> Tensor:
    """Logarithm of the amplitudes at the rank of sharpness, ``(F,)`` float64."""
    return powers.double().quantile(_RANK, 0).clamp(min=_FLOOR).log() / 2


def _pooled(pile: Collection[Tensor], name: str) -> Tensor:
    powers = torch.cat([torch.zeros(0, len(FREQUENCIES)), *pile])
    if len(powers) < LEAST_EDGES:
        raise ShapeError(
            f"estimate_kernels: {name}: expected at least {LEAST_EDGES} isolated edges, got {len(powers)} in "
            f"{counted(len(pile), 'image')}; give more images, or larger ones"
        )
    return powers
