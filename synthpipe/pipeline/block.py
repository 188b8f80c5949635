"""Patches that are mixed together, in tensors that are allocated once, and emitted by one index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.pipeline.patches import Patches, RowFates
from synthpipe.pipeline.tally import Tally
from synthpipe.transforms.batch import Batch

__all__ = ["Block", "PatchMemory"]


class PatchMemory:
    """Tensors ``(N, ...)`` by key that blocks write their patches into, one block after the other."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def write(self, tensors: Mapping[str, Tensor], begin: int, room: int) -> None:
        """Copy ``tensors`` to the places from ``begin`` on; allocates ``room`` places more where there are too few.

        Raises:
            ShapeError: patches of another size or type than those before.
        """
        for key, value in tensors.items():
            held, end = self._tensors.get(key), begin + len(value)
            if held is not None and (held.shape[1:], held.dtype) != (value.shape[1:], value.dtype):
                raise ShapeError(
                    f"{key}: patches of {tuple(value.shape[1:])} {value.dtype} after some of {tuple(held.shape[1:])} "
                    f"{held.dtype}; the transforms of a stream must give tiles of one size and type"
                )
            if held is None or len(held) < end:
                larger = value.new_empty((end + room, *value.shape[1:]))
                if held is not None:
                    larger[:begin] = held[:begin]
                self._tensors[key] = held = larger
            held[begin:end].copy_(value)

    def close_up(self, begin: int, places: Tensor) -> None:
        """Move what lies at ``places``, which are all from ``begin`` on, together to ``begin``."""
        at = {device: _moved(places, device) for device in self.devices()}
        for held in self._tensors.values():
            held[begin : begin + len(places)] = held[at[held.device]]

    def read(self, places: Mapping[torch.device, Tensor]) -> dict[str, Tensor]:
        """Copies of what lies at the places, which are given for each device."""
        return {key: held[places[held.device]] for key, held in self._tensors.items()}

    def devices(self) -> set[torch.device]:
        """Where the tensors lie."""
        return {held.device for held in self._tensors.values()}


class Block:
    """Patches that are mixed together.

    Args:
        number: of the block in its pass.
        source_state: where it begins in the source.
        tally: as it stands there.
        memory: for the patches; nothing else may use it while the block has patches left.
        wanted: patches at which it is full.
    """

    def __init__(self, number: int, source_state: Any, tally: Tally, memory: PatchMemory, wanted: int) -> None:
        self.number = number
        self.source_state = source_state
        self.tally_state = tally.state_dict()
        self.wanted = wanted
        #: Patches; as if all of a record came, until it is settled.
        self.size = 0
        self.taken = 0
        self.complete = False
        self._memory = memory
        self._written = 0
        self._per_row = 1
        self._lists: dict[str, list[Any]] = {}
        self._waiting: list[tuple[int, int, RowFates]] = []  # first row, rows, fates
        self._order = torch.empty(0, dtype=torch.int64)
        self._places: dict[torch.device, Tensor] = {}
        self.note(tally)

    def note(self, tally: Tally) -> None:
        """Take over what has been counted by now."""
        self.counts, self.given_up, self.epoch = tally.counts(), tally.given_up(), tally.epoch()
        self.ways = tally.ways()

    def add(self, patches: Patches) -> None:
        """Put patches at the end of a block that is not complete."""
        count = len(patches)
        if not count:
            return
        self._memory.write(patches.tensors, self._written, self.wanted)
        self._per_row = patches.per_row
        if patches.fates is not None:
            self._waiting.append((self._written // self._per_row, count // self._per_row, patches.fates))
        for key, values in patches.lists.items():
            self._lists.setdefault(key, []).extend(values)
        self._written += count
        self.size += count

    def settle(self, tally: Tally) -> Iterator[bool]:
        """Take out what the device dropped; for each record that had to be asked about, whether it gave a patch."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        begin, left = waiting[0][0], []
        for at, (first, rows, fates) in enumerate(waiting):
            kept = [first + row for row in fates.settle(tally)]
            # Records that came in between have no fates: all of them stays.
            after = waiting[at + 1][0] if at + 1 < len(waiting) else self._written // self._per_row
            left += [*kept, *range(first + rows, after)]
            self.size -= (rows - len(kept)) * self._per_row
            yield bool(kept)
        self._close_up(begin, left)

    def _close_up(self, begin: int, left: list[int]) -> None:
        """From row ``begin`` on keep the rows ``left`` alone: memory follows what is kept, not what came."""
        if len(left) == self._written // self._per_row - begin:
            return
        rows = torch.tensor(left, dtype=torch.int64)
        places = (rows[:, None] * self._per_row + torch.arange(self._per_row)).flatten()
        self._memory.close_up(begin * self._per_row, places)
        for values in self._lists.values():
            values[begin:] = [values[row] for row in left]
        self._written = begin * self._per_row + len(places)

    def finish(self, generator: torch.Generator | None) -> None:
        """No more patches come, and all are settled; mix them."""
        self.complete = True
        self._order = torch.arange(self.size) if generator is None else torch.randperm(self.size, generator=generator)
        self._places = {device: _moved(self._order, device) for device in self._memory.devices()}

    def left(self) -> int:
        """Patches that have not been taken."""
        return self.size - self.taken

    def take(self, count: int) -> Batch:
        """Up to ``count`` patches, in memory of their own."""
        begin, end = self.taken, min(self.taken + count, self.size)
        self.taken = end
        batch: Batch = dict(self._memory.read({device: at[begin:end] for device, at in self._places.items()}))
        rows = (self._order[begin:end] // self._per_row).tolist()
        for key, values in self._lists.items():
            batch[key] = [values[row] for row in rows]
        return batch


def _moved(order: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return order
    return order.pin_memory().to(device, non_blocking=True)
