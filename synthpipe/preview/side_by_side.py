"""Several degradations of the same photographs in one picture: a column each, and the difference below each crop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthpipe import images
from synthpipe.config.degrade import ChoiceOptions, DegradeOptions
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.presets import ZOO
from synthpipe.config.reader import parse_options
from synthpipe.errors import ImageError
from synthpipe.files.folder_walk import expected_images
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.noise_statistics import NoiseStatistics, measure_noise
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.preview.none_usable import none_usable
from synthpipe.preview.picture import Cell, draw_grid
from synthpipe.preview.render import interest
from synthpipe.seeds import sample_seed
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.whole_images import degrade_image

__all__ = ["SideBySide", "degradations_by_name", "draw_side_by_side", "ways_of_file"]

_AMPLIFY = 8
#: LR pixels around each crop that are degraded and not shown, and of which its sides are a multiple: degradations
#: look over the border, and blocks of codecs begin where those of a whole image would.
_BORDER = 16
#: Windows of each photograph, of which the most telling is shown.
_CANDIDATES = 40
#: Side of a crop in LR pixels, unless the photographs are smaller: the greatest and the least.
_CROP, _LEAST_CROP = 64, 16


@dataclass(frozen=True)
class SideBySide:
    """The picture, what each degradation added to the crops by its name, and why photographs are not shown."""

    picture: NDArray[np.uint8]
    added: Mapping[str, NoiseStatistics]
    rows: int
    skipped: Sequence[str] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)


def degradations_by_name(text: str, scale: int) -> dict[str, DegradeOptions]:
    """``zoo``, or names of presets between commas, each as what it stands for.

    Raises:
        OptionError: a name that is none.
    """
    names = [name for part in text.split(",") for name in (ZOO if part == "zoo" else (part,))]
    return {
        name: parse_options({"degrade": name, "scale": scale}, DegradeFileOptions, source="preview").degrade
        for name in names
    }


def ways_of_file(degrade: DegradeOptions) -> dict[str, DegradeOptions]:
    """The ways of a choice by their names, or the one degradation that it is."""
    if isinstance(degrade, ChoiceOptions):
        return {name: branch.chain for name, branch in zip(degrade.names, degrade.of, strict=True)}
    return {"degraded": degrade}


def draw_side_by_side(
    degradations: Mapping[str, DegradeOptions],
    photos: str | Path,
    *,
    scale: int = 4,
    rows: int = 3,
    crop: int | None = None,
    zoom: int = 4,
    seed: int = 0,
    seen: int = 0,
    device: torch.device | str = "cpu",
) -> SideBySide:
    """Degrade the same crops in every way, each with draws of the same seeds.

    Args:
        degradations: by the titles of their columns.
        photos: folder of clean photographs.
        scale: HR side over LR side.
        rows: photographs to show.
        crop: side in LR pixels; None: 64, or less where the photographs are smaller.
        zoom: enlargement by whole pixels.
        seed: which photographs, and all randomness of the degradations.
        seen: how many samples a schedule takes as read before.
        device: where to degrade.

    Raises:
        OptionError: ``photos`` does not exist; a degradation that cannot be at this scale.
        ImageError: no photograph is large enough, or none can be read, or goes through a degradation.
        CheckpointError: weights that are missing or damaged.
    """
    built = {name: build_degrade(options, scale).to(device) for name, options in degradations.items()}
    passed_over: Counter[str] = Counter()
    skipped: list[str] = []
    reasons: Counter[str] = Counter()
    rng = np.random.default_rng(seed)
    least = scale * _shown(_LEAST_CROP if crop is None else crop)
    photographs = _photographs(Path(photos), least, rows, rng, passed_over, reasons, skipped)
    if not photographs:
        raise _no_photograph(photos, passed_over, reasons, skipped)
    crop = _fitting_crop(photographs, scale) if crop is None else crop
    cells: list[list[Cell]] = []
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in built}
    for number, photograph in enumerate(photographs):
        gt = _best_window(photograph, _shown(crop) * scale, scale, rng)[None]
        clean = _inside(images.quantize_8bit(images.downscale_bicubic(gt, scale)), crop)
        seeds = sample_seed(seed, number, "side by side")
        made = {
            name: _inside(images.quantize_8bit(degrade_image(degrade, gt.to(device), seeds, seen).cpu()), crop)
            for name, degrade in built.items()
        }
        cells.append([_pixels(clean), *(_pixels(lq) for lq in made.values())])
        cells.append([None, *(_pixels(0.5 + _AMPLIFY * (lq - clean)) for lq in made.values())])
        for name, lq in made.items():
            pairs[name].append((lq, clean))
    picture = draw_grid(["clean", *built], cells, zoom, f"difference x{_AMPLIFY}")
    added = {name: measure_noise(of_name) for name, of_name in pairs.items()}
    return SideBySide(picture, added, len(cells) // 2, skipped, dict(passed_over))


def _no_photograph(
    photos: str | Path, passed_over: Counter[str], reasons: Counter[str], skipped: Sequence[str]
) -> ImageError:
    what = f"{photos}: no photograph for the picture"
    if not skipped:
        return ImageError(f"{what}; {expected_images(passed_over)}", "none")
    cures = {
        "too_small": "give larger photographs, or a smaller --crop or --scale",
        "bomb": "reduce photographs of so many pixels",
    }
    return none_usable(what, reasons, skipped, cures)


def _photographs(
    folder: Path,
    least: int,
    count: int,
    rng: np.random.Generator,
    passed_over: Counter[str],
    reasons: Counter[str],
    skipped: list[str],
) -> list[Tensor]:
    """Up to ``count``, ``(3, H, W)`` in [0, 1] with sides of at least ``least``, in a drawn order."""
    found: list[Tensor] = []
    paths = list_images(folder, passed_over)
    for number in rng.permutation(len(paths)):
        try:
            pixels, _ = decode_file(paths[number], MAX_PIXELS)
        except ImageError as error:
            skipped.append(str(error))
            reasons[error.reason] += 1
            continue
        if min(pixels.shape[:2]) < least:
            skipped.append(f"{paths[number]}: {pixels.shape[0]}x{pixels.shape[1]} is smaller than {least}")
            reasons["too_small"] += 1
            continue
        found.append(images.to_float(torch.from_numpy(pixels).permute(2, 0, 1)))
        if len(found) == count:
            break
    return found


def _shown(crop: int) -> int:
    """LR pixels of a side that are degraded: the crop and its border, whole blocks of codecs."""
    return crop + 2 * _BORDER + -crop % _BORDER


def _fitting_crop(photographs: Sequence[Tensor], scale: int) -> int:
    smallest = min(min(photograph.shape[1:]) for photograph in photographs) // scale
    return min(_CROP, (smallest - 2 * _BORDER) // _BORDER * _BORDER)


def _best_window(image: Tensor, side: int, scale: int, rng: np.random.Generator) -> Tensor:
    windows = []
    for _ in range(_CANDIDATES):
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[1:])
        windows.append(image[:, top : top + side, left : left + side])
    worth = [interest(images.downscale_bicubic(window[None], scale)[0]) for window in windows]
    return windows[int(np.argmax(worth))].clone()


def _inside(x: Tensor, crop: int) -> Tensor:
    """``(3, crop, crop)`` of one image with its border."""
    return x[0, :, _BORDER : _BORDER + crop, _BORDER : _BORDER + crop]


def _pixels(x: Tensor) -> NDArray[np.uint8]:
    return images.to_uint8(x).permute(1, 2, 0).contiguous().numpy()
