"""The report of a stream: noise that its degradation makes, against real images and against pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthpipe import images
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import ImageError, OptionError, counted
from synthpipe.files.folder_walk import expected_images, passed_over_text
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.flat_noise import noise_level
from synthpipe.noise_report import NoiseReport, PictureRow, make_report
from synthpipe.preview.asked_levels import draws_levels, level_near, opposite_levels
from synthpipe.preview.none_usable import none_usable
from synthpipe.preview.render import (
    Drawn,
    best_of_each,
    degradation_of,
    draw_patches,
    interest,
    real_candidates,
    real_crops,
)
from synthpipe.seeds import sample_seed
from synthpipe.transforms.whole_images import degrade_image

__all__ = ["stream_report"]

#: Patches of the stream that are measured, real images, and pairs.
_PATCHES, _REAL_IMAGES, _PAIRS = 400, 24, 24
#: Tiles cut from one image at most: a corpus of few images has as many flat areas all the same.
_TILES_PER_IMAGE = 4
#: LR side of what is looked at of a pair, in its middle.
_PAIR_SIDE = 512
#: Sides of tiles are multiples of this in LR pixels, which blocks of codecs and flows ask for.
_MULTIPLE = 16


def stream_report(
    options: StreamOptions,
    title: str,
    *,
    real: str | Path | None = None,
    pairs: tuple[str | Path, str | Path] | None = None,
    rows: int = 4,
    crop: int | None = None,
    seen: int | None = None,
    device: torch.device | str = "cpu",
    skipped: list[str] | None = None,
) -> NoiseReport:
    """Measure the stream that ``options`` describe.

    Args:
        options: of a stream with ``degrade``.
        title: of the report.
        real: folder of really degraded images, no pairs.
        pairs: folders of clean and of really degraded images, with equal names below them, of one scene each.
        rows: of pictures.
        crop: side in LR pixels; by default 64, or less where the corpus' images are smaller.
        seen: how many samples a schedule takes as read before.
        device: where to degrade.
        skipped: what could not be read, and pairs without a partner, are told here, a line each.

    Raises:
        OptionError: a folder that does not exist; no pair, one of sizes that do not fit, or more than one file that
            may be the partner.
        ImageError: no usable image in ``real`` or ``pairs``.
        StreamError: the stream cannot go on, or its images are too small for ``crop``.
    """
    told: list[str] = [] if skipped is None else skipped
    degrade = degradation_of(options, stages=False, seen=seen)
    drawn = draw_patches(options, crop, _PATCHES, degrade, device, Counter(), _TILES_PER_IMAGE)
    clean = _reduced(drawn)
    made = list(zip(clean, drawn.lq, strict=True))
    if draws_levels(degrade):
        with opposite_levels(degrade):
            again = draw_patches(options, crop, _PATCHES, degrade, device, Counter(), _TILES_PER_IMAGE)
        made += zip(_reduced(again), again.lq, strict=True)
    chosen = best_of_each(drawn.names, [interest(x) for x in clean], rows)
    beside: list[Tensor | None] = [None] * len(chosen)
    facts = {"scale": str(options.scale), "patches of the stream": f"{len(clean)} of {clean.shape[-1]} pixels"}
    if len(made) > len(clean):
        facts["patches of the stream"] += ", each at two levels"
    if real is not None:
        candidates = real_candidates(Path(real), clean.shape[-1], options, Counter(), Counter(), told)
        beside = list(real_crops(candidates, [clean[i] for i in chosen]))
        facts["real images"] = str(real)
    judged: list[tuple[Tensor, Tensor, Tensor]] = []
    if pairs is not None:
        reasons: Counter[str] = Counter()
        judged = list(_degraded_pairs(options, pairs, seen or 0, device, told, reasons))
        if not judged:
            raise none_usable(f"{pairs[0]}: no usable pair with {pairs[1]}", reasons, told)
        facts["pairs"] = f"{len(judged)} of {pairs[0]} and {pairs[1]}"
        facts["pairs"] += ", each at its own level" if draws_levels(degrade) else ""
    return make_report(
        title,
        made,
        None if real is None else _real_images(Path(real), options, told),
        pairs=judged,
        pictures=[PictureRow(clean[i], drawn.lq[i], crop) for i, crop in zip(chosen, beside, strict=True)],
        facts=facts,
    )


def _reduced(drawn: Drawn) -> Tensor:
    """What the patches are compared with: clean, at the size of ``lq``."""
    return images.quantize_8bit(images.downscale_bicubic(drawn.gt, drawn.options.scale))


def _real_images(folder: Path, options: StreamOptions, told: list[str]) -> Iterator[Tensor]:
    """Up to so many, drawn by the stream's seed; each decoded when it is its turn."""
    paths = list_images(folder)
    order = np.random.default_rng(options.seed).permutation(len(paths))
    for place in order[:_REAL_IMAGES]:
        image = _decoded(paths[place], options.max_pixels, told)
        if image is not None:
            yield image


def _decoded(path: Path, max_pixels: int, told: list[str], reasons: Counter[str] | None = None) -> Tensor | None:
    try:
        pixels, _ = decode_file(path, max_pixels)
    except ImageError as error:
        if str(error) not in told:  # a real image is looked at as a picture and as noise
            told.append(str(error))
        if reasons is not None:
            reasons[error.reason] += 1
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _degraded_pairs(
    options: StreamOptions,
    folders: tuple[str | Path, str | Path],
    seen: int,
    device: torch.device | str,
    told: list[str],
    reasons: Counter[str],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """``(clean, really degraded, degraded)`` at LR size, in [0, 1], from the middle of each pair.

    Where levels are drawn, the third has the level that the whole of the second tells, as who degrades photographs of
    one setting asks for it.
    """
    degrade = degradation_of(options, stages=False, seen=None).to(device)
    for number, (ours, theirs) in enumerate(_partners(folders, told)):
        found = [_decoded(path, options.max_pixels, told, reasons) for path in (ours, theirs)]
        if found[0] is None or found[1] is None:
            continue
        clean, noisy = (images.to_float(x) for x in found if x is not None)
        scale = options.scale
        if [side // scale for side in clean.shape[1:]] != list(noisy.shape[1:]):
            raise OptionError(
                f"--pairs: {ours} has {clean.shape[1]}x{clean.shape[2]} pixels, {theirs} {noisy.shape[1]}x"
                f"{noisy.shape[2]}; expected 1/{scale} of it, by the stream's scale"
            )
        sides = [min(_PAIR_SIDE, side // _MULTIPLE * _MULTIPLE) for side in noisy.shape[1:]]
        if min(sides) == 0:
            told.append(f"{theirs}: smaller than {_MULTIPLE} pixels")
            reasons["too_small"] += 1
            continue
        top, left = ((n - side) // 2 // _MULTIPLE * _MULTIPLE for n, side in zip(noisy.shape[1:], sides, strict=True))
        window = (slice(None), slice(top, top + sides[0]), slice(left, left + sides[1]))
        hr = clean[:, top * scale : (top + sides[0]) * scale, left * scale : (left + sides[1]) * scale][None]
        with level_near(degrade, noise_level(noisy) if draws_levels(degrade) else None):
            made = degrade_image(degrade, hr.to(device), sample_seed(options.seed, number, "pairs"), seen).cpu()
        reduced = images.quantize_8bit(images.downscale_bicubic(hr, scale))
        yield reduced[0], noisy[window], images.quantize_8bit(made)[0]


def _partners(folders: tuple[str | Path, str | Path], told: list[str]) -> list[tuple[Path, Path]]:
    """Files of equal names, whatever their suffixes, evenly spread over all there are."""
    named: list[dict[Path, list[Path]]] = []
    for folder in map(Path, folders):
        passed_over: Counter[str] = Counter()
        paths = list_images(folder, passed_over)
        if passed_over:
            told.append(f"{folder}: passed over: {passed_over_text(passed_over)}")
        if not paths:
            raise ImageError(f"{folder}: no image for --pairs: {expected_images(passed_over)}", "none")
        named.append({})
        for path in paths:
            named[-1].setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    ours, theirs = named
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise OptionError(f"--pairs: {folders[0]} and {folders[1]} have no file name in common")
    for mine, other, place in ((ours, theirs, 0), (theirs, ours, 1)):
        if alone := sorted(mine.keys() - other.keys()):
            count, first = counted(len(alone), "image"), mine[alone[0]][0].name
            told.append(f"{folders[place]}: {count} without a partner, the first {first}")
    pairs = [pair for name in common for pair in _of_one_name(ours[name], theirs[name])]
    return [pairs[place] for place in _spread(len(pairs))]


def _of_one_name(ours: list[Path], theirs: list[Path]) -> list[tuple[Path, Path]]:
    """Files that differ in their suffixes alone: by these where there are several.

    Raises:
        OptionError: a file of several has no partner with its suffix.
    """
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    if [path.suffix for path in ours] != [path.suffix for path in theirs]:
        raise OptionError(
            f"--pairs: which is whose partner? {' and '.join(map(str, [*ours, *theirs]))} differ in suffix alone; "
            "rename them, or leave all but one on each side"
        )
    return list(zip(ours, theirs, strict=True))


def _spread(many: int) -> list[int]:
    count = min(_PAIRS, many)
    return [place * many // count for place in range(count)]
