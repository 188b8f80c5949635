"""A bounded pool that mixes patches on the device and rebatches them, with exact state.

Mixing goes by blocks: degraded tiles are cut until ``pool`` patches are there, the block is put in an order drawn from
(seed, block number), and emitted whole.  So the state is where the source stood when the block began, and how much of
the block has been emitted: resuming degrades the same tiles again, in the same company, and gives the same bits.
How many patches a record gives may be known only when the device is through with it; whether a block is full is asked
as if all came, and asked again when it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchdata.nodes import BaseNode

from synthpipe.errors import StreamError
from synthpipe.pipeline.block import Block, PatchMemory
from synthpipe.pipeline.patches import Patches
from synthpipe.pipeline.source import Record
from synthpipe.pipeline.tally import Tally, nothing_used
from synthpipe.seeds import generator_for
from synthpipe.transforms.batch import Batch, batch_length, join_batches

__all__ = ["Emitted", "PatchPool"]

#: A batch, with the counts that belong to it.
Emitted = dict[str, Any]


class PatchPool(BaseNode[Emitted]):  # type: ignore[misc]
    """Records of tiles in, batches of patches out.

    Args:
        source: node of records.
        process: from a record to patches.
        tally: makes a tally, from a state or anew.
        batch_size: patches in a batch.
        pool: patches in a block; 0 keeps the order of the tiles.
        seed: of the mixing.
        drop_last: leave out a short last batch.
        limit: batches after which to stop.
    """

    def __init__(
        self,
        source: BaseNode[Record],
        process: Callable[[Record, Tally], Patches],
        tally: Callable[[dict[str, Any] | None], Tally],
        *,
        batch_size: int,
        pool: int,
        seed: int,
        drop_last: bool,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._process = process
        self._make_tally = tally
        self._batch_size = batch_size
        self._pool = pool
        self._seed = seed
        self._drop_last = drop_last
        self._limit = limit

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin with an empty pool, or degrade the block behind ``initial_state`` again and go on inside it."""
        super().reset(initial_state)
        state = initial_state or {"source": None, "tally": None, "block": 0, "taken": 0, "batches": 0}
        self._source.reset(state["source"])
        self.tally = self._make_tally(state["tally"])
        self._ended = False
        #: At the end: patches that were too few for a batch.
        self.left_over = 0
        self._fruitless_since: int | None = None
        self._batches = state["batches"]
        #: Of the block that is emitted and of the next one, in turn.
        self._memory = PatchMemory(), PatchMemory()
        self._current = self._new_block(state["block"], state["source"])
        self._current.taken = state["taken"]
        self._next: Block | None = None
        self._state = self._standing()

    @property
    def emitted(self) -> int:
        """Batches of this pass so far, those before a state was loaded included."""
        return int(self._batches)

    def get_state(self) -> dict[str, Any]:
        """Where the block of the last batch began in the source, and how much of it has been emitted."""
        # As of the last batch: an error on the way to the next one must not cost what that had taken already.
        return self._state

    def next(self) -> Emitted:
        """The next batch with its counts; StopIteration at the limit, and when no patch, or no whole batch, is left."""
        if self._limit is not None and self._batches >= self._limit:
            raise StopIteration
        parts: list[Batch] = []
        missing = self._batch_size
        while missing and self._ready():
            parts.append(self._current.take(missing))
            missing -= batch_length(parts[-1])
        if not parts or (missing and self._drop_last):
            self.left_over = sum(map(batch_length, parts))
            raise StopIteration
        self._batches += 1
        block = self._current
        item = {
            "batch": join_batches(parts),
            "counts": block.counts,
            "given_up": block.given_up,
            "ways": block.ways,
            "epoch": block.epoch,
        }
        self._work_ahead()
        self._state = self._standing()
        return item

    def _standing(self) -> dict[str, Any]:
        block = self._current
        return {
            "source": block.source_state,
            "tally": block.tally_state,
            "block": block.number,
            "taken": block.taken,
            "batches": self._batches,
        }

    def _ready(self) -> bool:
        """Make the current block one with patches left; False at the end of the source."""
        if not self._current.complete:
            self._fill(self._current)
            if self._current.left() < 0:
                raise StreamError(
                    f"the state says that {self._current.taken} patches of a block were emitted, the block has "
                    f"{self._current.size}: damaged, or its shards have changed; use another state"
                )
        while not self._current.left():
            if self._ended and self._next is None:
                return False
            following = self._next or self._begin_block(self._current.number + 1)
            self._next = None
            self._fill(following)
            self._current = following
        return True

    def _work_ahead(self) -> None:
        """Fill the next block at the pace at which this one is emitted, so that no batch waits for a whole block."""
        if not self._pool or self._ended:
            return
        if self._next is None:
            self._next = self._begin_block(self._current.number + 1)
        emitted = self._current.taken / max(self._current.size, 1)
        while not self._ended and self._next.size < emitted * self._pool:
            self._add_record(self._next)

    def _begin_block(self, number: int) -> Block:
        # The source makes each of its states anew.
        return self._new_block(number, self._source.state_dict())

    def _new_block(self, number: int, source_state: Any) -> Block:
        return Block(number, source_state, self.tally, self._memory[number % 2], max(self._pool, 1))

    def _fill(self, block: Block) -> None:
        while self._lacks(block):
            self._add_record(block)
        block.finish(generator_for(self._seed, f"block/{block.number}") if self._pool else None)
        block.note(self.tally)

    def _lacks(self, block: Block) -> bool:
        """Whether another record is to be had for it; false once all is settled and it is full, or nothing is left."""
        if self._ended or block.size >= block.wanted:
            for came in block.settle(self.tally):
                self._check_fruit(came)
        return not self._ended and block.size < block.wanted

    def _add_record(self, block: Block) -> None:
        try:
            record = next(self._source)
        except StopIteration:
            self._ended = True
            return
        self.tally.note(record)
        if not len(record["seed"]):
            self._check_fruit(False)
            return
        patches = self._process(record, self.tally)
        block.add(patches)
        if patches.fates is None:
            self._check_fruit(len(patches) > 0)

    def _check_fruit(self, came: bool) -> None:
        """An endless stream must not read for ever and yield nothing.

        Raises:
            StreamError: all readers went through a whole epoch that gave no patch.
        """
        epoch = self.tally.epoch()
        if came or self._fruitless_since is None:
            self._fruitless_since = epoch
        elif epoch > self._fruitless_since + 1 and not self.tally.judges_filter:
            raise StreamError(f"an epoch gave no patch: {nothing_used(self.tally.counts())}")
