"""Options that are ``auto``, chosen by what two unpaired piles show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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

__all__ = ["choices_for", "choices_of", "choose", "crops_of", "images_of", "with_choices"]

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
    sides = [_side(name, domain, options, seed) for name, domain in (("clean", clean), ("noisy", noisy))]
    piles = measure_piles(crops_of(sides[0]), crops_of(sides[1]), images_of(sides[1]))
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


def _side(name: str, domain: DomainOptions, reading: ReadingOptions, seed: int) -> FolderDomain:
    """The images of one pile; TrainingError where there is none of 64 pixels."""
    cure = "give larger images, or set data.augment, data.align and resize_range yourself, not to auto"
    cures = TRAINING_CURES | {"too_small": cure}
    return FolderDomain(name, domain, reading, _SMALLEST, _CROPS, seed, cures=cures)


def crops_of(images: FolderDomain) -> list[Tensor]:
    """Crops ``(3, H, W)`` uint8 of 64 to 256 pixels for :func:`~synthpipe.training.data.piles.measure_piles`, by seed.

    Images that cannot be read are counted in ``skipped`` of ``images``.

    Raises:
        TrainingError: no image can be read.
    """
    order, draws = _order(images)
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


def images_of(images: FolderDomain) -> Iterator[Tensor]:
    """The images that :func:`crops_of` cuts from, whole and each once."""
    for number in _order(images)[0][:_CROPS]:
        image = images.image(number)
        if image is not None:
            yield image


def _order(images: FolderDomain) -> tuple[list[int], torch.Generator]:
    """Of the images, by their seed; and what goes on drawing."""
    draws = torch.Generator().manual_seed(sample_seed(images.seed, 0, f"piles-{images.name}"))
    return torch.randperm(len(images), generator=draws).tolist(), draws


def _align(options: UnpairedOptions, piles: Piles) -> int:
    """The grid's side, or half of it, if crops are multiples of that and are not resized."""
    if options.noisy.resize_range is not None:
        return 1
    sides = (side for side in (piles.align, 8) if piles.align >= side and options.crop % side == 0)
    return next(sides, 1)
