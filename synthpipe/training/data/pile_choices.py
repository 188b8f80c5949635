"""Options that are ``auto``, chosen by what two unpaired piles show."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.errors import TrainingError
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.seeds import sample_seed
from synthpipe.training.data.folder_domain import TRAINING_CURES, FolderDomain
from synthpipe.training.data.piles import Piles, measure_piles

__all__ = ["choices_for", "choices_of", "choose", "crops_of", "pile_crops", "with_choices"]

logger = logging.getLogger("synthpipe.training")

#: Crops of each pile that are measured, their largest and smallest side, and what their corners are multiples of.
_CROPS, _LARGEST, _SMALLEST, _STEP = 24, 256, 64, 16


def choose(options: UnpairedOptions, seed: int) -> tuple[UnpairedOptions, Piles | None]:
    """``options`` with values in place of ``auto``, and what they were chosen by; None where nothing is ``auto``.

    A function of its arguments and the files, so that all processes of a run, and the run when it is resumed, choose
    the same.  What was found and chosen is logged.

    Raises:
        TrainingError: a pile without usable images.
    """
    if not options.measured:
        return options, None
    clean = options.clean.model_copy(update={"resize_range": None})
    noisy = options.noisy.model_copy(update={"resize_range": None})
    piles = measure_piles(pile_crops("clean", clean, options, seed), pile_crops("noisy", noisy, options, seed))
    for line in piles.words():
        logger.info("piles: %s", line)
    found = choices_for(options, piles)
    given = {"augment": options.augment, "align": options.align, "resize_range": options.clean.resize_range}
    chosen = {name: found[name] if value == "auto" else value for name, value in given.items()}
    logger.info("piles: chosen: augment %(augment)s, align %(align)s, clean.resize_range %(resize_range)s", chosen)
    return with_choices(options, chosen), piles


def choices_for(options: UnpairedOptions, piles: Piles) -> dict[str, Any]:
    """What each option that may be ``auto`` is by what was measured, whatever ``options`` say of it."""
    return {"augment": piles.augment, "align": _align(options, piles), "resize_range": piles.resize_range}


def choices_of(options: UnpairedOptions) -> dict[str, Any]:
    """The values of what may be ``auto``: what JSON can hold."""
    size = options.clean.resize_range
    return {
        "augment": options.augment,
        "align": options.align,
        "resize_range": list(size) if isinstance(size, tuple) else size,
    }


def with_choices(options: UnpairedOptions, choices: dict[str, Any]) -> UnpairedOptions:
    """``options`` with the values of :func:`choices_of`.

    Raises:
        OptionError: values that these options do not take.
    """
    values = options.model_dump(mode="json")
    values |= {"augment": choices["augment"], "align": choices["align"]}
    values["clean"] |= {"resize_range": choices["resize_range"]}
    return parse_options(values, UnpairedOptions)


def pile_crops(name: str, domain: DomainOptions, reading: ReadingOptions, seed: int) -> list[Tensor]:
    """Crops ``(3, H, W)`` uint8 of 64 to 256 pixels for :func:`~synthpipe.training.data.piles.measure_piles`, by seed.

    Args:
        name: of the domain, for messages and in the randomness.
        domain: where the images are; not resized.
        reading: how they are read.
        seed: of the run.

    Raises:
        TrainingError: no folder, or no image of 64 pixels that can be read.
    """
    cure = "give larger images, or set data.augment, data.align and resize_range yourself, not to auto"
    cures = TRAINING_CURES | {"too_small": cure}
    return crops_of(FolderDomain(name, domain, reading, _SMALLEST, _CROPS, seed, cures=cures))


def crops_of(images: FolderDomain) -> list[Tensor]:
    """The same of images that are listed already; those that cannot be read are counted there, in ``skipped``."""
    draws = torch.Generator().manual_seed(sample_seed(images.seed, 0, f"piles-{images.name}"))
    order = torch.randperm(len(images), generator=draws).tolist()
    crops = []
    for place in range(_CROPS):
        image = images.image(order[place % len(order)])
        if image is None:
            continue
        side = min(_LARGEST, *(n // _STEP * _STEP for n in image.shape[1:]))
        top, left = (
            _STEP * int(torch.randint((n - side) // _STEP + 1, (1,), generator=draws)) for n in image.shape[1:]
        )
        crops.append(image[:, top : top + side, left : left + side].clone())
    if not crops:
        raise TrainingError(
            f"{images.name}: none of the images that were tried in {', '.join(images.options.places)} can be read "
            f"({passed_over_text(images.skipped)}), such as {images.files[0]!r}: check the files; "
            f"{images.advice()}"
        )
    return crops


def _align(options: UnpairedOptions, piles: Piles) -> int:
    """The grid's side, or half of it, if crops are multiples of that and are not resized."""
    if options.noisy.resize_range is not None:
        return 1
    sides = (side for side in (piles.align, 8) if piles.align >= side and options.crop % side == 0)
    return next(sides, 1)
