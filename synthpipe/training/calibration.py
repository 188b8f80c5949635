"""From a density and a clean set to a scorer: tiles, the same tiles corrupted, a fit, and what it is worth unseen.

Images are split before anything is fitted: the share held out gives the report and the quantiles.  An image's tiles
depend on the seed and its name alone.
"""

from __future__ import annotations

import fnmatch
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from synthpipe.config.calibration import CalibrationOptions
from synthpipe.density.calibration import Calibration, fit_calibration
from synthpipe.density.dde import DDE
from synthpipe.density.detection import auroc, caught_share, pair_accuracy
from synthpipe.density.scorer import QUANTILE_TILES, DensityScorer
from synthpipe.density.scorer_parts import PartSettings, known_parts
from synthpipe.device import resolve_device
from synthpipe.errors import ImageError, OptionError, TrainingError, counted
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.given_up import count_given_up
from synthpipe.files.image_files import decode_file
from synthpipe.files.skip_advice import raise_limit, skip_advice
from synthpipe.files.source_files import refuse_overlap
from synthpipe.images import to_float, to_uint8
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.data.folder_domain import list_images
from synthpipe.transforms.corruptions import corrupt, draw_corruption
from synthpipe.transforms.density import tile_places

__all__ = ["Calibrated", "CleanImages", "calibrate", "clean_quantiles", "named_images", "split_images"]

logger = logging.getLogger("synthpipe.training")

#: Tiles are cut from a corrupted piece this much larger on each side: blurs meet no border, and ...
_MARGIN = 16
#: ... corners fall on any of so many places, so that a JPEG's grid (16 pixels with its colours) is anywhere.
_PHASES = 16
_CLEAN = "clean"


class Calibrated(NamedTuple):
    """A fitted scorer, and what belongs in its header: data, settings, figures on the images held out."""

    scorer: DensityScorer
    info: dict[str, Any]


class _Parts(NamedTuple):
    """Parts of the tiles of some images, by family; the copy of a clean tile at the clean tile's place."""

    by_family: dict[str, Tensor]
    #: For each clean image, the parts ``(k, F)`` of up to 16 tiles spread over it.
    spread: list[Tensor]


def calibrate(
    dde: DDE, clean: str | Path | Sequence[str | Path], options: CalibrationOptions, progress: bool = False
) -> Calibrated:
    """Fit the log-odds that a tile is degraded, on the user's own clean images and corruptions of them.

    Args:
        dde: a density whose first domain is clean.
        clean: folders of clean images, searched with all below them, links to folders included; broken and small ones
            are skipped and counted, and the log has counts of what else lies there.
        options: tiles, levels, families and seed.
        progress: show a bar on a terminal.

    Returns:
        The scorer (eval mode, on the CPU).  ``info["held_out"]`` has a row for each family: ``auroc``,
        ``pair_accuracy`` (None for a folder of other images), ``caught_at_5_percent`` (of the degraded tiles where 5 %
        of the clean are rejected), ``coder_bits_auroc`` (of the plain baseline), ``tiles``.  ``info["given_up"]``
        counts what the images used held beside 8-bit sRGB.

    Raises:
        TrainingError: too few usable images, nothing to tell from clean, or a fit that fails.
        ShapeError: levels or a tile that the density cannot take.
        OptionError: ``ignore`` names no part, or the device is not here.
    """
    folders = [clean] if isinstance(clean, str | Path) else list(clean)
    refuse_overlap([str(folder) for folder in folders])
    names = [*options.families, *_folder_names(options.degraded)]
    if not names:
        raise TrainingError("calibrate: nothing to tell from clean: give 'families', or folders in 'degraded'")
    options = options.model_copy(update={"device": resolve_device(options.device)})
    parts = known_parts(PartSettings(dde.domains, options.levels, options.norm_levels))
    scorer = DensityScorer(dde.config, options.levels, options.tile, options.norm_levels, parts)
    scorer.dde.load_state_dict(dde.state_dict())
    ignored = _ignored(scorer, options)
    scorer = scorer.eval().requires_grad_(False).to(options.device)
    reader = _Reader(scorer, options)
    fit_on, held_out = split_images(folders, options.holdout, options.seed, _CLEAN)
    others = [
        (name, *split_images([folder], options.holdout, options.seed, name))
        for name, folder in zip(_folder_names(options.degraded), options.degraded, strict=True)
    ]
    total = sum(map(len, [fit_on, held_out, *(paths for _, *both in others for paths in both)]))
    with tqdm(total=total, unit="image", disable=None if progress else True) as bar:
        seen, unseen = reader.read(fit_on, False, bar), reader.read(held_out, True, bar)
        for name, fitted, tested in others:
            seen.by_family[name] = reader.read_folder(fitted, name, bar)
            unseen.by_family[name] = reader.read_folder(tested, name, bar)
    scorer = scorer.cpu()
    scorer.calibration = _fit(seen, names, options, ignored)
    logits = [scorer.calibration(parts)[:, None] for parts in unseen.spread]
    percents = scorer.quantile_table.shape[1]
    scorer.quantile_table.copy_(clean_quantiles(logits, lambda few: few[:, 0].mean(), options.seed, percents))
    info = {
        "clean": [str(folder) for folder in folders],
        "images_fitted": len(fit_on),
        "images_held_out": len(held_out),
        "skipped": dict(reader.images.skipped),
        "given_up": dict(sorted(reader.images.given_up.items())),
        "options": options.model_dump(mode="json", exclude={"device"}),
        "held_out": {name: _figures(scorer, unseen.by_family, name, name in options.families) for name in names},
    }
    return Calibrated(scorer, info)


class CleanImages:
    """Reads images for a fit; what cannot be used is skipped, counted and named in the log.

    Args:
        least: shortest side that can be used, pixels.
        max_pixels: of an image.

    Attributes:
        least: as it was given.
        skipped: images by the reason why they were not used.
        given_up: what the images used held beside 8-bit sRGB, by reason.
    """

    def __init__(self, least: int, max_pixels: int) -> None:
        self.least, self._max_pixels = least, max_pixels
        self.skipped: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()

    def why_none(self, larger: str = "give more") -> str:
        """Counts of what was skipped and what helps; ``larger``: where images are too small."""
        size = f"expected images of at least {self.least} pixels a side: {larger}"
        cures = {"too_small": size, "bomb": raise_limit("--max-pixels")}
        return f"({passed_over_text(self.skipped) or 'none'} skipped); {skip_advice(self.skipped, cures) or size}"

    def read(self, path: Path) -> Tensor | None:
        """``(3, H, W)`` uint8, or None where it cannot be used."""
        try:
            pixels, given_up = decode_file(path, self._max_pixels)
        except ImageError as error:
            self.skipped[error.reason] += 1
            logger.warning("calibrate: skipping (%s): %s", error.reason, error)
            return None
        if min(pixels.shape[:2]) < self.least:
            self.skipped["too_small"] += 1
            return None
        count_given_up(self.given_up, given_up, str(path), logger, "calibrate: ")
        return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


class _Reader:
    """Images -> parts of their tiles."""

    def __init__(self, scorer: DensityScorer, options: CalibrationOptions) -> None:
        self._scorer, self._options = scorer, options
        self.images = CleanImages(options.tile, options.max_pixels)

    def read(self, named: Sequence[tuple[str, Path]], spread: bool, bar: tqdm[Any]) -> _Parts:
        """Parts of clean tiles and of their corrupted copies; ``spread``: also of tiles all over each image."""
        families = (_CLEAN, *self._options.families)
        found: dict[str, list[Tensor]] = {family: [] for family in families}
        all_over: list[Tensor] = []
        for name, path in named:
            bar.update()
            image = self.images.read(path)
            if image is None:
                continue
            tiles = self._copies(image, sample_seed(self._options.seed, 0, name))  # (families * n, 3, tile, tile)
            parts = torch.unflatten(self._parts(tiles), 0, (len(families), -1))
            for family, few in zip(families, parts, strict=True):
                found[family].append(few)
            if spread:
                all_over.append(self._parts(self._grid(image)))
        return _Parts({family: self._joined(few, family) for family, few in found.items()}, all_over)

    def read_folder(self, named: Sequence[tuple[str, Path]], family: str, bar: tqdm[Any]) -> Tensor:
        """Parts of tiles of images that are degraded as they are."""
        found = []
        for name, path in named:
            bar.update()
            image = self.images.read(path)
            if image is not None:
                pieces, corners = self._pieces(image, generator_for(sample_seed(self._options.seed, 0, name), family))
                found.append(self._parts(self._cut(pieces, corners)))
        return self._joined(found, family)

    def _copies(self, image: Tensor, seed: int) -> Tensor:
        image = self._reduced(image, generator_for(seed, "reduce"))
        pieces, corners = self._pieces(image, generator_for(seed, "tiles"))
        copies = [self._cut(pieces, corners)]
        for family in self._options.families:
            generator = generator_for(seed, family)
            corruptions = [draw_corruption(family, generator) for _ in range(len(pieces))]
            copies.append(self._cut(corrupt(pieces, corruptions), corners))
        return torch.cat(copies)

    def _reduced(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The image, or every other time a smaller copy: what is clean at one size is clean, and sharper, at less."""
        factor, chosen = torch.rand(2, generator=generator).tolist()
        side = min(image.shape[1:])
        factor = min(self._options.reduce**factor, side / self._options.tile)
        if chosen < 0.5:
            return image
        size = [max(round(length / factor), self._options.tile) for length in image.shape[1:]]
        small = F.interpolate(to_float(image[None]), size=size, mode="bicubic", antialias=True)
        return to_uint8(small)[0]

    def _pieces(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, list[tuple[int, int]]]:
        """Pieces of an image ``(n, 3, h, w)`` in [0, 1], and where in each the tile lies."""
        tile = self._options.tile
        sides = [min(side, tile + 2 * _MARGIN + _PHASES) for side in image.shape[1:]]
        pieces, corners = [], []
        for _ in range(self._options.tiles_per_image):
            top, left = (_draw(whole - side, generator) for whole, side in zip(image.shape[1:], sides, strict=True))
            pieces.append(image[:, top : top + sides[0], left : left + sides[1]])
            corner = [_corner(side - tile, generator) for side in sides]
            corners.append((corner[0], corner[1]))
        return to_float(torch.stack(pieces)), corners

    def _cut(self, pieces: Tensor, corners: Sequence[tuple[int, int]]) -> Tensor:
        tile = self._options.tile
        return torch.stack(
            [piece[:, top : top + tile, left : left + tile] for piece, (top, left) in zip(pieces, corners, strict=True)]
        )

    def _grid(self, image: Tensor) -> Tensor:
        """Up to 16 tiles all over the image, as scoring takes them."""
        tile = self._options.tile
        places = tile_places(image.shape[1], image.shape[2], tile, max(QUANTILE_TILES))
        return self._cut(to_float(image).expand(len(places), -1, -1, -1), places)

    def _parts(self, tiles: Tensor) -> Tensor:
        return self._scorer.parts(tiles.to(self._options.device)).cpu()

    def _joined(self, parts: Sequence[Tensor], family: str) -> Tensor:
        if not parts:
            raise TrainingError(
                f"calibrate: no usable image for {family!r} in one share of the split "
                + self.images.why_none("give more, or change tile or holdout")
            )
        return torch.cat(list(parts))


def _draw(most: int, generator: torch.Generator) -> int:
    """A whole number from 0 to ``most``."""
    return int(torch.randint(most + 1, (1,), generator=generator))


def _corner(room: int, generator: torch.Generator) -> int:
    """Where a tile begins on a side that is longer by ``room``: off the border where there is room for that."""
    return _MARGIN + _draw(_PHASES - 1, generator) if room >= 2 * _MARGIN + _PHASES - 1 else _draw(room, generator)


def split_images(
    folders: Sequence[str | Path], holdout: float, seed: int, name: str
) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """Images to fit on and images held out, each with a name that moving the folder does not change.

    Args:
        folders: searched with all below them.
        holdout: share of the images to hold out.
        seed, name: decide which.

    Raises:
        TrainingError: too few images for two shares.
    """
    named = named_images(folders)
    held = round(holdout * len(named))
    if not 0 < held < len(named):
        raise TrainingError(
            f"calibrate: {', '.join(map(str, folders))}: {counted(len(named), 'image')}, too few for a share to fit on "
            f"and one to hold out ({holdout:g} of them); give more images"
        )
    order = torch.randperm(len(named), generator=generator_for(seed, f"split {name}")).tolist()
    chosen = set(order[:held])
    return (
        [entry for place, entry in enumerate(named) if place not in chosen],
        [entry for place, entry in enumerate(named) if place in chosen],
    )


def named_images(folders: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """All images of the folders, each with a name that moving the folder does not change."""
    passed_over: Counter[str] = Counter()
    named = [
        (f"{number}/{path.relative_to(folder).as_posix()}", path)
        for number, folder in enumerate(folders)
        for path in list_images(folder, passed_over)
    ]
    if passed_over:
        logger.info("calibrate: %s: passed over: %s", ", ".join(map(str, folders)), passed_over_text(passed_over))
    return named


def _folder_names(folders: Sequence[str]) -> list[str]:
    """A name for each folder of degraded images, unlike those of the synthetic families."""
    return [f"{number}:{Path(folder).name}" for number, folder in enumerate(folders, 1)]


def _ignored(scorer: DensityScorer, options: CalibrationOptions) -> list[int]:
    """Places of the parts that ``options.ignore`` names."""
    parts = scorer.columns[1:]
    for pattern in options.ignore:
        if not fnmatch.filter(parts, pattern):
            raise OptionError(f"ignore: no part is called {pattern!r}; there are {', '.join(parts)}")
    return [place for place, part in enumerate(parts) if any(fnmatch.fnmatch(part, p) for p in options.ignore)]


def _fit(seen: _Parts, names: Sequence[str], options: CalibrationOptions, ignored: Sequence[int]) -> Calibration:
    degraded = [seen.by_family[name] for name in names]
    weight = torch.cat([torch.full((len(parts),), 1 / len(parts)) for parts in degraded])
    return fit_calibration(seen.by_family[_CLEAN], torch.cat(degraded), weight, options.ridge, ignored)


def clean_quantiles(spread: Sequence[Tensor], of_set: Callable[[Tensor], Tensor], seed: int, percents: int) -> Tensor:
    """Quantiles 0..100 % of ``degraded_logit`` over 1, 4 and 16 tiles of a clean image, ``(3, percents)``.

    Images give as many disjoint sets of tiles as they hold, drawn from all over them; one of fewer tiles gives one set
    of those it has, as scoring does.

    Args:
        spread: what each image's tiles have, ``(k, F)``.
        of_set: the number of a set ``(k, F)``, a scalar.
        seed: of the sets.
        percents: how many quantiles.
    """
    generator = generator_for(seed, "quantiles")
    means: dict[int, list[Tensor]] = {count: [] for count in QUANTILE_TILES}
    for tiles in spread:
        tiles = tiles[torch.randperm(len(tiles), generator=generator)]
        for count in QUANTILE_TILES:
            sets = max(len(tiles) // count, 1)
            means[count] += [of_set(few) for few in tiles[: sets * count].chunk(sets)]
    places = torch.linspace(0, 1, percents)
    return torch.stack([torch.quantile(torch.stack(means[count]), places) for count in QUANTILE_TILES])


def _figures(scorer: DensityScorer, unseen: dict[str, Tensor], name: str, paired: bool) -> dict[str, Any]:
    clean, degraded = (scorer.calibration(unseen[family]) for family in (_CLEAN, name))
    bits = scorer.columns.index("coder_bits") - 1
    return {
        "auroc": round(auroc(clean, degraded), 4),
        "pair_accuracy": round(pair_accuracy(clean, degraded), 4) if paired else None,
        "caught_at_5_percent": round(caught_share(clean, degraded), 4),
        "coder_bits_auroc": round(auroc(-unseen[_CLEAN][:, bits], -unseen[name][:, bits]), 4),
        "tiles": len(degraded),
    }
