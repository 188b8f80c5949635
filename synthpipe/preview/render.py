"""What a stream makes, as a picture: clean | degraded | difference x8, and real degraded images beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthpipe import images
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import ImageError, StreamError
from synthpipe.files.folder_walk import expected_images
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.noise_statistics import NoiseStatistics, local_mean, measure_noise
from synthpipe.pipeline import build_stream
from synthpipe.preview.none_usable import none_usable
from synthpipe.preview.picture import Cell, draw_grid
from synthpipe.preview.tile_columns import Columns, Recorder, stage_columns, way_columns
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.chain import Chain

__all__ = [
    "Drawn",
    "Preview",
    "best_of_each",
    "degradation_of",
    "draw_patches",
    "interest",
    "make_preview",
    "real_candidates",
    "real_crops",
]

#: Side of a crop in LR pixels, unless the option file's patches are larger.
DEFAULT_CROP = 64
#: Sides below the first show and measure nothing; the second takes the place of such patches of the option file.
_LEAST_CROP, _SMALL_CROP = 9, 16
_AMPLIFY = 8
_CANDIDATES_PER_ROW = 8
#: Images of the real folder that are looked at, and crops of each.
_REAL_IMAGES = 8
_REAL_CROPS = 60
#: A preview is one short look: few tiles, upright, in this process, not mixed, and not endless.
_CHANGES = {
    "tile": None,
    "tiles_per_batch": 4,
    "patches_per_tile": 4,
    "batch_size": 4,
    "crops_per_image": 1,
    "hflip": False,
    "rotate": False,
    "pool": 0,
    "workers": 0,
    "prefetch": 0,
    "compile": False,  # a minute's work for four tiles, and only where there is a CUDA device
    "epochs": 1,
    "drop_last": False,
}


@dataclass(frozen=True)
class Preview:
    """The picture, and the statistics of what the degradation added in all crops that were looked at.

    ``passed_over`` counts what lay beside the images in the folder of real ones, by suffix or reason; ``given_up`` what
    the images that were looked at, of the stream and real ones, held beside 8-bit sRGB; ``skipped`` says why real ones
    that were looked at are not shown, a line each; ``absent`` names the stages that none of the crops drew.
    """

    picture: NDArray[np.uint8]
    degraded: NoiseStatistics
    rows: int
    passed_over: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    absent: Sequence[str] = ()


def make_preview(
    options: StreamOptions,
    *,
    real: str | Path | None = None,
    rows: int = 6,
    crop: int | None = None,
    zoom: int = 4,
    stages: bool = False,
    seen: int | None = None,
    device: torch.device | str = "cpu",
) -> Preview:
    """Draw ``rows`` crops of the stream that ``options`` describe.

    Args:
        options: of a stream with ``degrade``.
        real: folder of real degraded images to show beside them; crops of like brightness are looked for.
        rows: crops to show, of different images where the corpus has as many.
        crop: side in LR pixels; by default 64, or less where the corpus' images are smaller.
        zoom: enlargement by whole pixels.
        stages: show the crops behind each stage of the degradation, too.
        seen: how many samples a schedule takes as read before; None: those that the stream has read, few.
        device: where to degrade.

    Raises:
        OptionError: ``real`` does not exist.
        ImageError: no usable image in ``real``.
        StreamError: the stream cannot go on, or its images are too small for ``crop``.
    """
    given_up: Counter[str] = Counter()
    degrade = degradation_of(options, stages, seen)
    drawn = draw_patches(options, crop, rows * _CANDIDATES_PER_ROW, degrade, device, given_up)
    lq = drawn.lq
    clean = images.quantize_8bit(images.downscale_bicubic(drawn.gt, options.scale))
    scores = [interest(x) for x in clean]
    chosen = best_of_each(drawn.names, scores, rows)
    columns: list[tuple[str, list[Cell]]] = [("clean", [_pixels(clean[i]) for i in chosen])]
    behind, ways = _tile_columns(drawn, chosen, zoom, stages)
    columns += behind.named()
    columns.append(("degraded", [_pixels(lq[i]) for i in chosen]))
    columns += ways.named()
    passed_over: Counter[str] = Counter()
    skipped: list[str] = []
    if real is not None:
        candidates = real_candidates(Path(real), clean.shape[-1], options, passed_over, given_up, skipped)
        beside = real_crops(candidates, [clean[i] for i in chosen])
        columns.append(("real degraded", [_pixels(x) for x in beside]))
    difference: list[Cell] = [_pixels(0.5 + _AMPLIFY * (lq[i] - clean[i])) for i in chosen]
    columns.append((f"difference x{_AMPLIFY}", difference))
    statistics = measure_noise(zip(lq, clean, strict=True))
    cells = list(zip(*(column for _, column in columns), strict=True))
    picture = draw_grid([title for title, _ in columns], cells, zoom)
    lost = dict(sorted(given_up.items()))
    return Preview(picture, statistics, len(chosen), dict(passed_over), lost, skipped, behind.absent)


def interest(x: Tensor) -> float:
    """How much a crop shows, 0 to 1: both flat and detailed parts, and little that is clipped.

    Shapes: ``x`` ``(3, h, w)`` in [0, 1]; noise should be small beside the detail.
    """
    grey = x.mean(0, keepdim=True).to(torch.float64)
    spread = (local_mean(grey.square(), 7) - local_mean(grey, 7).square()).clamp(min=0).sqrt()
    # 3 / 255 is about the noise of a good photograph, 10 / 255 a clear texture or edge.
    flat, detailed = float((spread < 5 / 255).double().mean()), float((spread > 10 / 255).double().mean())
    clipped = float(((x < 4 / 255) | (x > 251 / 255)).any(0).double().mean())
    return 4 * min(flat, 0.5) * min(detailed, 0.5) * (1 - clipped)


class Drawn(NamedTuple):
    """The first patches of a stream with the file name of each; where tiles are wanted, also who knows them."""

    gt: Tensor
    lq: Tensor
    names: list[str]
    options: StreamOptions
    recorder: Recorder | None


def _tile_columns(drawn: Drawn, chosen: Sequence[int], zoom: int, stages: bool) -> tuple[Columns, Columns]:
    """Behind each stage, and one for each way of the choices."""
    if drawn.recorder is None:
        return Columns(), Columns()
    degrade = drawn.recorder.degrade
    crops = drawn.recorder.crops(drawn.names, chosen, drawn.options)
    behind = stage_columns(degrade, crops, zoom) if stages else Columns()
    return behind, way_columns(degrade, crops, zoom) if isinstance(degrade, Chain) else Columns()


def degradation_of(options: StreamOptions, stages: bool, seen: int | None) -> BatchTransform:
    """What the options say, with a memory where tiles are wanted."""
    assert options.degrade is not None
    degrade = build_degrade(options.degrade, options.scale)
    return Recorder(degrade, seen) if stages or degrade.has_choices or seen is not None else degrade


def draw_patches(
    options: StreamOptions,
    crop: int | None,
    count: int,
    degrade: BatchTransform,
    device: torch.device | str,
    given_up: Counter[str],
    most_crops: int = 1,
) -> Drawn:
    """About ``count`` patches of ``crop`` LR pixels, as far as one epoch goes; arguments as of `make_preview`.

    Where a crop of each image gives fewer, up to ``most_crops`` are cut, not more than it takes: all images have a say.
    """
    least = options.lq_size if options.lq_size >= _LEAST_CROP else _SMALL_CROP
    sizes = [crop] if crop is not None else sorted({max(DEFAULT_CROP, least), least}, reverse=True)
    given = options.model_dump(include=set(StreamOptions.model_fields))
    failures = []
    for size in sizes:
        changes = {**_CHANGES, "gt_size": size * options.scale}
        larger = parse_options({**given, **changes}, StreamOptions, source="preview")
        try:
            if most_crops > 1:
                with build_stream(larger, device=device, degrade=degrade) as stream:
                    planned = max(1, len(stream)) * larger.batch_size
                changes["crops_per_image"] = min(most_crops, max(1, round(count / planned)))
                larger = parse_options({**given, **changes}, StreamOptions, source="preview")
            with build_stream(larger, device=device, degrade=degrade) as stream:
                gt, lq, names = _collect(stream, count)
                given_up.update(stream.given_up())
                return Drawn(gt, lq, names, larger, degrade if isinstance(degrade, Recorder) else None)
        except StreamError as error:
            failures.append(f"crops of {size}: {error}")
    raise StreamError("no patches to show; " + "; ".join(failures))


def _collect(stream: Any, count: int) -> tuple[Tensor, Tensor, list[str]]:
    gt, lq, names = [], [], []
    for batch in stream:
        gt.append(batch["gt"].cpu())
        lq.append(batch["lq"].cpu())
        names += batch["gt_path"]
        if len(names) >= count:
            break
    if not names:
        raise StreamError("the stream gave no patches")
    return torch.cat(gt), torch.cat(lq), names


def best_of_each(names: Sequence[str], scores: Sequence[float], rows: int) -> list[int]:
    """The most telling crops, one of each image as far as that goes, in stream order."""
    order = sorted(range(len(names)), key=lambda i: -scores[i])
    seen: set[str] = set()
    first = [i for i in order if not (names[i] in seen or seen.add(names[i]))]  # type: ignore[func-returns-value]
    rest = [i for i in order if i not in first]
    return sorted((first + rest)[:rows])


def real_crops(candidates: Sequence[tuple[Tensor, float]], beside: Sequence[Tensor]) -> list[Tensor]:
    """For each given crop a real one of like brightness, all different."""
    chosen: list[Tensor] = []
    used: set[int] = set()
    for crop in beside:
        worth = [
            score - 2 * abs(float(x.mean() - crop.mean())) - (i in used) for i, (x, score) in enumerate(candidates)
        ]
        best = int(np.argmax(worth))
        used.add(best)
        chosen.append(candidates[best][0])
    return chosen


def real_candidates(
    folder: Path,
    side: int,
    options: StreamOptions,
    passed_over: Counter[str],
    given_up: Counter[str],
    skipped: list[str],
) -> list[tuple[Tensor, float]]:
    """Crops of real images, and how much each shows; what cannot be shown is told in ``skipped``."""
    rng = np.random.default_rng(options.seed)
    paths = list_images(folder, passed_over)
    if not paths:
        raise ImageError(f"{folder}: no real image for the preview: {expected_images(passed_over)}", "none")
    found: list[tuple[Tensor, float]] = []
    reasons: Counter[str] = Counter()
    for k in rng.permutation(len(paths)):
        try:
            pixels, lost = decode_file(paths[k], options.max_pixels)
        except ImageError as error:
            skipped.append(str(error))
            reasons[error.reason] += 1
            continue
        image = images.to_float(torch.from_numpy(pixels).permute(2, 0, 1))
        room = [length - side for length in image.shape[1:]]
        if min(room) < 0:
            skipped.append(f"{paths[k]}: {image.shape[1]}x{image.shape[2]} is smaller than the crop of {side}")
            reasons["too_small"] += 1
            continue
        given_up.update(lost)
        for _ in range(_REAL_CROPS):
            y, x = (int(rng.integers(0, r + 1)) for r in room)
            crop = image[:, y : y + side, x : x + side].clone()
            # Interest is judged without the noise that a real image has.
            found.append((crop, interest(local_mean(crop, 5))))
        if len(found) >= _REAL_IMAGES * _REAL_CROPS:
            break
    if not found:
        cures = {"too_small": "give larger images or a smaller --crop"}
        raise none_usable(f"{folder}: no usable real image for the preview", reasons, skipped, cures)
    return found


def _pixels(x: Tensor) -> NDArray[np.uint8]:
    return images.to_uint8(x).permute(1, 2, 0).contiguous().numpy()
