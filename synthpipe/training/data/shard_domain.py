"""One domain from shards: the clean patches of a stream, this process's share of each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.images import to_uint8
from synthpipe.pipeline.build import build_stream
from synthpipe.seeds import sample_seed, uniforms

__all__ = ["ShardDomainReader"]


class ShardDomainReader:
    """An endless stream of crops without degradation.

    Args:
        name: of the domain; folded into the stream's seed.
        domain: ``shards`` is set.
        reading: augmentation, workers.
        crop: side of the crops, pixels.
        count: crops of this process in each step.
        seed: of the run.
        rank: this process; every image is seen once per pass by one of them.
        world_size: number of processes.

    Raises:
        ShardError: no such shards.
    """

    def __init__(
        self,
        name: str,
        domain: DomainOptions,
        reading: ReadingOptions,
        crop: int,
        count: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._places = domain.places
        self._augment = reading.augment
        options = StreamOptions(
            shards=domain.places,
            gt_size=crop,
            scale=1,
            batch_size=count,
            seed=sample_seed(seed, 0, name),
            workers=reading.workers,
            pool=0,
            # Threads that read the other domain may hold locks that a forked process would wait for.
            start_method="spawn" if reading.workers else None,
            hflip=reading.augment != "none",
            rotate=reading.augment == "dihedral",
            max_pixels=reading.max_pixels,
        )
        self._stream = build_stream(options, rank=rank, world_size=world_size)

    def next(self) -> tuple[Tensor, list[str]]:
        """The next step's crops ``(n, 3, crop, crop)`` uint8 and their keys."""
        batch = next(self._stream)
        crops = to_uint8(batch["gt"])
        if self._augment == "flips":
            seeds = zip(batch["seed"].tolist(), batch["key"], strict=True)
            flipped = torch.tensor([uniforms(seed, key, "vflip")[0] < 0.5 for seed, key in seeds])
            crops = torch.where(flipped[:, None, None, None], crops.flip(2), crops)
        return crops, list(batch["key"])

    def example(self, count: int) -> None:
        """None: reading ahead for a picture would move the stream."""

    def describe(self) -> dict[str, Any]:
        """The shards, what was used and skipped, and what the images used have given up."""
        stream = self._stream
        return {"shards": list(self._places), "counts": stream.counts(), "given_up": stream.given_up()}

    def state_dict(self) -> dict[str, Any]:
        """The stream's state."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises :class:`synthpipe.errors.StreamError` where it is of other shards."""
        self._stream.load_state_dict(state)

    def close(self) -> None:
        """Stop the reader processes."""
        self._stream.close()
