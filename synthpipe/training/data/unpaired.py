"""Batches of two unpaired domains, exactly half of each; from folders or from shards."""

from __future__ import annotations

import torch

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.errors import OptionError
from synthpipe.training.data.readers import Crops, DomainReaders, read_domain
from synthpipe.transforms.batch import Batch

__all__ = ["CLEAN", "NOISY", "UnpairedData"]

CLEAN, NOISY = 0, 1


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
        self._slots = range(rank * half, (rank + 1) * half)
        self._readers = {
            name: read_domain(name, domain, options, options.crop, self._slots, seed, rank, world_size)
            for name, domain in (("clean", options.clean), ("noisy", options.noisy))
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


def _batch(clean: Crops, noisy: Crops, slots: range) -> Batch:
    return {
        "x": torch.cat([clean[0], noisy[0]]),
        "domain": torch.tensor([CLEAN] * len(slots) + [NOISY] * len(slots)),
        "key": clean[1] + noisy[1],
        "slot": [2 * slot + domain for domain in (CLEAN, NOISY) for slot in slots],
    }
