"""Options -> stream: the only file that knows the order of the stages."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.device import resolve_device
from synthpipe.errors import OptionError
from synthpipe.pipeline.device_stage import DeviceStage, StageSteps
from synthpipe.pipeline.identity import IdentityParts, stream_identity
from synthpipe.pipeline.keep_list import KeepList, read_keep_list
from synthpipe.pipeline.nodes import OnDevice, TileLoader
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.plan import part_bounds
from synthpipe.pipeline.pool import PatchPool
from synthpipe.pipeline.reader_start import reader_start_method
from synthpipe.pipeline.source import SourceSettings, TileSource
from synthpipe.pipeline.stream import Pass, Stream
from synthpipe.pipeline.stream_corpus import Corpus, check_ranks, probe_sides, read_corpus
from synthpipe.pipeline.stream_state import StateBounds
from synthpipe.pipeline.tally import Tally
from synthpipe.seeds import sample_seed
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.build import build_degrade, build_denoise, build_filter
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from synthpipe.transforms.density import DensityFilter, DensityScore, KindFilter

__all__ = ["StreamParts", "build_stream", "stream_parts"]

_log = logging.getLogger(__name__)

_LARGEST_AUTOMATIC_TILE = 160
_TILE_STEP = 8
_LARGEST_AUTOMATIC_COUNT = 4
_LARGEST_AUTOMATIC_BORDER = 32


def build_stream(
    options: StreamOptions | Mapping[str, Any],
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    transforms: Sequence[BatchTransform] = (),
    degrade: BatchTransform | None = None,
) -> Stream:
    """Build the stream that ``options`` describe.

    Args:
        options: a :class:`StreamOptions`, or a mapping that is checked against it.
        rank: number of this process among those that share the corpus.
        world_size: how many there are.
        device: where tiles are degraded and patches come out; ``"auto"`` is CUDA where there is one.
        transforms: applied to clean tiles before the degradation, denoised ones where the options say so.
        degrade: a ready degradation, in place of the one that ``options.degrade`` describes.

    Returns:
        An iterable of ``{"gt": (B, 3, gt_size, gt_size), "lq": (B, 3, gt_size / scale, gt_size / scale), "lq_path",
        "gt_path"}``, float32 in [0, 1] on ``device``; without degradation ``{"gt", "key", "seed", "gt_path"}``.
        Every sample comes once per epoch over all ranks.  An endless stream drops nothing.  A finite one gives every
        rank the same number of batches: with one rank, all patches (without the short last batch if ``drop_last``);
        with several, as many full batches as the smallest share gives (the largest, if not ``drop_last``), where
        what is missing for a rank comes from its share of the next epoch.
        A filter that judges on the device comes after ``transforms``; how much it drops is not known ahead, so
        ``batches_per_epoch`` and the number of batches of several ranks are as if it kept all, and ranks go on into
        their next epochs the further.  One that goes by a table of scores is reckoned with.

    Raises:
        OptionError: options that do not fit together; a finite stream of fewer patches than a batch; no such device.
        ShardError: no shards, or no table of scores.
        CheckpointError: weights of the denoiser, the filter or the degradation.
        StreamError: ranks that do not fit.

    >>> from synthpipe.pipeline import build_stream
    >>> degrade = {"type": "deflow", "weights": "deflow_small"}
    >>> options = {"shards": "shards", "gt_size": 64, "batch_size": 2, "degrade": degrade}
    >>> with build_stream(options) as stream:  # the folder that `synthpipe shard photos shards` made
    ...     batch = next(stream)
    ...     state = stream.state_dict()  # an equal stream goes on here after load_state_dict(state)
    >>> batch["gt"].shape, batch["lq"].shape
    (torch.Size([2, 3, 64, 64]), torch.Size([2, 3, 16, 16]))
    """
    options = _checked(options)
    shape, steps, judges = _parts(options, rank, world_size, transforms, degrade)
    shape.check_planned()
    recipe = _Recipe(shape, steps, torch.device(resolve_device(str(device))))
    identity = stream_identity(_identity_parts(shape, steps, judges))
    whole = shape.patches // options.batch_size
    return Stream(recipe.make_pass, identity, shape.state_bounds(), whole, options.epochs, shape.planned())


@dataclass(frozen=True)
class StreamParts:
    """What a stream does to its images, to be done again to one of them.

    Args:
        settings: where they are and how tiles are cut; ``cut`` says which patches.
        steps: what tiles go through.
    """

    settings: SourceSettings
    steps: StageSteps


def stream_parts(options: StreamOptions | Mapping[str, Any]) -> StreamParts:
    """Of the stream that ``options`` describe; all but which rank reads what.

    Raises:
        OptionError: options that do not fit together.
        ShardError: no shards, or no table of scores.
        CheckpointError: weights of the denoiser, the filter or the degradation.
    """
    shape, steps, _ = _parts(_checked(options), 0, 1, (), None)
    return StreamParts(shape.settings(), steps)


def _parts(
    options: StreamOptions,
    rank: int,
    world_size: int,
    transforms: Sequence[BatchTransform],
    degrade: BatchTransform | None,
) -> tuple[_Shape, StageSteps, tuple[DensityScore, DensityFilter | KindFilter] | None]:
    """Numbers, steps, and the filter on the device."""
    corpus = read_corpus(options.shards, allow_pipe=options.allow_pipe, spool_dir=options.spool_dir)
    check_ranks(corpus, rank, world_size)
    if degrade is None and options.degrade is not None:
        degrade = build_degrade(options.degrade, options.scale)
    denoise = None if options.denoise is None else build_denoise(options.denoise)
    border = _border(options, denoise)
    tile = _tile_size(options, corpus, border) if degrade is not None else options.gt_size
    keep = None
    if options.filter is not None and options.filter.scores is not None:
        keep = read_keep_list(options.filter)
    shape = _Shape(options, corpus, rank, world_size, tile, border, keep, 0 if degrade is None else degrade.samples)
    _check_tiles(degrade, shape.source_tile)
    judges = None if options.filter is None or keep is not None else build_filter(options.filter, shape.source_tile)
    return shape, StageSteps(denoise, border, tuple(transforms), judges or (), degrade), judges


def _check_tiles(degrade: BatchTransform | None, side: int) -> None:
    if degrade is not None:
        degrade.check_tiles(side, side)


def _checked(options: StreamOptions | Mapping[str, Any]) -> StreamOptions:
    """Options of the schema, with a spool folder that is there."""
    if not isinstance(options, StreamOptions):
        options = parse_options(options, StreamOptions, source="stream options")
    if options.spool_dir is not None and not Path(options.spool_dir).is_dir():
        raise OptionError(f"spool_dir: no such folder {options.spool_dir!r}; make it first")
    return options


@dataclass(frozen=True)
class _Shape:
    """The numbers that follow from options and corpus."""

    options: StreamOptions
    corpus: Corpus
    rank: int
    world_size: int
    tile: int  # LR side if paired, else HR side
    border: int  # HR pixels on each side that only the denoiser sees
    keep: KeepList | None
    degradations: int  # of each tile; 0 where nothing degrades

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
                f"a pass of {options.epochs} epoch(s) holds {patches} patches{ranks} "
                f"({self.samples} images, {self.patches_per_sample} patches of each), fewer than "
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


class _Recipe:
    """Makes the nodes of each pass."""

    def __init__(self, shape: _Shape, steps: StageSteps, device: torch.device) -> None:
        self._shape = shape
        self._device = device
        options = shape.options
        self._stage = DeviceStage(device, steps, shape.cut, options.tiles_per_batch, compile=options.compile)
        self._prefetch = options.prefetch
        if self._prefetch is None:
            self._prefetch = 0 if device.type == "cpu" else 2

    def make_pass(self, number: int, tally_state: dict[str, Any] | None) -> Pass:
        """Nodes of pass ``number``, which goes on counting from ``tally_state``."""
        shape, options = self._shape, self._shape.options
        settings, limit = shape.settings(), shape.limit()
        first_epoch = number * (options.epochs or 0)
        tiles = TileLoader(
            lambda epoch: TileSource(settings, epoch, options.epochs),
            first_epoch=first_epoch,
            epochs=options.epochs,
            go_on=limit is not None,
            workers=options.workers,
            start_method=reader_start_method(options.start_method, self._device),
            pin_memory=self._device.type == "cuda",
        )
        pool = PatchPool(
            tiles,
            self._stage,
            lambda state: Tally(
                shape.samples,
                options.max_bad_fraction,
                state or tally_state,
                min_keep=0.0 if options.filter is None else options.filter.min_keep,
            ),
            batch_size=options.batch_size,
            pool=options.pool_size,
            seed=sample_seed(options.seed, first_epoch, f"pool/{shape.rank}"),
            drop_last=options.drop_last or limit is not None,
            limit=limit,
        )
        return Pass(tiles, pool, OnDevice(pool, self._device), self._prefetch or 0)


def _identity_parts(
    shape: _Shape, steps: StageSteps, judges: tuple[DensityScore, DensityFilter | KindFilter] | None
) -> IdentityParts:
    return IdentityParts(
        options=shape.options,
        corpus=shape.corpus,
        tile=shape.tile,
        border=shape.border,
        patches_per_tile=shape.patches_per_tile,
        rank=shape.rank,
        world_size=shape.world_size,
        keep=shape.keep,
        judges=judges,
        degrade=steps.degrade,
        transforms=tuple(steps.transforms),
    )


def _border(options: StreamOptions, denoise: Denoise | DenoiseByImage | None) -> int:
    """HR pixels cut around each tile for the denoiser: as given, or what it sees, up to 32."""
    if options.denoise is None or denoise is None:
        return 0
    if options.denoise.border is not None:
        return options.denoise.border
    return min(denoise.model.reach, _LARGEST_AUTOMATIC_BORDER)


def _tile_size(options: StreamOptions, corpus: Corpus, border: int) -> int:
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
