"""Kernels from spectra of two piles, with edges where both agree: one for each folder of the degraded pile.

Spectra tell what textures lost and edges what edges lost.  Behind a blur both say the same, and their mean is nearer
to the truth than either.  Cameras do more than blur: they sharpen edges, and smooth weak detail.  Then edges keep more
than spectra say, and it is spectra that agree with what pairs of photographs have lost; so the more the two disagree,
the less edges count.

Legend: P planes, luma and colour; K nodes of a response, F frequencies in cycles per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.kernels.bank import KernelBank
from synthpipe.kernels.edge_model import ResponseModel
from synthpipe.kernels.estimate import LEAST_EDGES, edge_ratio
from synthpipe.kernels.evidence import Pile
from synthpipe.kernels.response import FREQUENCIES, at_frequencies, radial_kernel
from synthpipe.kernels.response_prior import NODES, nodes
from synthpipe.kernels.spectra import log_amplitudes
from synthpipe.kernels.spectral_model import LEAST_IMAGES, spectral_response

__all__ = ["GroupEstimate", "estimate_groups"]

#: What a kernel is told by.
Teller = Literal["both", "spectra"]
#: Amounts of an unsharp mask that may be expected of luma, as standard deviations; colour is not sharpened.
_SHARPENINGS = (0.0, 0.3, 1.0)
#: Share of edges where they agree with spectra, and the difference of logarithms at which it is half of that.
_EDGE_SHARE, _DISAGREEMENT = 0.5, 0.12
#: Cycles per pixel between which both are compared, where the response is above ``_VISIBLE``.
_COMPARED, _VISIBLE = (0.15, 0.35), 0.1


class GroupEstimate(NamedTuple):
    """What was found.

    Args:
        bank: one kernel for each group, in the order of their names.
        names: of the groups.
        edge_shares: how much edges counted in each group, 0 to 0.5.
        errors: ``(groups, F)``: standard errors of luma's amplitudes at
            :data:`synthpipe.kernels.response.FREQUENCIES`, by drawing as many images again; NaN without resamplings.
    """

    bank: KernelBank
    names: tuple[str, ...]
    edge_shares: tuple[float, ...]
    errors: Tensor


class _Told(NamedTuple):
    """What the images of a pile tell of luma: spectra ``(K,)`` of those with detail, edges ``(n, F)`` of each."""

    spectra: list[Tensor]
    edges: list[Tensor]

    def again(self, generator: torch.Generator) -> _Told:
        """As many images, drawn with replacement."""
        drawn = torch.randint(len(self.spectra), (len(self.spectra),), generator=generator).tolist()
        return _Told([self.spectra[place] for place in drawn], [self.edges[place] for place in drawn])

    def known(self) -> Tensor:
        """``(N, K)``."""
        return torch.stack(self.spectra) if self.spectra else torch.zeros(0, NODES, dtype=torch.float64)


def estimate_groups(
    clean: Pile,
    degraded: Mapping[str, Pile],
    side: int = 25,
    teller: Teller = "both",
    chroma: bool = True,
    resamplings: int = 0,
) -> GroupEstimate:
    """A kernel of each group of degraded images.

    Args:
        clean: the clean pile.
        degraded: groups by their names.
        side: S, of the kernels, pixels, odd.
        teller: edges and spectra, or spectra alone.
        chroma: kernels for the differences of colour, too.
        resamplings: how often the estimate is made again, with as many images of both piles drawn with replacement, for
            its standard error; 0 or at least 2.

    Raises:
        ShapeError: fewer than three images with detail in a group or in the clean pile; no groups; another ``side``,
            ``teller`` or number of resamplings than named above.
    """
    _check(teller, resamplings)
    if not degraded:
        raise ShapeError("estimate_groups: expected at least one group of images, got none")
    spectra = _spectra("clean", clean)
    sharp = _told_of_luma(clean, spectra)
    lumas, colours, shares, errors = [], [], [], []
    for name, pile in sorted(degraded.items()):
        own = _spectra(name, pile)
        told = _told_of_luma(pile, own)
        if len(told.spectra) < LEAST_IMAGES:
            raise ShapeError(
                f"estimate_groups: {name!r}, degraded: expected at least {LEAST_IMAGES} images with detail, got "
                f"{len(told.spectra)}; give "
                "more images to this folder, leave it out, or put its images into another one"
            )
        response, share = _response(told, sharp, teller)
        lumas.append(radial_kernel(response, side))
        colours.append(radial_kernel(_colour_response(own, spectra, response), side) if chroma else lumas[-1])
        shares.append(share)
        errors.append(_standard_error(told, sharp, teller, resamplings))
    bank = KernelBank.of(torch.stack(lumas), chroma=torch.stack(colours) if chroma else None)
    return GroupEstimate(bank, tuple(sorted(degraded)), tuple(shares), torch.stack(errors))


def _check(teller: str, resamplings: int) -> None:
    if teller not in get_args(Teller):
        raise ShapeError(f"estimate_groups: teller: expected one of {', '.join(get_args(Teller))}, got {teller!r}")
    if resamplings < 0 or resamplings == 1:
        raise ShapeError(
            f"estimate_groups: resamplings: expected 0 for no standard error, or at least 2, got {resamplings}: one "
            "estimate has no spread"
        )


def _response(told: _Told, sharp: _Told, teller: Teller) -> tuple[Tensor, float]:
    """Of luma, ``(K,)``; and how much edges counted."""
    response = spectral_response(told.known(), sharp.known(), _SHARPENINGS)
    if teller == "both":
        return _with_edges(response, told.edges, sharp.edges)
    return response, 0.0


def _standard_error(told: _Told, sharp: _Told, teller: Teller, resamplings: int) -> Tensor:
    """``(F,)`` float64: bootstrap over images (Efron 1979), those of the clean pile as well."""
    if not resamplings:
        return torch.full((len(FREQUENCIES),), torch.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    found = [_response(told.again(generator), sharp.again(generator), teller)[0] for _ in range(resamplings)]
    return at_frequencies(torch.stack(found)).std(0)


def _told_of_luma(pile: Pile, spectra: Tensor) -> _Told:
    """Of the images that have detail; ``spectra`` ``(N, P, K)`` are theirs."""
    some = [place for place, known in enumerate(spectra[:, 0].isfinite().all(1).tolist()) if known]
    edges = [each.edges for each in pile.values()]
    return _Told([spectra[place, 0] for place in some], [edges[place] for place in some])


def _with_edges(response: Tensor, blurred: list[Tensor], sharp: list[Tensor]) -> tuple[Tensor, float]:
    """The response moved towards that of edges, and how far."""
    if min(sum(map(len, some)) for some in (blurred, sharp)) < LEAST_EDGES:
        return response, 0.0
    edges = ResponseModel(max(_SHARPENINGS)).solve(edge_ratio(sharp, blurred).exp())
    difference = (edges / response).log()
    node = nodes()
    compared = (node >= _COMPARED[0]) & (node <= _COMPARED[1]) & (response > _VISIBLE)
    disagreement = float(difference[compared].square().mean().sqrt()) if bool(compared.any()) else 0.0
    share = _EDGE_SHARE / (1 + (disagreement / _DISAGREEMENT) ** 4)
    return response * (share * difference).exp(), share


def _colour_response(own: Tensor, clean: Tensor, luma: Tensor) -> Tensor:
    """Of the differences of colour: never rising, since nothing sharpens them; what rises is noise.

    Groups with too little colour to tell get the blur of luma.
    """
    degraded, sharp = _with_detail(own, 1), _with_detail(clean, 1)
    known = min(len(degraded), len(sharp)) >= LEAST_IMAGES
    response = spectral_response(degraded, sharp) if known else luma
    return response.clamp(max=1).cummin(0).values


def _spectra(name: str, pile: Pile) -> Tensor:
    """``(N, P, K)``."""
    if not pile:
        raise ShapeError(f"estimate_groups: {name}: expected images, got none")
    return torch.stack([log_amplitudes(each.spectra) for each in pile.values()])


def _with_detail(spectra: Tensor, plane: int) -> Tensor:
    """``(N, K)`` of the images that have detail in a plane."""
    own = spectra[:, plane]
    return own[own.isfinite().all(1)]
