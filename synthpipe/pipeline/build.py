"""Options -> stream: the only file that knows the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.device import resolve_device
from synthpipe.errors import OptionError
from synthpipe.pipeline.device_stage import DeviceStage, StageSteps
from synthpipe.pipeline.identity import IdentityParts, stream_identity
from synthpipe.pipeline.keep_list import read_keep_list
from synthpipe.pipeline.nodes import OnDevice, TileLoader
from synthpipe.pipeline.pool import PatchPool
from synthpipe.pipeline.reader_start import reader_start_method
from synthpipe.pipeline.shape import StreamShape, tile_border, tile_side
from synthpipe.pipeline.source import SourceSettings, TileSource
from synthpipe.pipeline.stream import Pass, Stream
from synthpipe.pipeline.stream_corpus import check_ranks, read_corpus
from synthpipe.pipeline.tally import Tally
from synthpipe.seeds import sample_seed
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.build import build_degrade, build_denoise, build_filter
from synthpipe.transforms.density import DensityFilter, DensityScore, KindFilter

__all__ = ["StreamParts", "build_stream", "stream_parts"]


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
) -> tuple[StreamShape, StageSteps, tuple[DensityScore, DensityFilter | KindFilter] | None]:
    """Numbers, steps, and the filter on the device."""
    corpus = read_corpus(options.shards, allow_pipe=options.allow_pipe, spool_dir=options.spool_dir)
    check_ranks(corpus, rank, world_size)
    if degrade is None and options.degrade is not None:
        degrade = build_degrade(options.degrade, options.scale)
    denoise = None if options.denoise is None else build_denoise(options.denoise)
    border = tile_border(options, denoise)
    tile = tile_side(options, corpus, border) if degrade is not None else options.gt_size
    keep = None
    if options.filter is not None and options.filter.scores is not None:
        keep = read_keep_list(options.filter)
    shape = StreamShape(
        options, corpus, rank, world_size, tile, border, keep, 0 if degrade is None else degrade.samples
    )
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


class _Recipe:
    """Makes the nodes of each pass."""

    def __init__(self, shape: StreamShape, steps: StageSteps, device: torch.device) -> None:
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
    shape: StreamShape, steps: StageSteps, judges: tuple[DensityScore, DensityFilter | KindFilter] | None
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
