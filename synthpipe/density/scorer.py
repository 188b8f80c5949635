"""Parts of a quality score of image tiles, and their calibrated combination.

Every part looks at one tile alone.  The density's parts are taken at several noise levels: the energies ``-S`` of the
clean domain, and the log-ratios of each degraded domain's density to the clean one's, in which the tile's complexity
cancels.  Plain statistics stand beside them: they see compression and blur, where the density sees noise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.density.calibration import Calibration
from synthpipe.density.dde import DDE
from synthpipe.density.frozen import FrozenDDE, FrozenScorer
from synthpipe.density.scorer_parts import PartSettings, ScorerParts, parts_before_names
from synthpipe.errors import ShapeError
from synthpipe.images import check_values

__all__ = ["QUANTILE_TILES", "DensityScorer"]

#: Numbers of tiles over which the mean log-odds of clean images have their quantiles stored.
QUANTILE_TILES = (1, 4, 16)
_PERCENTS = 101


class DensityScorer(nn.Module):
    """``degraded_logit`` and all its parts, for tiles ``(N, 1 or 3, tile, tile)`` in [0, 1].

    Args:
        dde: constructor arguments of the density.
        levels: noise levels at which the density is asked.
        tile: side of the tiles that the calibration was fitted on, pixels.
        norm_levels: noise levels at which the norm of the score (the gradient of ``S``) is a part too; each costs
            three times a level, for the gradient.
        parts: names of the parts, in order, of :func:`~synthpipe.density.scorer_parts.known_parts`.  None: those of
            files that were written before parts had names, so that what is added later changes no such file.

    Attributes:
        columns: names of the numbers that :meth:`forward` returns; ``degraded_logit`` first, higher is worse.

    Raises:
        ShapeError: levels or a tile that the density cannot take, or parts that stand twice.
        CheckpointError: a part that this version does not know.
    """

    size_multiple = 1
    quantile_table: Tensor

    def __init__(
        self,
        dde: Mapping[str, Any],
        levels: Sequence[float],
        tile: int = 64,
        norm_levels: Sequence[float] = (),
        parts: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.dde = DDE(**dde)
        low, high = self.dde.sigma_range
        if not levels or not all(low <= level <= high for level in (*levels, *norm_levels)):
            raise ShapeError(
                f"DensityScorer: expected levels within {low}..{high}, got {[*levels]} and norm_levels {[*norm_levels]}"
            )
        if tile <= 2 * self.dde.border:
            raise ShapeError(f"DensityScorer: expected a tile of more than {2 * self.dde.border} pixels, got {tile}")
        settings = PartSettings(self.dde.domains, tuple(levels), tuple(norm_levels))
        self._chosen = ScorerParts(parts_before_names(settings) if parts is None else parts, settings)
        self.config = {
            "dde": self.dde.config,
            "levels": [float(level) for level in levels],
            "tile": tile,
            "norm_levels": [float(level) for level in norm_levels],
            "parts": list(self._chosen.names),
        }
        self.levels, self.norm_levels, self.tile = tuple(levels), tuple(norm_levels), tile
        self.columns = ("degraded_logit", *self._chosen.names)
        self.calibration = Calibration(len(self.columns) - 1)
        self.register_buffer("quantile_table", torch.zeros(len(QUANTILE_TILES), _PERCENTS))

    @property
    def quantiles(self) -> dict[int, Tensor]:
        """Quantiles 0..100 % ``(101,)`` of the mean ``degraded_logit`` of clean images, by its number of tiles."""
        return dict(zip(QUANTILE_TILES, self.quantile_table, strict=True))

    @property
    def identity(self) -> dict[str, Any]:
        """``config`` for fingerprints: without ``parts`` where they are those of files from before parts had names.

        A scorer keeps its fingerprint, and with it its tables and caches of scores, when its file is written anew.
        """
        before = parts_before_names(PartSettings(self.dde.domains, self.levels, self.norm_levels))
        if self._chosen.names != before:
            return self.config
        return {key: value for key, value in self.config.items() if key != "parts"}

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """All columns of each tile, ``(N, len(columns))``.

        Raises:
            ShapeError: tiles of another size or another scale than [0, 1], integers, or NaN.
        """
        self.check(tiles)
        return self.measure(tiles)

    @torch.no_grad()
    def measure(self, tiles: Tensor) -> Tensor:
        """As :meth:`forward`, but no value is looked at first."""
        parts = self._chosen.of_tiles(self.dde, tiles)
        return torch.cat([self.calibration(parts)[:, None], parts], 1)

    def pool(self, measured: Tensor) -> Tensor:
        """Columns of images from those of their tiles, the means: ``(..., k, F)`` -> ``(..., F)``."""
        return measured.mean(-2)

    def tile_logit(self, measured: Tensor) -> Tensor:
        """``degraded_logit`` of each tile by itself, ``(k, F)`` -> ``(k,)``."""
        return measured[:, 0]

    def freeze(self) -> FrozenScorer:
        """The scorer as it is now for use alone: the same numbers, faster, and fit for a CUDA graph."""
        dde = FrozenDDE(self.dde, self.levels, self.norm_levels)
        return FrozenScorer(dde, self._chosen, copy.deepcopy(self.calibration)).eval().requires_grad_(False)

    @torch.no_grad()
    def parts(self, tiles: Tensor) -> Tensor:
        """The parts alone, ``(N, F)``, in the order of ``columns[1:]``.

        Raises:
            ShapeError: as :meth:`forward`.
        """
        self.check(tiles)
        return self._chosen.of_tiles(self.dde, tiles)

    def check(self, tiles: Tensor) -> None:
        """Refuse tiles of another size or scale, or NaN, as :meth:`forward` does."""
        if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or tiles.shape[2:] != (self.tile, self.tile):
            raise ShapeError(
                f"DensityScorer: expected tiles (N, 1 or 3, {self.tile}, {self.tile}), got {tuple(tiles.shape)}"
            )
        if not tiles.is_floating_point():
            raise ShapeError(f"DensityScorer: expected tiles of floats, got {tiles.dtype}; call images.to_float first")
        check_values(tiles, "DensityScorer", "tiles")
