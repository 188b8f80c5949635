"""The part of a stream that runs in reader processes: addresses in, batches of augmented 8-bit tiles out.

The state is a position in the plan and never a random generator or image bytes, so that it stays small, and a
resumed reader opens only what it still needs.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from synthpipe.errors import ImageError, StreamError
from synthpipe.files.decode import AlphaPolicy, decode_image
from synthpipe.files.given_up import NAMED_EXAMPLES, count_given_up
from synthpipe.files.printable import printable
from synthpipe.pipeline.crop import augment, check_size, cut_square, drawn_flips, spread_positions
from synthpipe.pipeline.keep_list import KeepList
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.plan import Address, Consumer, consumer_segments, epoch_order, seen_before
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.seeds import sample_seed
from synthpipe.shards.shard_reader import BESIDE, FURTHER_IMAGE, UNLISTED_SAMPLE, Listed, ShardReaders

__all__ = ["FILTERED", "NOT_LOST", "USED", "CutTile", "Record", "SourceSettings", "TileSource", "cut_tiles"]

#: The name under which good images are counted, beside the reasons of bad ones.
USED = "used"

#: The reason of what a filter left out on purpose: images before they were decoded, or tiles on the device.
FILTERED = "filtered"

#: What is counted and no loss: it was left out on purpose, or may well be meant to lie beside a sample's image.
NOT_LOST = frozenset({FILTERED, FURTHER_IMAGE})

#: One batch of tiles: ``tile`` (B, 3, S, S) uint8, a tensor; ``key`` and ``path``, lists; ``seed`` and ``seen`` (images
#: that the stream had read before, on all ranks) (B,) int64 and, where patches are cut, ``corner``
#: (:meth:`PatchCut.corners`), arrays, which cost less than tensors to hand over; and
#: of the reader process so far ``source`` (its first epoch), ``reader``, ``epoch``, ``counts``, ``given_up`` (of the
#: images used, as in :data:`synthpipe.files.decode.GIVEN_UP`), and ``example`` (the last sample that was bad).  B is 0
#: where there are only counts.
Record = dict[str, Any]

# A reader that passes over all that it meets must still be heard, or nobody would notice.
_REPORT_AFTER = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceSettings:
    """What a reader needs to know; crosses process borders."""

    urls: tuple[str, ...]
    counts: tuple[int, ...]
    seed: int
    tile: int
    tiles_per_batch: int
    crops_per_image: int
    hflip: bool
    rotate: bool
    open_shards: int
    shuffle_buffer: int
    alpha: AlphaPolicy
    spool_dir: str | None
    rank: int
    world_size: int
    keep: KeepList | None = None
    listed: tuple[Listed | None, ...] = ()
    max_pixels: int = MAX_PIXELS
    cut: PatchCut | None = None


@dataclass(frozen=True)
class CutTile:
    """A tile as it is cut from an image, mirrored and turned.

    Args:
        pixels: ``(S, S, 3)`` uint8, possibly a view.
        key: of the sample, with its number where an image gives several.
        seed: all its randomness.
        corner: top and left in the image, pixels.
        mirror: whether it is mirrored left to right.
        turns: by how many times 90 degrees it is turned after that, anticlockwise.
    """

    pixels: np.ndarray
    key: str
    seed: int
    corner: tuple[int, int]
    mirror: bool
    turns: int


@dataclass
class _Tile:
    pixels: np.ndarray  # (S, S, 3) uint8, possibly a view
    key: str
    path: str
    seed: int
    seen: int


def cut_tiles(settings: SourceSettings, image: np.ndarray, key: str, epoch: int) -> list[CutTile]:
    """The tiles that an epoch takes of one image.

    Args:
        settings: sizes, seed, and what is done to tiles.
        image: ``(H, W, 3)`` uint8.
        key: of its sample.
        epoch: from 0.
    """
    count = settings.crops_per_image
    rng = random.Random(sample_seed(settings.seed, epoch, f"crop/{key}"))
    tiles = []
    for index, corner in enumerate(spread_positions(image.shape[0], image.shape[1], settings.tile, count, rng)):
        own = key if count == 1 else f"{key}#{index}"
        seed = sample_seed(settings.seed, epoch, own)
        rng_of_flips = random.Random(sample_seed(seed, 0, "augment"))
        mirror, turns = drawn_flips(rng_of_flips, hflip=settings.hflip, rotate=settings.rotate)
        pixels = augment(cut_square(image, corner, settings.tile), mirror, turns)
        tiles.append(CutTile(pixels, own, seed, corner, mirror, turns))
    return tiles


class TileSource(IterableDataset[Record]):
    """Batches of tiles of this rank; split over the loader's workers by itself.

    Args:
        settings: shards and sizes.
        first_epoch: where to begin.
        epochs: how many to read; None for ever.
    """

    def __init__(self, settings: SourceSettings, first_epoch: int = 0, epochs: int | None = None) -> None:
        self.settings = settings
        self.first_epoch = first_epoch
        self.epochs = epochs
        self._reader: TileReader | None = None

    def __iter__(self) -> Iterator[Record]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stop = None if self.epochs is None else self.first_epoch + self.epochs
        self.close()
        self._reader = TileReader(self.settings, worker, workers, self.first_epoch, stop)
        return self._reader

    def close(self) -> None:
        """Let go of the shards that are read in this process; readers in others end with their process."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class TileReader(Iterator[Record]):
    """One reader: walks its part of the plan, epoch after epoch.

    Args:
        settings: shards and sizes.
        worker: number of this reader in its rank.
        workers: readers of the rank.
        epoch: first epoch.
        stop: epoch before which to stop; None for never.
    """

    def __init__(self, settings: SourceSettings, worker: int, workers: int, epoch: int, stop: int | None) -> None:
        self._settings = settings
        self._worker = worker
        self._consumer = Consumer(settings.rank * workers + worker, settings.world_size * workers)
        self._first_epoch = epoch
        self._stop = stop
        self._readers = ShardReaders(settings.urls, settings.spool_dir, settings.listed)
        self._counts: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()
        self._example = ""
        self._reported = 0
        self._begin_epoch(epoch)

    def close(self) -> None:
        """Close the shards; copies of remote ones vanish.  Reading again opens them again."""
        self._readers.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: epoch, addresses taken, crops emitted from the last of them, counts."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "crop": self._crop if self._pending else 0,
            "counts": dict(self._counts),
            "given_up": dict(self._given_up),
            "reported": self._reported,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was taken; reads one image at most."""
        self._readers.close()
        self._begin_epoch(state["epoch"])
        in_hand = 1 if state["crop"] else 0
        for _ in range(state["position"] - in_hand):
            address = next(self._order, None)
            if address is None:
                raise StreamError(f"the state is at image {state['position']} of a reader, which has {self._position}")
            self._leave(address)
            self._position += 1
        if in_hand:
            self._take_image()
            if len(self._pending) < state["crop"]:
                raise StreamError(
                    f"the state is at tile {state['crop']} of image {state['position']} of a reader, which gives "
                    f"{len(self._pending)}: damaged, or its shards have changed; use another state"
                )
            for _ in range(state["crop"]):
                self._pending.popleft()
            self._crop = state["crop"]
        self._counts = Counter(state["counts"])
        # States of version 0.1 have none.
        self._given_up = Counter(state.get("given_up", {}))
        self._reported = state["reported"]
        self._open_announced()

    def __next__(self) -> Record:
        tiles: list[_Tile] = []
        while len(tiles) < self._settings.tiles_per_batch:
            if self._pending:
                tiles.append(self._pending.popleft())
                self._crop += 1
            elif self._passed_over() - self._reported >= _REPORT_AFTER:
                break
            elif not self._take_image() and not self._next_epoch():
                if not tiles and self._passed_over() == self._reported:
                    self._readers.close()
                    raise StopIteration
                break
        self._reported = self._passed_over()
        return self._record(tiles)

    def _begin_epoch(self, epoch: int) -> None:
        settings = self._settings
        self._epoch = epoch
        self._position = 0
        self._crop = 0
        self._pending: deque[_Tile] = deque()
        self._announced: list[int] = []
        segments = consumer_segments(settings.counts, settings.seed, epoch, self._consumer)
        self._remaining = Counter({segment.shard: len(segment) for segment in segments})
        self._empty = not segments
        self._order: Iterator[Address] = epoch_order(
            segments,
            settings.seed,
            epoch,
            self._consumer,
            settings.open_shards,
            settings.shuffle_buffer,
            on_open=self._announced.append,
        )

    def _next_epoch(self) -> bool:
        """Turn to the next epoch; False where there is none, or (fewer samples than readers) nothing to read in any."""
        if self._empty or (self._stop is not None and self._epoch + 1 >= self._stop):
            return False
        self._begin_epoch(self._epoch + 1)
        return True

    def _take_image(self) -> bool:
        """Read the next address into pending tiles, or count why not; False at the end of the epoch."""
        address = next(self._order, None)
        self._open_announced()
        if address is None:
            return False
        self._position += 1
        self._crop = 0
        try:
            tiles = self._tiles_of(address)
            self._pending.extend(tiles)
            self._counts[USED if tiles else FILTERED] += 1
        except ImageError as error:
            self._counts[error.reason] += 1
            self._example = str(error)
            examples = self._counts[error.reason] <= NAMED_EXAMPLES
            _log.log(logging.INFO if examples else logging.DEBUG, "skipped (%s): %s", error.reason, error)
        self._count_beside(address)
        self._leave(address)
        return True

    def _count_beside(self, address: Address) -> None:
        """What lies beside a sample and no sample uses: counted, and told of at the first time."""
        counts, text = self._readers[address[0]].beside(address[1])
        for reason, count in counts.items():
            if not self._counts[reason] and reason != UNLISTED_SAMPLE:  # of which the shard's reader has told
                _log.warning("%s: %d %s; %s", self._settings.urls[address[0]], count, reason, text)
            self._counts[reason] += count
            if reason not in NOT_LOST:
                self._example = text

    def _open_announced(self) -> None:
        """Open what the plan will soon need, so that remote shards begin to arrive."""
        for shard in self._announced:
            if self._remaining[shard]:
                self._readers.expect(shard)
        self._announced.clear()

    def _leave(self, address: Address) -> None:
        shard = address[0]
        self._remaining[shard] -= 1
        if not self._remaining[shard]:
            self._readers.release(shard)

    def _tiles_of(self, address: Address) -> list[_Tile]:
        """The tiles of one image; none where the filter drops it."""
        settings = self._settings
        shard, number = address
        member, data = self._readers[shard].read(number)
        path = f"{settings.urls[shard]}/{member.name}"
        if settings.keep is not None and not settings.keep.keeps(member.key, path):
            return []
        image, given_up = decode_image(data, path, alpha=settings.alpha, max_pixels=settings.max_pixels)
        check_size(image, settings.tile, path)
        count_given_up(self._given_up, given_up, path, _log)
        return [
            _Tile(tile.pixels, printable(tile.key), printable(path), tile.seed, self._seen())
            for tile in cut_tiles(settings, image, member.key, self._epoch)
        ]

    def _seen(self) -> int:
        """Images of the stream before the one in hand, if all readers are equally fast: a function of the place."""
        return seen_before(self._epoch, sum(self._settings.counts), self._position - 1, self._consumer)

    def _record(self, tiles: list[_Tile]) -> Record:
        size = self._settings.tile
        pixels = np.empty((len(tiles), 3, size, size), np.uint8)
        for out, tile in zip(pixels, tiles, strict=True):
            out[:] = tile.pixels.transpose(2, 0, 1)
        seeds = [tile.seed for tile in tiles]
        corners = {} if self._settings.cut is None else {"corner": self._settings.cut.corners(seeds)}
        return {
            "tile": torch.from_numpy(pixels),
            "key": [tile.key for tile in tiles],
            "path": [tile.path for tile in tiles],
            "seed": np.array(seeds, np.int64),
            "seen": np.array([tile.seen for tile in tiles], np.int64),
            **corners,
            "source": self._first_epoch,
            "reader": self._worker,
            "epoch": self._epoch,
            "counts": dict(self._counts),
            "given_up": dict(self._given_up),
            "example": self._example,
        }

    def _passed_over(self) -> int:
        return sum(count for reason, count in self._counts.items() if reason != USED and reason not in BESIDE)
