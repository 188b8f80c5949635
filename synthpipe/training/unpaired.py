"""Batches of two unpaired domains, exactly half of each; from folders or from shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from synthpipe.config.training import DomainOptions, UnpairedOptions
from synthpipe.errors import OptionError, TrainingError
from synthpipe.training.folder import FolderDomain
from synthpipe.training.shards import ShardReader
from synthpipe.transforms.base import Batch

__all__ = ["CLEAN", "NOISY", "DomainReader", "DomainReaders", "FolderReader", "UnpairedData"]

CLEAN, NOISY = 0, 1
#: Images ``(n, 3, crop, crop)`` uint8 and the file or key of each.
Crops = tuple[Tensor, list[str]]


class DomainReader(Protocol):
    """One domain: this process's images of each step, in order."""

    def next(self) -> Crops: ...

    def example(self, count: int) -> Crops | None: ...

    def describe(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class FolderReader:
    """A :class:`FolderDomain` read ahead by threads, in the order of steps.

    Args:
        domain: where the crops come from.
        slots: this process's slots.
        workers: threads; 0 reads in the calling one.
        prefetch: steps made ahead.
    """

    def __init__(self, domain: FolderDomain, slots: range, workers: int, prefetch: int) -> None:
        self._domain, self._slots, self._ahead = domain, slots, prefetch
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
        """Where the images are from, how many are used and what was skipped."""
        domain = self._domain
        return {"folders": list(domain.options.places), "images": len(domain), "skipped": dict(domain.skipped)}

    def state_dict(self) -> dict[str, Any]:
        """The number of the next step, of which crops are a function, and what the files were."""
        return {"step": self._step, "files": self._domain.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the step of ``state``.

        Raises:
            TrainingError: the folders hold other images than when the state was saved.
        """
        if state["files"] != self._domain.fingerprint:
            raise TrainingError(
                f"{self._domain.name}: the images in {', '.join(self._domain.options.places)} are not those of the "
                f"run that is to be resumed ({len(self._domain)} usable now); put them back, or start a new run_dir"
            )
        self._drop_pending()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stop the threads."""
        self._drop_pending()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _crops(self, step: int, slots: range) -> Crops:
        pairs = [self._domain.crop(step, slot) for slot in slots]
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


class UnpairedData(DomainReaders):
    """Batches ``{"x": (B, 3, crop, crop) uint8, "domain": (B,) int64, "key": B strings, "slot": B numbers}``, the clean
    half first.

    Args:
        options: the two domains and how they are cropped.
        seed: of the run.
        rank: this process.
        world_size: number of processes; together they take ``batch_size`` crops per step, all different.

    Raises:
        OptionError: ``batch_size`` cannot be shared evenly.
        TrainingError: a domain without usable images.
    """

    def __init__(self, options: UnpairedOptions, seed: int, rank: int = 0, world_size: int = 1) -> None:
        half, rest = divmod(options.batch_size, 2 * world_size)
        if rest:
            raise OptionError(
                f"data.batch_size: expected a multiple of {2 * world_size} (half clean, half noisy, "
                f"{world_size} processes), got {options.batch_size}"
            )
        self._options = options
        self._slots = range(rank * half, (rank + 1) * half)
        self._readers = {
            "clean": self._reader("clean", options.clean, seed, rank, world_size),
            "noisy": self._reader("noisy", options.noisy, seed, rank, world_size),
        }

    def next_batch(self) -> Batch:
        """This process's part of the next step's batch."""
        return _batch(self._readers["clean"].next(), self._readers["noisy"].next(), self._slots)

    def example(self, count: int) -> Batch | None:
        """``count`` images of each domain that no step uses, the same at every call; None with shards."""
        clean, noisy = (reader.example(count) for reader in self._readers.values())
        if clean is None or noisy is None:
            return None
        return _batch(clean, noisy, range(count))

    def _reader(self, name: str, domain: DomainOptions, seed: int, rank: int, world_size: int) -> DomainReader:
        options = self._options
        if domain.shards is not None:
            return ShardReader(name, domain, options, seed, rank, world_size)
        return FolderReader(FolderDomain(name, domain, options, seed), self._slots, options.workers, options.prefetch)


def _batch(clean: Crops, noisy: Crops, slots: range) -> Batch:
    return {
        "x": torch.cat([clean[0], noisy[0]]),
        "domain": torch.tensor([CLEAN] * len(slots) + [NOISY] * len(slots)),
        "key": clean[1] + noisy[1],
        "slot": [2 * slot + domain for domain in (CLEAN, NOISY) for slot in slots],
    }
