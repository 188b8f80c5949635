"""Batches of clean images and of images to be degraded, as many for each domain; from folders or from shards.

Clean images feed every domain that is made on the fly; what makes them degraded runs on the device, with the
objective (:func:`build_degraders`).  Domains of the user's own images are read as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, assert_never

import torch
from torch import Tensor

from synthpipe.config.dde import CLEAN_NAME, CorruptionDomain, DDEDataOptions, DegradeDomain, Family, ImagesDomain
from synthpipe.config.run import DomainOptions
from synthpipe.errors import OptionError, counted
from synthpipe.images import quantize_8bit
from synthpipe.training.data.readers import DomainReader, DomainReaders, read_domain
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.corruptions import Corruption, corrupt, draw_corruption
from synthpipe.transforms.deflow import DeFlowDegrade

__all__ = ["Degrader", "DomainData", "build_degraders", "corruption_degrader", "transform_degrader"]

#: Images ``(n, 3, H, W)`` float32 in [0, 1] and a CPU generator for each -> degraded ones, multiples of 1/255.
Degrader = Callable[[Tensor, Sequence[torch.Generator]], Tensor]


class DomainData(DomainReaders):
    """Batches ``{"x": (B, 3, context, context) uint8, "domain": (B,) int64, "key": B strings, "slot": B numbers}``.

    ``x`` of domains that are made on the fly is clean.  From folders, an image is a function of (seed, step, slot)
    alone: however many processes share a step, together they see the same images.

    Args:
        options: domains and how they are cropped.
        seed: of the run.
        rank: this process.
        world_size: number of processes.

    Raises:
        OptionError: ``batch_size`` cannot be shared evenly.
        TrainingError: a domain without usable images.
    """

    def __init__(self, options: DDEDataOptions, seed: int, rank: int = 0, world_size: int = 1) -> None:
        share = len(options.domains) * options.crops_per_context * world_size
        if options.batch_size % share:
            raise OptionError(
                f"data.batch_size: expected a multiple of {share} ({counted(len(options.domains), 'domain')}, "
                f"{counted(options.crops_per_context, 'crop')} from each context, {counted(world_size, 'process')}), "
                f"got {options.batch_size}"
            )
        self._options = options
        self._total = options.batch_size // (len(options.domains) * options.crops_per_context)
        contexts = self._total // world_size  # of each domain, for this process
        self._places = range(rank * contexts, (rank + 1) * contexts)
        own = {at: domain for at, domain in enumerate(options.degraded, 1) if isinstance(domain, ImagesDomain)}
        self._from_clean = [at for at in range(len(options.domains)) if at not in own]
        self._own = list(own)
        many = len(self._from_clean)
        clean_slots = range(self._places.start * many, self._places.stop * many)
        reading: dict[str, tuple[DomainOptions, range]] = {CLEAN_NAME: (options.clean, clean_slots)}
        reading |= {domain.name: (domain, self._places) for domain in own.values()}
        self._readers: dict[str, DomainReader] = {
            name: read_domain(name, domain, options, options.context, slots, seed, rank, world_size)
            for name, (domain, slots) in reading.items()
        }

    def next_batch(self) -> Batch:
        """This process's part of the next step's batch."""
        return self._batch([reader.next() for reader in self._readers.values()], self._places)

    def example(self, count: int) -> Batch | None:
        """``count`` images for each domain that no step uses, the same at every call; None with shards."""
        many = [len(self._from_clean)] + [1] * len(self._own)
        parts = [reader.example(count * n) for reader, n in zip(self._readers.values(), many, strict=True)]
        found = [part for part in parts if part is not None]
        return self._batch(found, range(count)) if len(found) == len(parts) else None

    def describe(self) -> dict[str, Any]:
        """Folders or shards, images used and skipped, by domain; for those made on the fly, how."""
        made = {
            domain.name: domain.model_dump(mode="json", exclude={"name"})
            for domain in self._options.degraded
            if not isinstance(domain, ImagesDomain)
        }
        return super().describe() | made

    def _batch(self, parts: Sequence[tuple[Tensor, list[str]]], places: range) -> Batch:
        """Domain by domain; a slot is ``domain * contexts of a domain in all + place``."""
        (clean, clean_keys), own = parts[0], parts[1:]
        many = len(self._from_clean)
        by_domain: dict[int, tuple[Tensor, list[str]]] = {
            domain: (clean[at::many], clean_keys[at::many]) for at, domain in enumerate(self._from_clean)
        }
        by_domain |= dict(zip(self._own, own, strict=True))
        order = sorted(by_domain)
        return {
            "x": torch.cat([by_domain[domain][0] for domain in order]),
            "domain": torch.tensor(order).repeat_interleave(len(places)),
            "key": [key for domain in order for key in by_domain[domain][1]],
            "slot": [domain * max(self._total, len(places)) + place for domain in order for place in places],
        }


def build_degraders(options: DDEDataOptions) -> dict[int, Degrader]:
    """What makes each domain that is made on the fly, by the domain's number.

    Raises:
        CheckpointError: DeFlow weights that are missing, damaged or of another kind.
        OptionError: a context that a degradation cannot take, or that it gives another size; a schedule.
    """
    degraders: dict[int, Degrader] = {}
    for number, domain in enumerate(options.degraded, 1):
        match domain:
            case CorruptionDomain():
                degraders[number] = corruption_degrader(*domain.families)
            case DegradeDomain():
                degraders[number] = transform_degrader(_transform(domain, options.context))
            case ImagesDomain():
                pass  # read as they are
            case _:
                assert_never(domain)
    return degraders


def corruption_degrader(*families: Family) -> Degrader:
    """A corruption of one of ``families``, of a strength drawn for each image."""

    def draw(generator: torch.Generator) -> Corruption:
        """Family and strength for one image."""
        place = int(torch.randint(len(families), (1,), generator=generator)) if len(families) > 1 else 0
        return draw_corruption(families[place], generator)

    def degrade(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Each image with a corruption of its own; see :data:`Degrader`."""
        return corrupt(x, [draw(generator) for generator in generators])

    return degrade


def transform_degrader(transform: BatchTransform) -> Degrader:
    """A degradation of the stream at scale 1, frozen."""

    def degrade(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """``lq`` of the transform, on the device of ``x``; see :data:`Degrader`."""
        seeds = torch.cat([torch.randint(2**62, (1,), generator=generator) for generator in generators])
        keys = [str(seed) for seed in seeds.tolist()]
        with torch.no_grad():
            return quantize_8bit(transform.to(x.device)({"gt": x, "key": keys, "seed": seeds})["lq"])

    return degrade


def _transform(domain: DegradeDomain, context: int) -> BatchTransform:
    transform = build_degrade(domain.degrade, 1)
    if transform.samples > 1:
        raise OptionError(
            f"domain {domain.name!r}: degrade.samples is for streams, here each crop has one; leave it out"
        )
    if isinstance(transform, DeFlowDegrade) and context % transform.frozen.size_multiple:
        raise OptionError(
            f"data.context: expected a multiple of {transform.frozen.size_multiple}, which the DeFlow of domain "
            f"{domain.name!r} needs, got {context}"
        )
    if transform.needs_seen:
        raise OptionError(
            f"domain {domain.name!r}: weights and probabilities that change with the samples seen are for streams; "
            "give one number in their place"
        )
    try:
        transform.check_tiles(context, context)
    except OptionError as error:
        raise OptionError(f"domain {domain.name!r}, contexts of {context} pixels at scale 1: {error}") from error
    return transform
