"""What a stream does to one of its samples: when it is read, what is cut, what each place of the degradation draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError
from synthpipe.images import quantize_8bit
from synthpipe.pipeline.build import StreamParts, stream_parts
from synthpipe.pipeline.device_stage import DeviceStage
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.sample_lookup import FoundSample, Reading, find_sample, read_again, reading_of
from synthpipe.pipeline.source import CutTile, Record
from synthpipe.pipeline.tally import Tally
from synthpipe.preview.trace import trace_degradation
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.explained import PlaceNote

__all__ = ["Explanation", "TileNote", "explain_sample"]


@dataclass(frozen=True)
class TileNote:
    """One tile of a sample.

    Args:
        key: of the sample, with the number of the tile where an image gives several.
        seed: all randomness of the tile.
        top: where it lies in the image, pixels.
        left: likewise.
        side: of the tile, pixels.
        mirror: whether it is mirrored left to right.
        turns: by how many times 90 degrees it is turned after that, anticlockwise.
        dropped: why the stream emits nothing of it, as it counts it; None: it does.
        places: of the degradation, in the order in which the tile goes through them.
        patches: rows and columns of the LR patches in each ``lq``; None: a model cuts them, or none is emitted.
        gt: ``(3, H, W)`` in [0, 1]; None where it is dropped before it is degraded.
        lq: each ``(3, h, w)``, of 8 bits.
    """

    key: str
    seed: int
    top: int
    left: int
    side: int
    mirror: bool
    turns: int
    dropped: str | None = None
    places: Sequence[PlaceNote] = ()
    patches: Sequence[Sequence[tuple[int, int]]] | None = None
    gt: Tensor | None = None
    lq: Sequence[Tensor] = field(default=())


@dataclass(frozen=True)
class Explanation:
    """A sample in one epoch: which, when it is read, the ``(height, width)`` of its image, and its tiles."""

    sample: FoundSample
    epoch: int
    reading: Reading
    image: tuple[int, int]
    tiles: Sequence[TileNote]


def explain_sample(
    options: StreamOptions,
    name: str,
    epoch: int,
    *,
    of_model: DegradeOptions | None = None,
    world_size: int = 1,
    seen: int | None = None,
    device: torch.device | str = "cpu",
) -> Explanation:
    """What the stream makes of a sample; on the CPU its very bits, but that sums over a batch may round otherwise.

    Args:
        options: of the stream.
        name: of the sample, see :func:`synthpipe.pipeline.sample_lookup.find_sample`.
        epoch: from 0.
        of_model: what a BasicSR model does in ``feed_data``, where the stream does not degrade.
        world_size: ranks of the training.
        seen: samples that were read before, in place of what follows from the plan.
        device: where to degrade.

    Raises:
        OptionError: no such sample or epoch; no degradation; a schedule of a model that degrades in ``feed_data``,
            which goes by its iterations, without ``seen``.
        ImageError: the stream skips the sample for this reason.
        StreamError: the stream leaves the sample out, by its table of scores.
    """
    if epoch < 0:
        raise OptionError(f"epoch: the first is 0, got {epoch}")
    if options.degrade is None and of_model is None:
        raise OptionError("nothing to explain without `degrade`; give it, such as {type: deflow, ...}")
    parts = stream_parts(options)
    degrade = parts.steps.degrade if of_model is None else build_degrade(of_model, options.scale)
    assert degrade is not None
    if of_model is not None and degrade.needs_seen and seen is None:
        raise OptionError(
            "degrade: has a schedule, and the model that degrades in feed_data goes by its iterations: give the images "
            "seen before as --seen (iteration, less one, times images of all ranks)"
        )
    sample = find_sample(parts.settings, name)
    reading = reading_of(parts.settings, sample.address, epoch, options.workers, world_size)
    if seen is not None:
        reading = Reading(reading.rank, reading.worker, reading.position, seen)
    size, tiles = read_again(parts.settings, sample, epoch)
    stage = DeviceStage(torch.device(device), parts.steps, parts.settings.cut, 1)
    degrade.to(device)
    notes = [_tile_note(stage, parts, degrade, tile, sample, reading.seen) for _, tile in tiles]
    return Explanation(sample, epoch, reading, size, notes)


@torch.no_grad()
def _tile_note(
    stage: DeviceStage, parts: StreamParts, degrade: BatchTransform, tile: CutTile, sample: FoundSample, seen: int
) -> TileNote:
    border = parts.steps.border
    top, left = tile.corner[0] + border, tile.corner[1] + border
    where = (tile.key, tile.seed, top, left, parts.settings.tile - 2 * border, tile.mirror, tile.turns)
    tally = Tally(1, 1.0)
    clean = stage.clean_tiles(_record(tile, sample, seen), tally)
    if not clean["key"]:
        return TileNote(*where, dropped=_reason(tally))
    batch = {"gt": clean["gt"].float(), "seed": clean["seed"], "seen": torch.tensor([seen])}
    lq, places = trace_degradation(degrade, batch)
    dropped = None if bool(torch.isfinite(lq).all()) else "not_finite"
    patches = None if parts.settings.cut is None else _patches(parts.settings.cut, tile.seed)
    return TileNote(
        *where, dropped=dropped, places=places, patches=patches, gt=batch["gt"][0], lq=list(quantize_8bit(lq.float()))
    )


def _record(tile: CutTile, sample: FoundSample, seen: int) -> Record:
    pixels = torch.from_numpy(np.ascontiguousarray(tile.pixels.transpose(2, 0, 1)))
    seeds = {"seed": np.array([tile.seed], np.int64), "seen": np.array([seen], np.int64)}
    return {"tile": pixels[None], "key": [tile.key], "path": [sample.path], **seeds}


def _reason(tally: Tally) -> str:
    return next(reason for reason, count in tally.counts().items() if count)


def _patches(cut: PatchCut, seed: int) -> list[list[tuple[int, int]]]:
    """Corners by degradation."""
    corners = [(int(row), int(column)) for row, column in cut.corners([seed])[0]]
    return [corners[first : first + cut.count] for first in range(0, len(corners), cut.count)]
