"""How degraded a tile is, and by what: one calibrated probability for each kind of degradation.

One number lets kinds cancel: blur takes from the fine detail what noise adds.  Here each kind has its own detector, and
the worst of them is what counts.  No density is asked: statistics of the tile's spectrum and patterns go into a small
network, which gives a logit for each kind; those of an image's tiles become one, calibrated for their number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.density.kinds.patterns import PATTERN_NAMES, TilePatterns
from synthpipe.density.kinds.spectra import SPECTRUM_NAMES, TileSpectra, colour_planes
from synthpipe.density.kinds.textures import TEXTURE_NAMES, TileTextures
from synthpipe.density.scorer import QUANTILE_TILES
from synthpipe.errors import CheckpointError, ShapeError
from synthpipe.images import check_values

__all__ = ["FEATURE_NAMES", "KINDS", "FrozenKindScorer", "KindScorer", "probability_column", "worst_kind"]

#: What can be wrong with an image.  The order is that of the columns; ``pattern`` is interlacing, scan lines and print,
#: ``graphics`` what was drawn: screens, pages, plain colours.
KINDS = ("noise", "blur", "compression", "enlargement", "pattern", "graphics")
#: All statistics that a scorer may ask for.
FEATURE_NAMES = (*SPECTRUM_NAMES, *PATTERN_NAMES, *TEXTURE_NAMES)
#: Columns that are statistics as they are; complexity, for reports.
_PLAIN = ("coder_bits",)
#: Standard deviations from the mean beyond which a statistic counts no more.
_CLIP = 4.0
#: Logits of a tile grow to this and no further, from here on ever more slowly; so sure nobody can be.
_MOST_LOGIT, _SURE_LOGIT = 8.0, 6.0
#: Logits of an image above this are brought to a scale on which all kinds end at the same number.
_COMMON_LOGIT, _LEAST_ROOM = 4.0, 0.5
_PERCENTS = 101
#: Tiles measured at once.
_CPU_CHUNK, _GPU_CHUNK = 16, 1024
#: Numbers of an image's tiles that its logit is made of: mean, least, most.
_POOLED = 3


def probability_column(kind: str) -> str:
    """Name of a kind's column."""
    return f"p_{kind}"


def worst_kind(kinds: Sequence[str], probabilities: Sequence[float]) -> str | None:
    """The kind with the highest probability; None where none is as likely as not."""
    highest, kind = max(zip(probabilities, kinds, strict=True), key=lambda pair: pair[0])
    return kind if highest >= 0.5 else None


class KindScorer(nn.Module):
    """Probabilities by kind for tiles ``(N, 1 or 3, tile, tile)`` in [0, 1], and for images of several tiles.

    Args:
        features: names of the statistics that are used, of :data:`FEATURE_NAMES`.
        kinds: names of the kinds.
        hidden: widths of the network's layers.
        tile: side of the tiles, pixels; even, for chroma is measured at half of it.
        context: kinds whose logit of an image also rests on the means of the other kinds' logits, and on how much its
            tiles differ: they say how crisp the picture is, and whether it is everywhere what noise is everywhere.

    Attributes:
        columns: names of the numbers that :meth:`forward` and :meth:`pool` give: ``degraded_logit`` (that of the worst
            kind; higher is worse), ``p_<kind>`` of each kind, ``coder_bits``.

    Raises:
        CheckpointError: a statistic that this version does not know.
        ShapeError: no kinds or statistics, names that stand twice, context of other kinds, or tiles below 64 pixels or
            of an odd side.
    """

    size_multiple = 1
    chosen: Tensor
    plain: Tensor
    center: Tensor
    spread: Tensor
    pooling: Tensor
    around: Tensor
    quantile_table: Tensor

    def __init__(
        self,
        features: Sequence[str],
        kinds: Sequence[str] = KINDS,
        hidden: Sequence[int] = (64, 32),
        tile: int = 64,
        context: Sequence[str] = (),
    ) -> None:
        super().__init__()
        unknown = [name for name in features if name not in FEATURE_NAMES]
        if unknown:
            raise CheckpointError(
                f"KindScorer: this version knows no statistic {unknown[0]!r}; the file comes from a later synthpipe: "
                "update, or fit a scorer anew"
            )
        if not {*context} <= {*kinds}:
            raise ShapeError(f"KindScorer: expected context of its kinds {list(kinds)}, got {list(context)}")
        twice = len({*features}) < len(features) or len({*kinds}) < len(kinds)
        if tile < 64 or tile % 2 or not features or not kinds or twice:
            raise ShapeError(
                f"KindScorer: expected tiles of an even side from 64 on, features and kinds that stand once, got tile "
                f"{tile}, {len(features)} features and kinds {list(kinds)}"
            )
        self.config: dict[str, Any] = {
            "features": list(features),
            "kinds": list(kinds),
            "hidden": list(hidden),
            "tile": tile,
            "context": list(context),
        }
        self.kinds, self.tile = tuple(kinds), tile
        self.columns = ("degraded_logit", *map(probability_column, kinds), *_PLAIN)
        self.spectra, self.patterns, self.textures = TileSpectra(), TilePatterns(tile), TileTextures()
        chosen = torch.tensor([FEATURE_NAMES.index(name) for name in features])
        self.register_buffer("chosen", chosen, persistent=False)
        plain = torch.tensor([FEATURE_NAMES.index(name) for name in _PLAIN])
        self.register_buffer("plain", plain, persistent=False)
        self.register_buffer("center", torch.zeros(len(features)))
        self.register_buffer("spread", torch.ones(len(features)))
        self.layers = nn.ModuleList(
            nn.Linear(before, after)
            for before, after in zip((len(features), *hidden), (*hidden, len(kinds)), strict=True)
        )
        # Weights of mean, least, most and 1, by number of tiles and kind; at first the mean.
        pooling = torch.zeros(len(QUANTILE_TILES), len(kinds), _POOLED + 1)
        pooling[..., 0] = 1
        self.register_buffer("pooling", pooling)
        self.context = tuple(context)
        # Weights of the kinds' means and of how much the kind's own logits differ; files of before have none.
        around = torch.zeros(len(QUANTILE_TILES), len(kinds), len(kinds) + 1)
        self.register_buffer("around", around, persistent=bool(context))
        self.register_buffer("quantile_table", torch.zeros(len(QUANTILE_TILES), _PERCENTS))

    @property
    def quantiles(self) -> dict[int, Tensor]:
        """Quantiles 0..100 % ``(101,)`` of ``degraded_logit`` of clean images, by their number of tiles."""
        return dict(zip(QUANTILE_TILES, self.quantile_table, strict=True))

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """All columns of each tile by itself, ``(N, len(columns))``.

        Raises:
            ShapeError: tiles of another size or another scale than [0, 1], integers, or NaN.
        """
        self.check(tiles)
        return self.pool(self.measure(tiles)[:, None])

    def tile_logit(self, measured: Tensor) -> Tensor:
        """``degraded_logit`` of each tile by itself, ``(k, len(kinds) + 1)`` -> ``(k,)``."""
        return self.pool(measured[:, None])[:, 0]

    @torch.no_grad()
    def measure(self, tiles: Tensor) -> Tensor:
        """What :meth:`pool` makes columns of, for each tile: ``(N, len(kinds) + 1)``; no value is looked at first."""
        every = self.statistics(tiles)
        return torch.cat([self.logits(every.index_select(1, self.chosen)), every.index_select(1, self.plain)], 1)

    def statistics(self, tiles: Tensor) -> Tensor:
        """All statistics of each tile, ``(N, len(FEATURE_NAMES))``, few tiles at once on a CPU."""
        chunk = _CPU_CHUNK if tiles.device.type == "cpu" else _GPU_CHUNK
        found = []
        for few in torch.split(tiles, chunk):
            luma, chroma = colour_planes(few)
            parts = [self.spectra(luma, chroma), self.patterns(few, luma, chroma), self.textures(few, luma)]
            found.append(torch.cat(parts, 1))
        return torch.cat(found)

    def logits(self, features: Tensor) -> Tensor:
        """A logit for each kind, ``(N, len(kinds))``, of a tile's statistics ``(N, F)``."""
        z = ((features - self.center) / self.spread).clamp(-_CLIP, _CLIP)
        for layer in self.layers[:-1]:
            z = nn.functional.silu(layer(z))
        result: Tensor = self.layers[-1](z)
        room = _MOST_LOGIT - _SURE_LOGIT
        rest = result - result.clamp(-_SURE_LOGIT, _SURE_LOGIT)
        return result - rest + room * torch.tanh(rest / room)

    def pool(self, measured: Tensor) -> Tensor:
        """Columns of images from their tiles: ``(..., k, len(kinds) + 1)`` -> ``(..., len(columns))``."""
        logits = self.image_logits(measured[..., : len(self.kinds)])
        plain = measured[..., len(self.kinds) :].mean(-2)
        return torch.cat([logits.amax(-1, keepdim=True), logits.sigmoid(), plain], -1)

    def image_logits(self, logits: Tensor) -> Tensor:
        """Calibrated logits of images from those of their tiles, ``(..., k, kinds)`` -> ``(..., kinds)``.

        How high a logit can get by a kind's own tiles differs and says nothing; above 4 (a probability of 0.98) all are
        brought to one scale, so that the surest of one kind does not outdo the surest of all others.  Context is not
        part of that scale and may still carry one past them.
        """
        tiles = logits.shape[-2]
        weight = _between(self.pooling, tiles).to(logits)  # (kinds, 4)
        found = (self.pooled(logits) * weight[:, :_POOLED]).sum(-1) + weight[:, _POOLED]
        if self.context:
            found = found + (self.surroundings(logits) * _between(self.around, tiles).to(logits)).sum(-1)
        most = _MOST_LOGIT * weight[:, :_POOLED].sum(-1) + weight[:, _POOLED]
        above = (found - _COMMON_LOGIT).clamp_min(0)
        scale = (_MOST_LOGIT - _COMMON_LOGIT) / (most - _COMMON_LOGIT).clamp_min(_LEAST_ROOM)
        return found - above + scale * above

    @staticmethod
    def pooled(logits: Tensor) -> Tensor:
        """Mean, least and most over the tiles, ``(..., k, kinds)`` -> ``(..., kinds, 3)``."""
        return torch.stack([logits.mean(-2), logits.amin(-2), logits.amax(-2)], -1)

    @staticmethod
    def surroundings(logits: Tensor) -> Tensor:
        """What else is known of each kind's image, ``(..., k, kinds)`` -> ``(..., kinds, kinds + 1)``: the means of the
        other kinds, 0 in its own place, and the standard deviation of its own over the tiles."""
        mean = logits.mean(-2)
        kinds = mean.shape[-1]
        others = mean[..., None, :] * (1 - torch.eye(kinds, dtype=mean.dtype, device=mean.device))
        differ = (logits - mean[..., None, :]).square().mean(-2).sqrt()
        return torch.cat([others, differ[..., None]], -1)

    def freeze(self) -> FrozenKindScorer:
        """The scorer as it is now, fit for a CUDA graph."""
        return FrozenKindScorer(copy.deepcopy(self)).eval().requires_grad_(False)

    def check(self, tiles: Tensor) -> None:
        """Refuse tiles of another size or scale, or NaN, as :meth:`forward` does."""
        if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or tiles.shape[2:] != (self.tile, self.tile):
            raise ShapeError(
                f"KindScorer: expected tiles (N, 1 or 3, {self.tile}, {self.tile}), got {tuple(tiles.shape)}"
            )
        if not tiles.is_floating_point():
            raise ShapeError(f"KindScorer: expected tiles of floats, got {tiles.dtype}; call images.to_float first")
        check_values(tiles, "KindScorer", "tiles")


class FrozenKindScorer(nn.Module):
    """:meth:`KindScorer.measure` as the whole call: tensor operations alone."""

    def __init__(self, scorer: KindScorer) -> None:
        super().__init__()
        self.scorer = scorer

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Tiles ``(N, 1 or 3, tile, tile)`` in [0, 1] -> ``(N, len(kinds) + 1)``; NaN stays in its tile."""
        return self.scorer.measure(tiles)


def _between(table: Tensor, tiles: int) -> Tensor:
    """Between the rows of the calibrated numbers of tiles, linear in the logarithm; beyond, as the nearest."""
    numbers = QUANTILE_TILES
    above = next((place for place, number in enumerate(numbers) if number >= tiles), len(numbers) - 1)
    below = above if numbers[above] <= tiles else above - 1
    if above == below:
        return table[above]
    share = math.log(tiles / numbers[below]) / math.log(numbers[above] / numbers[below])
    return torch.lerp(table[below], table[above], share)
