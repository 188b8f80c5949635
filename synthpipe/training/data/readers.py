"""Readers of domains: this process's crops of each step, from folders or from shards, with state."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.errors import TrainingError
from synthpipe.training.base import ResumableData, resumed_step
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.shard_domain import ShardDomainReader

__all__ = ["Crops", "DomainReader", "DomainReaders", "FolderReader", "read_domain"]

#: Images ``(n, 3, crop, crop)`` uint8 and the file or key of each.
Crops = tuple[Tensor, list[str]]


class DomainReader(ResumableData, Protocol):
    """One domain: this process's images of each step, in order."""

    def next(self) -> Crops:
        """The next step's crops ``(n, 3, crop, crop)`` uint8, and the file or key of each."""
        ...

    def example(self, count: int) -> Crops | None:
        """``count`` crops that no step uses, the same at every call; None where that would move the reading."""
        ...


class FolderReader:
    """A :class:`FolderDomain` read ahead by threads, in the order of steps.

    Args:
        domain: where the crops come from.
        slots: this process's slots.
        workers: threads; 0 reads in the calling one.
        prefetch: steps made ahead.
    """

    def __init__(self, domain: FolderDomain, slots: range, workers: int, prefetch: int) -> None:
        self.domain, self._slots, self._ahead = domain, slots, prefetch
        self._pool = ThreadPoolExecutor(workers, f"synthpipe-{domain.name}") if workers else None
        self._pending: deque[Future[Crops]] = deque()
        self._step = 0

    def next(self) -> Crops:
        """The next step's crops ``(len(slots), 3, crop, crop)`` uint8 and their files."""
        if self._pool is None:
            crops = self._crops(self._step, self._slots)
        else:
            while len(self._pending) <= self._ahead:
                self._pending.append(self._pool.submit(self._crops, self._step + len(self._pending), self._slots))
            crops = self._pending.popleft().result()
        self._step += 1
        return crops

    def example(self, count: int) -> Crops:
        """``count`` crops that no step uses, the same at every call."""
        return self._crops(-1, range(count))

    def describe(self) -> dict[str, Any]:
        """As :meth:`FolderDomain.describe`."""
        return self.domain.describe()

    def state_dict(self) -> dict[str, Any]:
        """The number of the next step, of which crops are a function, and what the files were."""
        return {"step": self._step, "files": self.domain.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the step of ``state``.

        Raises:
            TrainingError: the folders hold other images than when the state was saved.
        """
        if state["files"] != self.domain.fingerprint:
            raise TrainingError(
                f"{self.domain.name}: the images in {', '.join(self.domain.options.places)} are not those of the "
                f"run that is to be resumed ({len(self.domain)} usable now); put them back, or start a new run_dir"
            )
        self._drop_pending()
        self._step = resumed_step(state)

    def close(self) -> None:
        """Stop the threads."""
        self._drop_pending()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _crops(self, step: int, slots: range) -> Crops:
        pairs = [self.domain.crop(step, slot) for slot in slots]
        return torch.stack([crop for crop, _ in pairs]), [key for _, key in pairs]

    def _drop_pending(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()


class DomainReaders:
    """The state of several domains together, by their names."""

    _readers: Mapping[str, DomainReader]

    def describe(self) -> dict[str, Any]:
        """Folders or shards, images used and skipped, by domain."""
        return {name: reader.describe() for name, reader in self._readers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Where every domain stands."""
        return {name: reader.state_dict() for name, reader in self._readers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for name, reader in self._readers.items():
            reader.load_state_dict(state[name])

    def close(self) -> None:
        """Stop reading ahead."""
        for reader in self._readers.values():
            reader.close()


def read_domain(
    name: str,
    domain: DomainOptions,
    reading: ReadingOptions,
    crop: int,
    slots: range,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    align: int = 1,
) -> DomainReader:
    """The reader of one domain.

    Args:
        name: for messages, and folded into the randomness.
        domain: where the images are from.
        reading: how they are cropped and read ahead.
        crop: side of the crops, pixels.
        slots: this process's places in a step; every process has as many.
        seed: of the run.
        rank: this process.
        world_size: number of processes.
        align: crops of folders that are not resized begin at multiples of so many pixels.

    Raises:
        TrainingError: no usable images.
    """
    if domain.shards is not None:
        return ShardDomainReader(name, domain, reading, crop, len(slots), seed, rank, world_size)
    folder = FolderDomain(name, domain, reading, crop, world_size * len(slots), seed, align)
    return FolderReader(folder, slots, reading.workers, reading.prefetch)
