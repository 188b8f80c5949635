"""The parts that a scorer can have, by name.  A new part is its function and one line in a table here.

A scorer's file lists the names of its parts, so a new entry changes no scorer that was saved.  Two rules keep files
true: a name's meaning never changes (another computation gets another name), and no entry is taken away.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from synthpipe.density.tile_statistics import blockiness, coder_bits, contrast, octave_slopes
from synthpipe.errors import CheckpointError, ShapeError
from synthpipe.images import luma

__all__ = [
    "PartGroup",
    "PartSettings",
    "ScorerParts",
    "Statistic",
    "TileView",
    "known_parts",
    "part_table",
    "parts_before_names",
]

#: Below any energy of a tile of photographs; a flat tile may have none.
_LEAST = 1e-6
#: Tiles measured at once.
_CPU_CHUNK, _GPU_CHUNK = 16, 1024


class PartSettings(NamedTuple):
    """What decides which parts there can be: the density's domains, and the noise levels at which it is asked."""

    #: The clean one first.
    domains: tuple[str, ...]
    #: For energies and ratios.
    levels: tuple[float, ...]
    #: For score norms.
    norm_levels: tuple[float, ...]


class LevelDensity(Protocol):
    """What parts ask of a density: a :class:`~synthpipe.density.dde.DDE`, or a frozen one."""

    channels: int

    @property
    def border(self) -> int:
        """Pixels on each side without an energy."""

    def mean_energies(self, y: Tensor, level: float) -> Tensor:
        """See :meth:`DDE.mean_energies`: ``(N, channels, tile, tile)`` -> ``(N, domains)``."""

    def clean_score(self, y: Tensor, level: float) -> Tensor:
        """See :meth:`DDE.clean_score`: of the shape of ``y``."""


class TileView(NamedTuple):
    """What parts are computed from: a density, tiles in [0, 1] as it sees them, and the same tiles in grey."""

    dde: LevelDensity
    #: ``(N, dde.channels, tile, tile)``.
    seen: Tensor
    #: ``(N, 1, tile, tile)``, luma.
    grey: Tensor


class PartGroup(ABC):
    """Parts that are computed together.

    Attributes:
        names: of each part, like ``coder_bits`` or ``jpeg_ratio_0.03``.
    """

    names: tuple[str, ...]

    @abstractmethod
    def measure(self, view: TileView) -> Tensor:
        """The numbers of each tile, ``(N, len(names))`` float32, finite on any tile in [0, 1].

        One tile's numbers MUST NOT depend on the others.
        """


class Statistic(PartGroup):
    """Numbers that need no density.

    Args:
        function: from grey tiles ``(N, 1, H, W)`` in [0, 1] to ``(N,)`` for one name, ``(N, len(names))`` for several.
        names: of its numbers.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *names: str) -> None:
        self.function, self.names = function, names

    def measure(self, view: TileView) -> Tensor:
        """See :class:`PartGroup`."""
        values = self.function(view.grey)
        return values[:, None] if values.ndim == 1 else values


class Energies(PartGroup):
    """At one noise level: the logarithm of the clean domain's ``-S``, and the log-ratios of the others' density to it.

    Args:
        level: standard deviation of the noise.
        domains: of the density, the clean one first.
    """

    def __init__(self, level: float, domains: Sequence[str]) -> None:
        self.level = level
        self.names = (f"log_energy_{level:g}", *(f"{domain}_ratio_{level:g}" for domain in domains[1:]))

    def measure(self, view: TileView) -> Tensor:
        """See :class:`PartGroup`."""
        energies = view.dde.mean_energies(view.seen, self.level)  # (N, domains)
        return torch.cat([energies[:, :1].clamp_min(_LEAST).log(), energies[:, 1:] - energies[:, :1]], 1)


class ScoreNorm(PartGroup):
    """At one noise level: the logarithm of ``|| sigma grad S ||^2 / d`` of the clean domain, off the border.

    Args:
        level: standard deviation of the noise.
    """

    def __init__(self, level: float) -> None:
        self.level = level
        self.names = (f"score_norm_{level:g}",)

    def measure(self, view: TileView) -> Tensor:
        """See :class:`PartGroup`."""
        border = view.dde.border
        score = self.level * view.dde.clean_score(view.seen, self.level)[..., border:-border, border:-border]
        return score.square().mean((1, 2, 3)).clamp_min(_LEAST).log()[:, None]


def part_table(settings: PartSettings) -> list[PartGroup]:
    """All parts that this version has.  The only list that a new one has to join."""
    return [
        *_first_of_density(settings),
        Statistic(coder_bits, "coder_bits"),
        Statistic(contrast, "contrast"),
        Statistic(blockiness, "blockiness"),
        Statistic(octave_slopes, "slope_finest", "slope_half", "slope_quarter", "slope_median"),
    ]


def known_parts(settings: PartSettings) -> tuple[str, ...]:
    """Names of all parts that this version has, in the order of the table."""
    return _names(part_table(settings))


def parts_before_names(settings: PartSettings) -> tuple[str, ...]:
    """Names of the parts of files that were written before parts had names, in their order; a new part never joins."""
    statistics = ("coder_bits", "contrast", "blockiness", "slope_finest", "slope_half", "slope_quarter", "slope_median")
    return (*_names(_first_of_density(settings)), *statistics)


def _first_of_density(settings: PartSettings) -> list[PartGroup]:
    """What files without names have of the density; nothing may join it."""
    return [
        *(Energies(level, settings.domains) for level in settings.levels),
        *(ScoreNorm(level) for level in settings.norm_levels),
    ]


class ScorerParts:
    """The parts of one scorer: those that are named and no others, in that order.

    Args:
        names: of the parts.
        settings: which parts there can be.

    Raises:
        CheckpointError: a name that this version does not know, so it comes from a later version's file.
        ShapeError: no name, or one that stands twice (levels that are alike to six digits share theirs).
    """

    def __init__(self, names: Sequence[str], settings: PartSettings) -> None:
        self.names = tuple(names)
        table = part_table(settings)
        _check_names(self.names, _names(table))
        self._groups = [group for group in table if not set(group.names).isdisjoint(self.names)]
        computed = _names(self._groups)
        self._order = None if computed == self.names else [computed.index(name) for name in self.names]

    def of_tiles(self, dde: LevelDensity, tiles: Tensor) -> Tensor:
        """The parts of tiles ``(N, 1 or 3, tile, tile)`` in [0, 1], ``(N, len(names))``, few at once on a CPU."""
        # What a few tiles need stays in the cache of a CPU core; a GPU wants many at once.
        chunk = _CPU_CHUNK if tiles.device.type == "cpu" else _GPU_CHUNK
        parts = []
        for few in torch.split(tiles, chunk):
            grey = luma(few)
            parts.append(self.measure(TileView(dde, grey if dde.channels == 1 else few.expand(-1, 3, -1, -1), grey)))
        return torch.cat(parts)

    def measure(self, view: TileView) -> Tensor:
        """The parts of each tile, ``(N, len(names))``.

        Raises:
            ShapeError: a group gave more or fewer numbers than it has names.
        """
        values = torch.cat([_measured(group, view) for group in self._groups], 1)
        return values if self._order is None else values[:, self._order]


def _measured(group: PartGroup, view: TileView) -> Tensor:
    values = group.measure(view)
    if values.shape != (len(view.grey), len(group.names)):
        raise ShapeError(
            f"scorer: parts {', '.join(group.names)}: expected numbers ({len(view.grey)}, {len(group.names)}), got "
            f"{tuple(values.shape)}"
        )
    return values


def _names(groups: Sequence[PartGroup]) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(group.names for group in groups))


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CheckpointError(
            f"scorer: unknown part {unknown[0]!r}; this version of synthpipe knows {', '.join(known)}; the file comes "
            "from a newer version: update synthpipe, or calibrate the scorer anew"
        )
    twice = [name for name, count in Counter(known).items() if count > 1 and name in names]
    twice += [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise ShapeError(
            f"scorer: expected parts of different names, got {list(names)}"
            + (f" with {twice[0]!r} more than once; noise levels may not be alike to six digits" if twice else "")
        )
