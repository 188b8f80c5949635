"""A scorer for use alone: what its levels are is folded into its weights once, and no tile is looked at first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.density.calibration import Calibration
from synthpipe.density.dde import DDE
from synthpipe.density.folded import FoldedResidual, energy_score, mean_energies
from synthpipe.density.scorer_parts import ScorerParts

__all__ = ["FrozenDDE", "FrozenScorer"]


class FrozenDDE(nn.Module):
    """What parts of a scorer ask of a density, at the levels that they ask for.

    Args:
        dde: as it is now; later changes of its weights are not seen.
        levels: for :meth:`mean_energies`.
        norm_levels: for :meth:`clean_score`.
    """

    def __init__(self, dde: DDE, levels: Sequence[float], norm_levels: Sequence[float]) -> None:
        super().__init__()
        self.channels, self.border, self._domains = dde.channels, dde.border, len(dde.domains)
        self._levels, self._norm_levels = list(levels), list(norm_levels)
        self._energies = nn.ModuleList(FoldedResidual(dde.folded(level)) for level in levels)
        self._norms = nn.ModuleList(FoldedResidual(dde.folded(level, 1)) for level in norm_levels)

    @torch.no_grad()
    def mean_energies(self, y: Tensor, level: float) -> Tensor:
        """As :meth:`DDE.mean_energies`, ``(B, channels, H, W)`` -> ``(B, domains)``, for one of the levels."""
        folded = self._energies[self._levels.index(level)]
        assert isinstance(folded, FoldedResidual)
        return mean_energies(folded.convolutions, y, self._domains)

    def clean_score(self, y: Tensor, level: float) -> Tensor:
        """As :meth:`DDE.clean_score`, of the shape of ``y`` ``(B, channels, H, W)``, for one of the norm's levels."""
        folded = self._norms[self._norm_levels.index(level)]
        assert isinstance(folded, FoldedResidual)
        return energy_score(folded.convolutions, y)


class FrozenScorer(nn.Module):
    """All columns of a scorer in tensor operations alone, as in a CUDA graph; from ``DensityScorer.freeze``.

    Args:
        dde: the density at the scorer's levels.
        parts: the scorer's.
        calibration: the scorer's.
    """

    def __init__(self, dde: FrozenDDE, parts: ScorerParts, calibration: Calibration) -> None:
        super().__init__()
        self.dde, self._parts, self.calibration = dde, parts, calibration

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Tiles ``(N, 1 or 3, tile, tile)`` in [0, 1] -> all columns, ``(N, len(columns))``, as the scorer gives them.

        NaN in a tile makes its numbers NaN, but for some parts.
        """
        parts = self._parts.of_tiles(self.dde, tiles)
        return torch.cat([self.calibration(parts)[:, None], parts], 1)
