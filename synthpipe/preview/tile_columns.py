"""Columns of a preview that need the whole tile of a crop: one behind each stage, one for each way of a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthpipe.config.stream import StreamOptions
from synthpipe.images import to_uint8
from synthpipe.pipeline.pair import PatchCut
from synthpipe.preview.picture import Cell
from synthpipe.preview.trace import trace_degradation
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.chains.chain import Chain
from synthpipe.transforms.chains.explained import forced, ways_of

__all__ = ["Columns", "Recorder", "TileCrop", "stage_columns", "way_columns"]


@dataclass(frozen=True)
class Columns:
    """Titles, and under each one cell per row, ``(size * zoom, size * zoom, 3)`` uint8; None: nothing was done.

    ``absent`` names places of the degradation that no row went through.
    """

    titles: Sequence[str] = ()
    cells: Sequence[Sequence[Cell]] = ()
    absent: Sequence[str] = ()

    def named(self) -> list[tuple[str, list[Cell]]]:
        """Each column with its title."""
        return [(title, [row[number] for row in self.cells]) for number, title in enumerate(self.titles)]


@dataclass(frozen=True)
class TileCrop:
    """A crop of a preview in its tile.

    Args:
        batch: the tile alone: ``gt`` ``(1, 3, H, W)``, ``seed`` and ``seen`` ``(1,)``.
        top: of the crop in the LR tile, pixels.
        left: likewise.
        size: of the crop, LR pixels.
        scale: of the degradation.
    """

    batch: Batch
    top: int
    left: int
    size: int
    scale: int

    def cell(self, image: Tensor, zoom: int) -> NDArray[np.uint8]:
        """The crop out of an image ``(3, h, w)`` of the whole tile at any size, by the nearest pixel.

        Returns:
            ``(size * zoom, size * zoom, 3)``: what lies at the crop's place, whatever the image's size.
        """
        rows, columns = (
            self._nearest(begin, side // self.scale, length, zoom)
            for begin, side, length in zip(
                (self.top, self.left), self.batch["gt"].shape[2:], image.shape[1:], strict=True
            )
        )
        cut = image.cpu()[:, rows][:, :, columns]
        return to_uint8(cut).permute(1, 2, 0).contiguous().numpy()

    def _nearest(self, begin: int, of_lr: int, length: int, zoom: int) -> Tensor:
        """Along one side: which pixels of an image of ``length`` are shown; ``begin`` is in pixels of ``of_lr``."""
        shown = begin * zoom + torch.arange(self.size * zoom, dtype=torch.float64) + 0.5
        return (shown * length / (of_lr * zoom)).floor().long().clamp(max=length - 1)


class Recorder(BatchTransform):
    """A degradation that remembers the tiles it was given.

    Args:
        degrade: the one that works.
        seen: samples that count as read before all tiles; None: as the stream says.
    """

    def __init__(self, degrade: BatchTransform, seen: int | None = None) -> None:
        self.degrade = degrade
        self._seen = seen
        self.samples = degrade.samples
        self.needs_seen = True
        self._tiles: dict[str, Batch] = {}

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """None of its own."""
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """As the degradation."""
        if self._seen is not None:
            batch = {**batch, "seen": torch.full_like(batch["seen"], self._seen)}
        for row, path in enumerate(batch["gt_path"]):
            self._tiles[path] = {key: batch[key][row : row + 1].clone() for key in ("gt", "seed", "seen")}
        return self.degrade(batch)

    def to(self, device: torch.device | str) -> Recorder:
        """Move the degradation."""
        self.degrade.to(device)
        return self

    def check_tiles(self, height: int, width: int) -> None:
        """As the degradation."""
        self.degrade.check_tiles(height, width)

    def crops(self, paths: Sequence[str], chosen: Sequence[int], options: StreamOptions) -> list[TileCrop]:
        """Where emitted patches lie.

        Args:
            paths: ``gt_path`` of all patches from the stream's first on, unmixed, one tile of each image.
            chosen: numbers of those that are asked for.
            options: of the stream, with ``patches_per_tile``.
        """
        found = []
        for number in chosen:
            tile = self._tiles[paths[number]]
            side = tile["gt"].shape[2] // options.scale
            assert options.patches_per_tile is not None
            count = options.patches_per_tile
            cut = PatchCut(side, options.lq_size, options.scale, options.margin, count, self.samples)
            # Patches of a tile come one after the other.
            top, left = cut.corners(tile["seed"].tolist())[0][paths[:number].count(paths[number])].tolist()
            found.append(TileCrop(tile, top, left, options.lq_size, options.scale))
        return found


@torch.no_grad()
def stage_columns(degrade: BatchTransform, crops: Sequence[TileCrop], zoom: int) -> Columns:
    """The crops behind each stage that one of them goes through; None where a crop does not."""
    images = [
        {note.place: note.image[0] for note in trace_degradation(degrade, crop.batch)[1] if note.image is not None}
        for crop in crops
    ]
    met = {place: None for of_crop in images for place in of_crop}
    places = _in_order(degrade, list(met))
    shown = [place for place in places if place in met]
    cells = [
        [crop.cell(of_crop[place], zoom) if place in of_crop else None for place in shown]
        for crop, of_crop in zip(crops, images, strict=True)
    ]
    return Columns(shown, cells, [place for place in places if place not in met])


def _in_order(degrade: BatchTransform, met: Sequence[str]) -> list[str]:
    """All places as the option file has them; in the place of a whole degradation what is in it, where it was met."""
    if not isinstance(degrade, Chain):
        return list(met)
    places: list[str] = []
    for step in degrade.node.steps():
        places += [place for place in met if place.startswith(f"{step.place}/")] or [step.place]
    return places


@torch.no_grad()
def way_columns(chain: Chain, crops: Sequence[TileCrop], zoom: int) -> Columns:
    """The crops, each sent every way of the chain's choices; all else is as each sample drew it."""
    ways = ways_of(chain.node)
    cells: list[list[Cell]] = []
    for crop in crops:
        draws = chain.draws({key: crop.batch[key].cpu() for key in ("seed", "seen")})
        made = [chain.degrade_each(crop.batch, forced(draws, way))[0] for way in ways]
        cells.append([crop.cell(lq, zoom) for lq in made])
    return Columns([way.name for way in ways], cells, [])
