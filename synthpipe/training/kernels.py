"""A bank of blur kernels from two unpaired piles: images are read, spectra and edges measured, kernels computed.

No step follows another here, so that the run has no checkpoints: it is a function of its options, and takes a minute.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.kernels import TrainKernelsOptions
from synthpipe.config.run import DomainOptions
from synthpipe.config.training import write_options
from synthpipe.errors import ShapeError, TrainingError, counted
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.images import to_float
from synthpipe.kernels import KernelBank
from synthpipe.kernels.estimate import estimate_kernels
from synthpipe.kernels.evidence import LEAST_TILE, Evidence, Pile, evidence_of, together
from synthpipe.kernels.joint import estimate_groups
from synthpipe.kernels.response import FREQUENCIES, amplitudes
from synthpipe.kernels.spectral_model import LEAST_IMAGES
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.readers import DomainReader, read_domain
from synthpipe.training.pictures import picture_grid
from synthpipe.training.run_folder import RunFolder

__all__ = ["compute"]

logger = logging.getLogger("synthpipe.training")

#: What is known of an image.
_Each = TypeVar("_Each")

#: Crops of a pile that is not read whole, and how many are read at once.
_CROPS, _AT_ONCE = 2000, 16
#: How often the estimate is made again for its standard error.
_RESAMPLINGS = 60
#: Images of a folder that has a kernel of its own.
_LEAST_OF_FOLDER = 8
#: Columns of the picture of kernels, pixels for each of theirs, and between two of them.
_COLUMNS, _ZOOM, _GAP = 8, 4, 4


def compute(options: TrainKernelsOptions, stop: Callable[[], bool] = lambda: False) -> Path:
    """Estimate the kernels and write ``run_dir/final.safetensors``, which is what is returned.

    Args:
        options: of the run.
        stop: asked between images or crops; true ends the run without a result.

    Raises:
        TrainingError: the folder holds a result, no image of a pile can be read, one has too few edges or too few
            images with detail, or stopped.
        OptionError: a run_dir that cannot be used.
    """
    folder = RunFolder(options.run_dir, writes=True)
    folder.check(options)
    path = folder.path / "final.safetensors"
    if path.exists():
        raise TrainingError(f"run_dir {str(folder.path)!r} already holds a result; choose another run_dir")
    (folder.path / "samples").mkdir(parents=True, exist_ok=True)
    write_options(folder.path / "options.yml", options)
    with folder.open(None):
        clean, about_clean = _pile("clean", options.data.clean, options, stop)
        noisy, about_noisy = _pile("noisy", options.data.noisy, options, stop)
        try:
            bank, about = (
                _by_edges(clean, noisy, options) if options.estimator == "edges" else _by_spectra(clean, noisy, options)
            )
        except ShapeError as error:
            raise TrainingError(f"run_dir {str(folder.path)!r}: {error}") from error
        info = {
            "data": {"clean": about_clean, "noisy": about_noisy},
            "seed": options.seed,
            "estimator": options.estimator,
            **about,
            **_amplitudes_of(bank),
        }
        info["figures"] |= about.get("figures", {})
        looked_at = options.data.crops or len(noisy)
        folder.log_numbers(looked_at, info["figures"])
        folder.save_picture(looked_at, _picture(bank.kernels))
        checkpoints.save(path, bank, info)
        logger.info("%s in %s", counted(len(bank.kernels), "kernel"), path)
        folder.log_data(info["data"])
    return path


def _pile(
    name: str, domain: DomainOptions, options: TrainKernelsOptions, stop: Callable[[], bool]
) -> tuple[Pile, dict[str, Any]]:
    """What each image tells, by its file or key; and where the images are from."""
    as_they_are = domain.shards is None and domain.resize_range is None and domain.blur is None
    if options.data.crops is None and as_they_are:
        return _whole_pile(name, domain, options, stop)
    return _pile_of_crops(name, domain, options, options.data.crops or _CROPS, stop)


def _whole_pile(
    name: str, domain: DomainOptions, options: TrainKernelsOptions, stop: Callable[[], bool]
) -> tuple[Pile, dict[str, Any]]:
    """All of each image once; of piles beyond ``data.megapixels`` tiles of each, and every so many images."""
    data = options.data
    images = FolderDomain(name, domain, data, data.crop, 1, options.seed)
    total, limit = sum(height * width for height, width in images.sizes), round(1e6 * data.megapixels)
    numbers, spare = [*range(len(images))], dict[int, list[int]]()
    if total > limit:
        numbers, spare = _part_of(images.files, min(len(images), max(limit // LEAST_TILE**2, LEAST_IMAGES)))
    pixels = limit // len(numbers) if total > limit else None
    found = {}
    for number in numbers:
        if stop():
            raise TrainingError("stopped before all images were read: there is no result; start the run again")
        others = spare.get(number, [])
        while (image := images.image(number)) is None and others:  # another one of its group stands for a broken one
            number = others.pop()
        if image is not None:
            found[images.files[number]] = _evidence(to_float(image), options, pixels)
    if not found:
        raise TrainingError(
            f"{name}: none of {counted(len(numbers), 'image')} can be read ({passed_over_text(images.skipped)}), such "
            f"as {images.files[0]!r}: check the files in {', '.join(domain.places)}; {images.advice()}"
        )
    if pixels is not None:
        logger.info(
            "%s: %.1f megapixels of %.1f are read, from %d of %s: see data.megapixels",
            name,
            max(limit, LEAST_TILE**2 * len(found)) / 1e6,
            total / 1e6,
            len(found),
            counted(len(images), "image"),
        )
    return found, images.describe() | {"read": len(found)}


def _part_of(files: Sequence[str], count: int) -> tuple[list[int], dict[int, list[int]]]:
    """Numbers of about ``count`` files, spread evenly, no fewer of a group than it needs for a kernel of its own; and
    for each of them the numbers left of its group, which is one list for all of the group."""
    chosen = {int((place + 0.5) * len(files) / count) for place in range(count)}
    spare: dict[int, list[int]] = {}
    groups = _by_folder({file: number for number, file in enumerate(files)}).values()
    for members in (list(group.values()) for group in groups):
        least = min(_LEAST_OF_FOLDER, len(members)) if len(groups) > 1 else 0
        if len(chosen.intersection(members)) < least:
            chosen.difference_update(members)
            chosen.update(members[int((place + 0.5) * len(members) / least)] for place in range(least))
        left = [number for number in reversed(members) if number not in chosen]
        spare.update((number, left) for number in members if number in chosen)
    return sorted(chosen), spare


def _pile_of_crops(
    name: str, domain: DomainOptions, options: TrainKernelsOptions, number: int, stop: Callable[[], bool]
) -> tuple[Pile, dict[str, Any]]:
    """The same of crops drawn at random."""
    data = options.data
    count = min(_AT_ONCE, number)
    reader: DomainReader = read_domain(name, domain, data, data.crop, range(count), options.seed)
    found: dict[str, list[Evidence]] = defaultdict(list)
    try:
        for batch in range(math.ceil(number / count)):
            crops, keys = reader.next()
            for crop, key in list(zip(crops, keys, strict=True))[: number - batch * count]:
                if stop():
                    raise TrainingError("stopped before all crops were read: there is no result; start the run again")
                found[key].append(_evidence(to_float(crop), options))
        described = reader.describe()
    finally:
        reader.close()
    return {key: together(crops) for key, crops in found.items()}, described


def _evidence(image: Tensor, options: TrainKernelsOptions, pixels: int | None = None) -> Evidence:
    edges, spectra = options.estimator != "spectra", options.estimator != "edges"
    return evidence_of(image, edges, spectra, pixels)


def _by_edges(clean: Pile, noisy: Pile, options: TrainKernelsOptions) -> tuple[KernelBank, dict[str, Any]]:
    """A kernel for each image, and what the header says of it."""
    sharp, blurred = ({key: each.edges for key, each in pile.items()} for pile in (clean, noisy))
    found = estimate_kernels(sharp, blurred, options.side, options.kernels, options.seed)
    believed = float(found.believed.mean()) if len(found.believed) else 0.0
    about = {"edges": {"clean": found.edges[0], "noisy": found.edges[1]}, "figures": {"believed": believed}}
    return found.bank, {"names": [Path(name).name for name in found.names], **about}


def _by_spectra(clean: Pile, noisy: Pile, options: TrainKernelsOptions) -> tuple[KernelBank, dict[str, Any]]:
    """A kernel for each folder of the degraded images, and what the header says of it."""
    groups = _by_folder(noisy)
    teller: Literal["both", "spectra"] = "both" if options.estimator == "both" else "spectra"
    found = estimate_groups(clean, groups, options.side, teller, options.chroma, _RESAMPLINGS)
    shares = [round(share, 3) for share in found.edge_shares]
    images = [len(groups[name]) for name in found.names]
    names = [PurePath(name).name or "all" for name in found.names]
    errors = [[round(value, 4) for value in row] for row in found.errors.tolist()]
    for name, own, error, count in zip(names, amplitudes(found.bank.kernels).tolist(), errors, images, strict=True):
        told = ", ".join(
            f"{amplitude:.2f} +- {spread:.2f} at {frequency:g}"
            for frequency, amplitude, spread in zip(FREQUENCIES, own, error, strict=True)
        )
        logger.info(
            "%s, %s: amplitude and its standard error: %s cycles per pixel", name, counted(count, "image"), told
        )
    worst = found.errors.amax(0).tolist()
    figures = {f"error_{frequency:g}": value for frequency, value in zip(FREQUENCIES, worst, strict=True)}
    return found.bank, {
        "names": names,
        "edge_shares": shares,
        "images": images,
        "amplitude_errors": errors,
        "figures": figures,
    }


def _by_folder(pile: Mapping[str, _Each]) -> dict[str, dict[str, _Each]]:
    """Images by the folder that they lie in; folders of few images together, as one."""
    folders: dict[str, dict[str, _Each]] = defaultdict(dict)
    for key, each in pile.items():
        folders[str(PurePath(key).parent)][key] = each
    small = [name for name, images in folders.items() if len(images) < _LEAST_OF_FOLDER]
    if len(small) > 1:
        joined = {key: each for name in small for key, each in folders.pop(name).items()}
        # A folder of that name may have a kernel of its own; no path ends in a slash.
        folders["others/" if "others" in folders else "others"] = joined
    return dict(folders)


def _amplitudes_of(bank: KernelBank) -> dict[str, Any]:
    """For the header: amplitudes of each kernel and of their mean at :data:`FREQUENCIES`, in cycles per pixel."""

    def rows(kernels: Tensor) -> list[list[float]]:
        return [[round(value, 4) for value in row] for row in amplitudes(kernels).tolist()]

    mean = amplitudes(bank.mean()[None])[0].tolist()
    about: dict[str, Any] = {"frequencies": list(FREQUENCIES), "amplitudes": rows(bank.kernels)}
    if bank.chroma is not None:
        about["chroma_amplitudes"] = rows(bank.chroma)
    about["figures"] = {f"amplitude_{frequency:g}": value for frequency, value in zip(FREQUENCIES, mean, strict=True)}
    return about


def _picture(kernels: Tensor) -> Tensor:
    """Kernels in rows, each as a share of its largest weight: 0 is grey, above it lighter."""
    shades = 0.5 + 0.5 * kernels / kernels.amax((1, 2), keepdim=True)
    tiles = shades.repeat_interleave(_ZOOM, 1).repeat_interleave(_ZOOM, 2)
    columns = min(_COLUMNS, len(tiles))
    blank = tiles.new_ones(-len(tiles) % columns, *tiles.shape[1:])
    return picture_grid(torch.cat([tiles, blank]).reshape(-1, columns, 1, *tiles.shape[1:]), _GAP)
