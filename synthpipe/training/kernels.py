"""A bank of blur kernels from two unpaired piles: crops are read, edges measured, kernels computed at once.

No step follows another here, so that the run has no checkpoints: it is a function of its options, and takes a minute.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.kernels import TrainKernelsOptions
from synthpipe.config.run import DomainOptions
from synthpipe.config.training import write_options
from synthpipe.errors import ShapeError, TrainingError
from synthpipe.images import to_float
from synthpipe.kernels.edges import edge_powers
from synthpipe.kernels.estimate import KernelEstimate, estimate_kernels
from synthpipe.kernels.response import FREQUENCIES, amplitudes
from synthpipe.training.data.readers import DomainReader, read_domain
from synthpipe.training.pictures import picture_grid
from synthpipe.training.run_folder import RunFolder

__all__ = ["compute"]

logger = logging.getLogger("synthpipe.training")

#: Crops that are read at once.
_AT_ONCE = 16
#: Columns of the picture of kernels, pixels for each of theirs, and between two of them.
_COLUMNS, _ZOOM, _GAP = 8, 4, 4


def compute(options: TrainKernelsOptions, stop: Callable[[], bool] = lambda: False) -> Path:
    """Estimate the kernels and write ``run_dir/final.safetensors``, which is what is returned.

    Args:
        options: of the run.
        stop: asked between crops; true ends the run without a result.

    Raises:
        TrainingError: the folder holds a result, too few edges in a pile, or stopped.
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
            found = estimate_kernels(clean, noisy, options.side, options.kernels, options.seed)
        except ShapeError as error:
            raise TrainingError(f"run_dir {str(folder.path)!r}: {error}") from error
        info = {"data": {"clean": about_clean, "noisy": about_noisy}, "seed": options.seed, **_about(found)}
        folder.log_numbers(options.data.crops, info["figures"])
        folder.save_picture(options.data.crops, _picture(found.bank.kernels))
        checkpoints.save(path, found.bank, info)
        logger.info("%d kernels in %s; data: %s", len(found.names), path, info["data"])
    return path


def _pile(
    name: str, domain: DomainOptions, options: TrainKernelsOptions, stop: Callable[[], bool]
) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Powers across the edges of each image, by its file or key; and where the images are from."""
    data = options.data
    count = min(_AT_ONCE, data.crops)
    reader: DomainReader = read_domain(name, domain, data, data.crop, range(count), options.seed)
    found: dict[str, list[Tensor]] = defaultdict(list)
    try:
        for batch in range(math.ceil(data.crops / count)):
            crops, keys = reader.next()
            for crop, key in list(zip(crops, keys, strict=True))[: data.crops - batch * count]:
                if stop():
                    raise TrainingError("stopped before all crops were read: there is no result; start the run again")
                found[key].append(edge_powers(to_float(crop)))
        described = reader.describe()
    finally:
        reader.close()
    return {key: torch.cat(powers) for key, powers in found.items()}, described


def _about(found: KernelEstimate) -> dict[str, Any]:
    """For the header: amplitudes of each kernel and of their mean at :data:`FREQUENCIES`, in cycles per pixel."""
    mean = amplitudes(found.bank.mean()[None])[0].tolist()
    own = amplitudes(found.bank.kernels).tolist()
    figures = {f"amplitude_{frequency:g}": value for frequency, value in zip(FREQUENCIES, mean, strict=True)}
    return {
        "frequencies": list(FREQUENCIES),
        "names": [Path(name).name for name in found.names],
        "amplitudes": [[round(value, 4) for value in row] for row in own],
        "edges": {"clean": found.edges[0], "noisy": found.edges[1]},
        "figures": figures | {"believed": float(found.believed.mean()) if len(found.believed) else 0.0},
    }


def _picture(kernels: Tensor) -> Tensor:
    """Kernels in rows, each as a share of its largest weight: 0 is grey, above it lighter."""
    shades = 0.5 + 0.5 * kernels / kernels.amax((1, 2), keepdim=True)
    tiles = shades.repeat_interleave(_ZOOM, 1).repeat_interleave(_ZOOM, 2)
    columns = min(_COLUMNS, len(tiles))
    blank = tiles.new_ones(-len(tiles) % columns, *tiles.shape[1:])
    return picture_grid(torch.cat([tiles, blank]).reshape(-1, columns, 1, *tiles.shape[1:]), _GAP)
