"""Batches of two unpaired domains, exactly half of each; from folders or from shards."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.errors import OptionError, TrainingError, counted
from synthpipe.flat_noise import noise_level
from synthpipe.seeds import sample_seed
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.pile_choices import choices_of, choose, with_choices
from synthpipe.training.data.piles import Piles
from synthpipe.training.data.readers import Crops, DomainReaders, FolderReader, read_domain
from synthpipe.transforms.batch import Batch

__all__ = ["CLEAN", "NOISY", "UnpairedData"]

logger = logging.getLogger("synthpipe.training")

CLEAN, NOISY = 0, 1


class UnpairedData(DomainReaders):
    """Batches ``{"x": (B, 3, crop, crop) uint8, "domain": (B,) int64, "key": B strings, "slot": B numbers}``, the clean
    half first.

    Args:
        options: the two domains and how they are cropped.
        seed: of the run.
        with_levels: measure the noise level of every noisy image (:func:`synthpipe.flat_noise.noise_level`), and give
            ``"level"`` ``(B,)`` float32 on the [0, 1] scale with each batch: that of the noisy image in each slot, for
            the clean image in that slot as well.  Images without a flat area count as the median of the others.
        rank: this process.
        world_size: number of processes; together they take ``batch_size`` crops per step, all different.

    Raises:
        OptionError: ``batch_size`` cannot be shared evenly; levels of images in shards.
        TrainingError: a domain without usable images; no noisy image has a flat area where a level is asked for.
    """

    def __init__(
        self, options: UnpairedOptions, seed: int, rank: int = 0, world_size: int = 1, with_levels: bool = False
    ) -> None:
        half, rest = divmod(options.batch_size, 2 * world_size)
        if rest:
            raise OptionError(
                f"data.batch_size: expected a multiple of {2 * world_size} (half clean, half noisy, "
                f"{world_size} processes), got {options.batch_size}"
            )
        self._slots = range(rank * half, (rank + 1) * half)
        self._seed, self._place = seed, (rank, world_size)
        #: What values in place of ``auto`` were chosen by; None where nothing was.
        self.piles: Piles | None
        options, self.piles = choose(options, seed)
        self._read(options)
        #: Of each noisy image by its file, on the [0, 1] scale; empty where they were not measured.
        self.levels = _levels_of(self.noisy) if with_levels else {}

    def _read(self, options: UnpairedOptions) -> None:
        assert isinstance(options.align, int), "nothing is auto any more"
        self._options, align = options, options.align
        self._readers = {
            name: read_domain(name, domain, options, options.crop, self._slots, self._seed, *self._place, align)
            for name, domain in (("clean", options.clean), ("noisy", options.noisy))
        }

    def describe(self) -> dict[str, Any]:
        """Folders or shards of both domains; what was measured of the piles and chosen by it."""
        if self.piles is None:
            return super().describe()
        return super().describe() | {"piles": self.piles.as_dict(), "chosen": choices_of(self._options)}

    def state_dict(self) -> dict[str, Any]:
        """Where both domains stand, and what was chosen in place of ``auto``."""
        chosen = {} if self.piles is None else {"chosen": choices_of(self._options)}
        return super().state_dict() | chosen

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, with what was chosen then.

        Raises:
            TrainingError: the folders hold other images than when the state was saved.
        """
        chosen = state.get("chosen")
        if self.piles is not None and chosen is not None and chosen != choices_of(self._options):
            words = ", ".join(f"{name} {value}" for name, value in chosen.items())
            logger.warning("piles: the run goes on with what it chose at its start: %s", words)
            broken = self._broken_noisy() if self.levels else set()
            self.close()
            self._read(with_choices(self._options, chosen))
            if broken:
                self._read_again(broken)
        super().load_state_dict(state)

    @property
    def noisy(self) -> FolderDomain:
        """The noisy images, whole.

        Raises:
            OptionError: they are in shards.
        """
        reader = self._readers["noisy"]
        if not isinstance(reader, FolderReader):
            raise OptionError(
                "data.noisy: noise is measured on whole images, which shards are not read for; give a folder, or leave "
                "out model.level and calibrate"
            )
        return reader.domain

    def _broken_noisy(self) -> set[str]:
        return {file for number, file in enumerate(self.noisy.files) if self.noisy.is_broken(number)}

    def _read_again(self, broken: set[str]) -> None:
        """So that the new reader knows of them, too: who measures the pile leaves them out."""
        for number, file in enumerate(self.noisy.files):
            if file in broken:
                self.noisy.image(number)

    def clean_tiles(self, count: int, side: int) -> Tensor:
        """``count`` crops ``(count, 3, side, side)`` uint8 of clean images that no step uses; smaller if they must be.

        Raises:
            OptionError: the clean images are in shards.
        """
        return torch.stack(list(self.each_clean_tile(count, side)))

    def each_clean_tile(self, count: int, side: int) -> Iterator[Tensor]:
        """Those of :meth:`clean_tiles` one by one, so that who has seen enough need not read the others."""
        if self._options.clean.shards is not None:
            raise OptionError("data.clean: calibrate needs a folder, got shards; leave calibrate out")
        options, seed = self._options, sample_seed(self._seed, 0, "calibrate")
        try:
            domain = FolderDomain("clean", options.clean, options, max(side, options.crop), count, seed)
        except TrainingError:
            domain = FolderDomain("clean", options.clean, options, options.crop, count, seed)
        for slot in range(count):
            yield domain.crop(0, slot)[0]

    def next_batch(self) -> Batch:
        """This process's part of the next step's batch."""
        return self._batch(self._readers["clean"].next(), self._readers["noisy"].next(), self._slots)

    def example(self, count: int) -> Batch | None:
        """``count`` images of each domain that no step uses, the same at every call; None with shards."""
        clean, noisy = (reader.example(count) for reader in self._readers.values())
        if clean is None or noisy is None:
            return None
        return self._batch(clean, noisy, range(count))

    def _batch(self, clean: Crops, noisy: Crops, slots: range) -> Batch:
        batch = {
            "x": torch.cat([clean[0], noisy[0]]),
            "domain": torch.tensor([CLEAN] * len(slots) + [NOISY] * len(slots)),
            "key": clean[1] + noisy[1],
            "slot": [2 * slot + domain for domain in (CLEAN, NOISY) for slot in slots],
        }
        if self.levels:
            batch["level"] = torch.tensor([self.levels[file] for file in noisy[1]] * 2)
        return batch


def _levels_of(domain: FolderDomain) -> dict[str, float]:
    """Level of each image by its file, those without a flat area at the median of the others."""
    found = {}
    unread = 0
    for number, file in enumerate(domain.files):
        image = domain.image(number)
        unread += image is None
        found[file] = None if image is None else noise_level(image)
    if unread == len(found):
        raise TrainingError(f"data.noisy: none of {counted(unread, 'image')} can be read: {domain.advice()}")
    known = [level for level in found.values() if level is not None]
    if not known:
        raise TrainingError(
            f"data.noisy: none of {counted(len(found), 'image')} has a flat area on which its noise can be measured; "
            "set model.level: false"
        )
    middle = statistics.median(known)
    logger.info(
        "noisy: levels %.2f to %.2f of 255, median %.2f, %s without a flat area",
        255 * min(known),
        255 * max(known),
        255 * middle,
        counted(len(found) - len(known), "image"),
    )
    return {file: middle if level is None else level for file, level in found.items()}
