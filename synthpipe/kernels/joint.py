"""Kernels from spectra of two piles, with edges where both agree: one for each folder of the degraded pile.

Spectra tell what textures lost and edges what edges lost.  Behind a blur both say the same, and their mean is nearer
to the truth than either.  Cameras do more than blur: they sharpen edges, and smooth weak detail.  Then edges keep more
than spectra say, and it is spectra that agree with what pairs of photographs have lost; so the more the two disagree,
the less edges count.

Legend: P planes, luma and colour; K nodes of a response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.kernels.bank import KernelBank
from synthpipe.kernels.edge_model import ResponseModel
from synthpipe.kernels.edges import edge_powers
from synthpipe.kernels.estimate import LEAST_EDGES, edge_ratio
from synthpipe.kernels.response import radial_kernel
from synthpipe.kernels.response_prior import nodes
from synthpipe.kernels.spectra import CropSpectra, crop_spectra, log_amplitudes
from synthpipe.kernels.spectral_model import LEAST_IMAGES, spectral_response

__all__ = ["Evidence", "GroupEstimate", "Pile", "estimate_groups", "evidence_of", "together"]

#: What a kernel is told by.
Teller = Literal["both", "spectra"]
#: Amount of an unsharp mask that is expected of luma, as a standard deviation; colour is not sharpened.
_SHARPENING = 0.3
#: Share of edges where they agree with spectra, and the difference of logarithms at which it is half of that.
_EDGE_SHARE, _DISAGREEMENT = 0.5, 0.12
#: Cycles per pixel between which both are compared, where the response is above ``_VISIBLE``.
_COMPARED, _VISIBLE = (0.15, 0.35), 0.1


class Evidence(NamedTuple):
    """What an image, or a crop of it, tells of a blur; without edges where they are not asked for."""

    edges: Tensor  # (n, F)
    spectra: tuple[CropSpectra, ...]


#: The images of a pile by their names.
Pile = Mapping[str, Evidence]


class GroupEstimate(NamedTuple):
    """What was found.

    Args:
        bank: one kernel for each group, in the order of their names.
        names: of the groups.
        edge_shares: how much edges counted in each group, 0 to 0.5.
    """

    bank: KernelBank
    names: tuple[str, ...]
    edge_shares: tuple[float, ...]


def evidence_of(image: Tensor, edges: bool = True) -> Evidence:
    """What one image tells.

    Args:
        image: ``(3, H, W)`` float in [0, 1], both sides at least :data:`synthpipe.kernels.spectra.WINDOW_SIDE`.
        edges: whether they are looked for.
    """
    found = edge_powers(image) if edges else torch.zeros(0, 0)
    return Evidence(found, (crop_spectra(image),))


def together(crops: Sequence[Evidence]) -> Evidence:
    """What crops of one image tell."""
    return Evidence(torch.cat([crop.edges for crop in crops]), tuple(each for crop in crops for each in crop.spectra))


def estimate_groups(
    clean: Pile,
    degraded: Mapping[str, Pile],
    side: int = 25,
    teller: Teller = "both",
    chroma: bool = True,
) -> GroupEstimate:
    """A kernel of each group of degraded images.

    Args:
        clean: the clean pile.
        degraded: groups by their names.
        side: S, of the kernels, pixels, odd.
        teller: edges and spectra, or spectra alone.
        chroma: kernels for the differences of colour, too.

    Raises:
        ShapeError: fewer than three images with detail in a group or in the clean pile; no groups.
    """
    if not degraded:
        raise ShapeError("estimate_groups: expected at least one group of images, got none")
    spectra = _spectra("clean", clean)
    lumas, colours, shares = [], [], []
    for name, pile in sorted(degraded.items()):
        own = _spectra(name, pile)
        told = _told(own, 0)
        if len(told) < LEAST_IMAGES:
            raise ShapeError(
                f"estimate_groups: {name!r}, degraded: expected at least {LEAST_IMAGES} images with detail, got "
                f"{len(told)}; give "
                "more images to this folder, leave it out, or put its images into another one"
            )
        response = spectral_response(told, _told(spectra, 0), _SHARPENING)
        share = 0.0
        if teller == "both":
            response, share = _with_edges(response, pile, clean)
        lumas.append(radial_kernel(response, side))
        colours.append(radial_kernel(_colour_response(own, spectra, response), side) if chroma else lumas[-1])
        shares.append(share)
    bank = KernelBank.of(torch.stack(lumas), chroma=torch.stack(colours) if chroma else None)
    return GroupEstimate(bank, tuple(sorted(degraded)), tuple(shares))


def _with_edges(response: Tensor, pile: Pile, clean: Pile) -> tuple[Tensor, float]:
    """The response moved towards that of edges, and how far."""
    blurred, sharp = ({name: each.edges for name, each in some.items()} for some in (pile, clean))
    if min(sum(map(len, some.values())) for some in (blurred, sharp)) < LEAST_EDGES:
        return response, 0.0
    edges = ResponseModel(_SHARPENING).solve(edge_ratio(sharp, blurred).exp())
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
    degraded, sharp = _told(own, 1), _told(clean, 1)
    known = min(len(degraded), len(sharp)) >= LEAST_IMAGES
    response = spectral_response(degraded, sharp) if known else luma
    return response.clamp(max=1).cummin(0).values


def _spectra(name: str, pile: Pile) -> Tensor:
    """``(N, P, K)``."""
    if not pile:
        raise ShapeError(f"estimate_groups: {name}: expected images, got none")
    return torch.stack([log_amplitudes(each.spectra) for each in pile.values()])


def _told(spectra: Tensor, plane: int) -> Tensor:
    """``(N, K)`` of the images that have detail in a plane."""
    own = spectra[:, plane]
    return own[own.isfinite().all(1)]
