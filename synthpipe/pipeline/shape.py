"""Numbers of a stream that follow from its options and its corpus: sides of tiles, patches, batches of a pass."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from fractions import Fraction

from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError, counted
from synthpipe.pipeline.keep_list import KeepList
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.plan import part_bounds
from synthpipe.pipeline.source import SourceSettings
from synthpipe.pipeline.stream_corpus import Corpus, probe_sides
from synthpipe.pipeline.stream_state import StateBounds
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.denoise_by_image import DenoiseByImage

__all__ = ["StreamShape", "tile_border", "tile_side"]

_log = logging.getLogger(__name__)

_LARGEST_AUTOMATIC_TILE = 160
_TILE_STEP = 8
_LARGEST_AUTOMATIC_COUNT = 4
_LARGEST_AUTOMATIC_BORDER = 32


@dataclass(frozen=True)
class StreamShape:
    """The numbers that follow from options and corpus.

    Args:
        options: of the stream.
        corpus: its shards.
        rank: number of this process among those that share the corpus.
        world_size: how many there are.
        tile: side of tiles, in LR pixels where there are pairs, else in HR pixels.
        border: HR pixels on each side of a tile that only the denoiser sees.
        keep: the images that a table of scores keeps; None: all.
        degradations: of each tile; 0 where nothing degrades.
    """

    options: StreamOptions
    corpus: Corpus
    rank: int
    world_size: int
    tile: int
    border: int
    keep: KeepList | None
    degradations: int

    @property
    def paired(self) -> bool:
        """Whether there are LR patches."""
        return self.degradations > 0

    @property
    def source_tile(self) -> int:
        """Side of the tiles that are judged and degraded, HR pixels."""
        return self.tile * self.options.scale if self.paired else self.tile

    @property
    def samples(self) -> int:
        """Samples of this rank in an epoch."""
        begin, end = part_bounds(self.corpus.samples, self.rank, self.rank + 1, self.world_size)
        return end - begin

    @property
    def patches_per_tile(self) -> int:
        """Of one degradation; as given, or as many as fit, up to 4: two of the same content teach little more."""
        if not self.paired:
            return 1
        inner = self.tile - 2 * self.options.margin
        room = inner**2 // self.options.lq_size**2
        return self.options.patches_per_tile or max(min(room, _LARGEST_AUTOMATIC_COUNT), 1)

    @property
    def patches_per_sample(self) -> int:
        """Patches that one image gives."""
        return self.options.crops_per_image * self.patches_per_tile * max(self.degradations, 1)

    @property
    def cut(self) -> PatchCut | None:
        """Which patches are cut from tiles; None where tiles are patches."""
        if not self.paired:
            return None
        options = self.options
        count = self.patches_per_tile
        return PatchCut(self.tile, options.lq_size, options.scale, options.margin, count, self.degradations)

    @property
    def patches(self) -> int:
        """Patches of this rank in an epoch; what is dropped on the device is not known ahead."""
        return math.floor(self.samples * self._kept_share) * self.patches_per_sample

    @property
    def _kept_share(self) -> Fraction:
        """Of the images, as far as it is known ahead."""
        return Fraction(1) if self.keep is None else Fraction(self.keep.kept, len(self.keep))

    def limit(self) -> int | None:
        """Batches of a pass, where ranks have to agree on it."""
        epochs, world_size = self.options.epochs, self.world_size
        if epochs is None or world_size == 1:
            return None
        kept = math.floor(self.corpus.samples * self._kept_share)
        fair = kept // world_size if self.options.drop_last else -(-kept // world_size)
        batches = epochs * fair * self.patches_per_sample / self.options.batch_size
        return math.floor(batches) if self.options.drop_last else math.ceil(batches)

    def planned(self) -> int | None:
        """Batches of a pass, if no image is bad and no filter drops one on the device; None where it has no end."""
        epochs, limit = self.options.epochs, self.limit()
        if epochs is None or limit is not None:
            return limit
        batches = Fraction(epochs * self.patches, self.options.batch_size)
        return math.floor(batches) if self.options.drop_last else math.ceil(batches)

    def check_planned(self) -> None:
        """Refuse a pass that would end before it begins.

        Raises:
            OptionError: says how many patches there are, and which options to change.
        """
        # A table of scores may be of more images than the shards hold: what it keeps of these is not known.
        if self.planned() == 0 and self.keep is None:
            options = self.options
            patches = self.samples * self.patches_per_sample * (options.epochs or 0)
            ranks = f" on each of {self.world_size} ranks" if self.world_size > 1 else ""
            raise OptionError(
                f"a pass of {counted(options.epochs or 0, 'epoch')} holds {counted(patches, 'patch')}{ranks} "
                f"({counted(self.samples, 'image')}, {counted(self.patches_per_sample, 'patch')} of each), fewer than "
                f"batch_size {options.batch_size}: it would give no batch; lower batch_size, set drop_last: false, or "
                "raise epochs or crops_per_image"
            )

    def state_bounds(self) -> StateBounds:
        """Positions that a state can have."""
        options, readers = self.options, max(self.options.workers, 1)
        places = [part_bounds(self.corpus.samples, n, n + 1, self.world_size * readers) for n in self._readers(readers)]
        parts = tuple(end - begin for begin, end in places)
        return StateBounds(parts, options.crops_per_image, options.workers, options.epochs, self.limit())

    def _readers(self, count: int) -> range:
        """Numbers of this rank's readers among those of all ranks."""
        return range(self.rank * count, (self.rank + 1) * count)

    def settings(self) -> SourceSettings:
        """What the readers need of it."""
        options = self.options
        return SourceSettings(
            urls=self.corpus.urls,
            counts=self.corpus.counts,
            seed=options.seed,
            tile=self.source_tile + 2 * self.border,
            tiles_per_batch=options.tiles_per_batch,
            crops_per_image=options.crops_per_image,
            hflip=options.hflip,
            rotate=options.rotate,
            open_shards=options.open_shards,
            shuffle_buffer=options.shuffle_buffer,
            alpha=options.alpha,
            spool_dir=options.spool_dir,
            rank=self.rank,
            world_size=self.world_size,
            keep=self.keep,
            listed=self.corpus.listed,
            max_pixels=options.max_pixels,
            cut=self.cut,
        )


def tile_border(options: StreamOptions, denoise: Denoise | DenoiseByImage | None) -> int:
    """HR pixels cut around each tile for the denoiser: as given, or what it sees, up to 32."""
    if options.denoise is None or denoise is None:
        return 0
    if options.denoise.border is not None:
        return options.denoise.border
    return min(denoise.model.reach, _LARGEST_AUTOMATIC_BORDER)


def tile_side(options: StreamOptions, corpus: Corpus, border: int) -> int:
    """The LR tile: as given, or the largest up to 160 that the first images of the corpus allow."""
    if options.tile is not None:
        return options.tile
    shortest = probe_sides(corpus, options.spool_dir, options.max_pixels)
    tile = _LARGEST_AUTOMATIC_TILE
    if shortest is not None:
        tile = min(tile, (shortest - 2 * border) // options.scale // _TILE_STEP * _TILE_STEP)
    tile = max(tile, options.smallest_tile)
    if tile != _LARGEST_AUTOMATIC_TILE:
        _log.info("LR tiles of %d pixels: the shortest side among the first images is %s", tile, shortest)
    return tile
