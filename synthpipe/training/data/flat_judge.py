"""How a DeFlow in training does, without pairs: what it adds to clean tiles against the flat areas of its noisy pile.

The same measure as that of the report (:mod:`synthpipe.noise_report`); the pile is measured once, and tiles, seeds and
levels are the same at every look, so that the curve moves with the weights alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from synthpipe.errors import OptionError, TrainingError
from synthpipe.flat_noise import NODES
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.images import quantize_8bit, to_float
from synthpipe.noise_report import (
    Comparison,
    NoiseFigures,
    NoiseReport,
    PictureRow,
    compare,
    figures_of_images,
    figures_of_pairs,
    report_of,
)
from synthpipe.training.data.flat_calibration import most_flat
from synthpipe.training.data.unpaired import UnpairedData

__all__ = ["ALIKE", "FlatJudge"]

logger = logging.getLogger("synthpipe.training")

#: Noisy images that are measured; clean crops that are looked at, those of them that are degraded, their side, and
#: how many at once.
_IMAGES, _CANDIDATES, _TILES, _SIDE, _BATCH = 24, 96, 16, 128, 4
_ROWS = 4
_SALT = "flat judge"
#: Distances that differ by no more are alike: with other tiles the difference of two steps changes by more than this
#: (0.008 to 0.009; recipes/guides/report.md).
ALIKE = 0.006


class FlatJudge:
    """Measures weights against the piles of a run.

    Args:
        data: of the run; images in shards, or without flat areas, are said in the log, and nothing is measured.
    """

    def __init__(self, data: UnpairedData) -> None:
        self._data = data

    def compare(self, model: DeFlow) -> Comparison | None:
        """What ``model`` adds against the pile; None where one of them cannot be measured."""
        made = self._made(model)
        figures = None if made is None else figures_of_pairs(made)
        return None if figures is None or self._real is None else compare(figures, self._real)

    def report(self, model: DeFlow, title: str) -> NoiseReport | None:
        """The same as a report, with pictures."""
        made = self._made(model)
        if made is None or self._real is None or self._tiles is None:
            return None
        once = made[: len(self._tiles)]
        rows = [PictureRow(*pair, self._crop_like(pair[0])) for pair in once[:: max(1, len(once) // _ROWS)][:_ROWS]]
        facts = self._data.describe()
        named = {f"{name} images": ", ".join(facts[name]["folders"]) for name in ("clean", "noisy")}
        return report_of(title, figures_of_pairs(made), self._real, rows, named, "training")

    @cached_property
    def _real(self) -> NoiseFigures | None:
        try:
            found = figures_of_images(self._noisy_images())
        except OptionError as error:
            logger.info("no flat-area distance: %s", error)
            return None
        if found is None:
            logger.info("no flat-area distance: no noisy image has a flat area")
        return found

    @cached_property
    def _tiles(self) -> Tensor | None:
        """``(N, 3, H, W)`` in [0, 1]."""
        nodes = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
        try:
            return most_flat(to_float(self._data.clean_tiles(_CANDIDATES, _SIDE)), nodes, _TILES)
        except (OptionError, TrainingError) as error:
            logger.info("no flat-area distance: %s", error)
            return None

    def _noisy_images(self) -> Iterator[Tensor]:
        noisy = self._data.noisy
        step = -(-len(noisy.files) // _IMAGES)
        for number in range(0, len(noisy.files), step):
            image = noisy.image(number)
            if image is not None:
                yield image

    @torch.no_grad()
    def _made(self, model: DeFlow) -> list[tuple[Tensor, Tensor]] | None:
        """``(clean, degraded)`` of 8 bits, by tile, where the model knows levels all tiles twice; None where there are
        no tiles, or weights that give infinities."""
        if self._real is None or self._tiles is None:
            return None
        device = next(model.parameters()).device
        frozen = FrozenDeFlow(model)
        tiles = self._tiles if model.pile is None else torch.cat([self._tiles, self._tiles])
        seeds, levels = torch.arange(len(tiles)), self._levels(model)
        made = []
        for first in range(0, len(tiles), _BATCH):
            part = slice(first, first + _BATCH)
            noise = SeededNoise(seeds[part].to(device), _SALT)
            level = None if levels is None else levels[part].to(device)
            made.append(frozen.degrade_with(tiles[part].to(device), noise, level=level).float().cpu())
        degraded = torch.cat(made)
        if not bool(torch.isfinite(degraded).all()):
            return None
        return list(zip(tiles, quantize_8bit(degraded), strict=True))

    def _levels(self, model: DeFlow) -> Tensor | None:
        """Two levels of the pile for each tile, its place in their order and that from the other end; all alike often.

        A tile is flat at few brightnesses.  With one level each, noise would seem weak where tiles happened to get low
        levels: exchanging those of 16 tiles moved the whole strength by up to 11%.
        """
        if model.pile is None or self._tiles is None:
            return None
        places = (torch.arange(len(self._tiles)) * 7 % len(self._tiles) + 0.5) / len(self._tiles)
        return model.pile.draw(torch.cat([places, 1 - places]))

    def _crop_like(self, clean: Tensor) -> Tensor | None:
        """Of a noisy image, of about the brightness of a clean tile."""
        height, width = clean.shape[1:]
        best: tuple[float, Tensor] | None = None
        for image in self._noisy_images():
            if image.shape[1] < height or image.shape[2] < width:
                continue
            for top in range(0, image.shape[1] - height + 1, max(height, (image.shape[1] - height) // 4)):
                for left in range(0, image.shape[2] - width + 1, max(width, (image.shape[2] - width) // 4)):
                    crop = to_float(image[:, top : top + height, left : left + width])
                    apart = abs(float(crop.mean() - clean.mean()))
                    if best is None or apart < best[0]:
                        best = apart, crop
        return None if best is None else best[1]
