"""What an image tells of a blur: spectra of all of it and its isolated edges, a tile at a time.

Tiles bound the memory; those of one image count together, so that images count alike whatever their sizes.

Legend: n edges, F frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.kernels.edges import edge_powers
from synthpipe.kernels.spectra import CropSpectra, crop_spectra

__all__ = ["LEAST_TILE", "Evidence", "Pile", "evidence_of", "tiles", "together"]

#: Longest side of a tile in pixels, and that of tiles of an image of which a part is looked at, at least.
_TILE, LEAST_TILE = 512, 256


class Evidence(NamedTuple):
    """What an image, or a crop of it, tells of a blur; without edges, or spectra, where they are not asked for."""

    edges: Tensor  # (n, F)
    spectra: tuple[CropSpectra, ...]


#: The images of a pile by their names.
Pile = Mapping[str, Evidence]


def evidence_of(image: Tensor, edges: bool = True, spectra: bool = True, pixels: int | None = None) -> Evidence:
    """What one image tells.

    Args:
        image: ``(3, H, W)`` float in [0, 1], both sides at least :data:`synthpipe.kernels.spectra.WINDOW_SIDE`, or
            :data:`synthpipe.kernels.edges.LEAST_SIDE` without spectra.
        edges: whether they are looked for.
        spectra: whether they are measured.
        pixels: about so many are looked at, in tiles that are spread evenly, one at least; None: all.
    """
    return together(
        [
            Evidence(
                edge_powers(tile) if edges else torch.zeros(0, 0),
                (crop_spectra(tile),) if spectra else (),
            )
            for tile in tiles(image, pixels)
        ]
    )


def together(crops: Sequence[Evidence]) -> Evidence:
    """What crops of one image tell."""
    return Evidence(torch.cat([crop.edges for crop in crops]), tuple(each for crop in crops for each in crop.spectra))


def tiles(image: Tensor, pixels: int | None = None) -> list[Tensor]:
    """Parts of an image without gap or overlap, as alike in size as can be; some of them where ``pixels`` are fewer.

    Args:
        image: ``(C, H, W)``.
        pixels: as of :func:`evidence_of`.
    """
    side = _TILE if pixels is None else min(max(math.isqrt(pixels), LEAST_TILE), _TILE)
    rows, columns = (_cuts(length, side) for length in image.shape[1:])
    parts = [image[:, top:bottom, left:right] for top, bottom in rows for left, right in columns]
    area = image.shape[1] * image.shape[2] / len(parts)
    count = len(parts) if pixels is None else min(max(round(pixels / area), 1), len(parts))
    return [parts[int((number + 0.5) * len(parts) / count)] for number in range(count)]


def _cuts(length: int, side: int) -> list[tuple[int, int]]:
    """From where to where each part of a line of pixels reaches."""
    count = math.ceil(length / side)
    ends = [round(length * number / count) for number in range(count + 1)]
    return list(pairwise(ends))
