#!/usr/bin/env python
"""How well a scorer tells degraded tiles from clean ones, against each of its parts and the usual simple statistics.

    python tools/bench/filter.py --weights scorer_small --data ../shared/data
    python tools/bench/filter.py --pictures          # whole pictures, against NIQE of BasicSR (two minutes)

Whole held-out pictures (``clean_test``) are corrupted with Pillow, NumPy and SciPy, by other code and other seeds than
the scorer was fitted with; then the same 64x64 places are cut from picture and copy.  Two figures for each kind of
corruption: AUROC (0.5 is blind, below it prefers the bad tiles) and pair accuracy (share of tiles whose copy is ranked
worse than their own original).  A part that has no natural sign is given the one that suits it better on the mean.
``ours`` is the mean AUROC of the calibrated combination over all rows, ``peer`` that of the best single part.

With ``--pictures`` each whole picture gets one number, as ``synthpipe score`` gives it, from 4 and from 16 tiles; the
peer is NIQE of the whole picture, and the rows are those with an original.
"""

from __future__ import annotations

import argparse
import io
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import bench_parser, print_result
from scipy.ndimage import gaussian_filter, laplace
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.basicsr_plugin import register
from synthpipe.density.detection import auroc, pair_accuracy
from synthpipe.images import luma
from synthpipe.transforms.density import score_image

TILE = 64
#: Mostly text: a screenshot among the photographs.
TEXT_PICTURES = ("set14_ppt3.png",)
#: Scanned and drawn text of ``ood``.
TEXT_FOLDER_NAMES = ("bw_text.png", "page.png", "text.png")
SYNTHETIC_TILES = 100
FEW, MANY = 4, 16


def main() -> None:
    """Score, compare, print."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    scorer: Any = checkpoints.load(args.weights, kind="density_scorer")
    if args.pictures:
        compare_pictures(args, scorer)
        return
    clean, rows = test_tiles(args.data, args.tiles, args.seed, args.grey)
    good = badness(scorer, clean)
    bad = {row: badness(scorer, tiles) for row, tiles in rows.items()}
    signs = {name: better_sign(name, good, bad) for name in good}
    table = {name: table_of(name, signs[name], good, bad) for name in good}
    parts = {name: figures["mean"]["auroc"] for name, figures in table.items() if name != "degraded_logit"}
    best = max(parts, key=lambda name: parts[name])
    ours = table["degraded_logit"]["mean"]["auroc"]
    zlib_rows = table["zlib_bits"]["mean"]["auroc"]
    print_result(
        "filter_auroc",
        [ours],
        [parts[best]],
        "mean AUROC",
        torch.device("cpu"),
        save=args.save,
        weights=str(args.weights),
        tiles=len(clean),
        grey=args.grey,
        seed=args.seed,
        best_part=best,
        above_zlib_bits=round(ours - zlib_rows, 4),
        clean_dropped_where_80_percent_of_jpeg10_and_blur1_are=dropped_clean(good, bad),
        table=table,
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--weights", default="scorer_small", help="a density_scorer file or shipped name")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with clean_test and ood")
    parser.add_argument("--tiles", type=int, default=8, help="tiles from each picture (default 8)")
    parser.add_argument("--seed", type=int, default=20200107, help="of places and noise")
    parser.add_argument("--grey", action="store_true", help="turn the pictures grey before they are corrupted")
    parser.add_argument("--pictures", action="store_true", help="judge whole pictures, against NIQE")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not (args.data / "clean_test").is_dir():
        parser.error(f"--data: no folder {args.data / 'clean_test'}")
    return args


# --- the test set -----------------------------------------------------------------------------------------------------

Picture = np.ndarray  # (H, W, 3) uint8


def jpeg(picture: Picture, quality: int) -> Picture:
    """Through a JPEG file with Pillow's defaults (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def blur(picture: Picture, sigma: float) -> Picture:
    """Gaussian of ``sigma`` pixels."""
    return rounded(gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0)))


def upscaled(picture: Picture, factor: int) -> Picture:
    """Reduced and enlarged by Pillow's bicubic filter."""
    image = Image.fromarray(picture)
    small = image.resize((image.width // factor, image.height // factor), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def noisy(picture: Picture, sigma: float, rng: np.random.Generator, grey: bool) -> Picture:
    """White Gaussian noise, independent in each channel (one noise for all where ``grey``)."""
    shape = (*picture.shape[:2], 1) if grey else picture.shape
    return rounded(picture + rng.normal(0, sigma, shape))


def rounded(values: np.ndarray) -> Picture:
    """Back to 8 bits."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def corruptions(rng: np.random.Generator, grey: bool) -> dict[str, Callable[[Picture], Picture]]:
    """The rows that have an original beside them."""
    return {
        **{f"jpeg {quality}": partial(jpeg, quality=quality) for quality in (5, 10, 30, 75)},
        **{f"blur {sigma:g}": partial(blur, sigma=sigma) for sigma in (0.7, 1.0, 2.0)},
        "upscaled x2": partial(upscaled, factor=2),
        **{f"noise {sigma}": partial(noisy, sigma=sigma, rng=rng, grey=grey) for sigma in (5, 10, 25)},
    }


def test_tiles(data: Path, count: int, seed: int, grey: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Clean tiles ``(N, 3, 64, 64)``, and the tiles of each row; the paired rows in the order of the clean ones."""
    rng = np.random.default_rng(seed)
    kinds = corruptions(rng, grey)
    clean: list[Picture] = []
    rows: dict[str, list[Picture]] = {name: [] for name in (*kinds, "screenshots, text", "constant", "uniform noise")}
    for path in sorted((data / "clean_test").iterdir()):
        picture = read(path, grey)
        places = draw_places(picture, count, rng)
        if path.name in TEXT_PICTURES:
            rows["screenshots, text"] += cut(picture, places)
            continue
        clean += cut(picture, places)
        for name, corrupt in kinds.items():
            rows[name] += cut(corrupt(picture), places)
    for name in TEXT_FOLDER_NAMES:
        picture = read(data / "ood" / name, grey)
        rows["screenshots, text"] += cut(picture, draw_places(picture, 4 * count, rng))
    for _ in range(SYNTHETIC_TILES):
        colour = rng.integers(0, 256, 1 if grey else 3)
        rows["constant"].append(np.broadcast_to(colour, (TILE, TILE, 3)).astype(np.uint8))
        values = rng.integers(0, 256, (TILE, TILE, 1 if grey else 3))
        rows["uniform noise"].append(np.broadcast_to(values, (TILE, TILE, 3)).astype(np.uint8))
    return to_tensor(clean), {name: to_tensor(tiles) for name, tiles in rows.items()}


def read(path: Path, grey: bool) -> Picture:
    """An image as RGB, or as grey in three equal channels."""
    image = Image.open(path).convert("RGB")
    return np.asarray(image.convert("L").convert("RGB") if grey else image)


def draw_places(picture: Picture, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of ``count`` tiles."""
    height, width = picture.shape[:2]
    return [(int(rng.integers(height - TILE + 1)), int(rng.integers(width - TILE + 1))) for _ in range(count)]


def cut(picture: Picture, places: list[tuple[int, int]]) -> list[Picture]:
    """The tiles at ``places``."""
    return [picture[top : top + TILE, left : left + TILE] for top, left in places]


def to_tensor(tiles: list[Picture]) -> torch.Tensor:
    """``(N, 3, 64, 64)`` float32 in [0, 1]."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255


# --- whole pictures ---------------------------------------------------------------------------------------------------


def compare_pictures(args: argparse.Namespace, scorer: Any) -> None:
    """AUROC and pair accuracy of one number for each picture; prints."""
    names = (f"ours, {FEW} tiles", f"ours, {MANY} tiles", "NIQE")
    rng = np.random.default_rng(args.seed)
    kinds = {"clean": lambda picture: picture, **corruptions(rng, args.grey)}
    numbers: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name in names}
    for path in tqdm(sorted((args.data / "clean_test").iterdir()), unit="picture", disable=None):
        if path.name not in TEXT_PICTURES:
            for kind, corrupt in kinds.items():
                found = judge_picture(scorer, corrupt(read(path, args.grey)))
                for name, number in zip(names, found, strict=True):
                    numbers[name][kind].append(number)
    table = {}
    for name, rows in numbers.items():
        values = {kind: torch.tensor(row, dtype=torch.float64) for kind, row in rows.items()}
        clean = values.pop("clean")
        table[name] = {
            kind: {"auroc": round(auroc(clean, bad), 3), "pair": round(pair_accuracy(clean, bad), 3)}
            for kind, bad in values.items()
        }
    means = {name: sum(row["auroc"] for row in rows.values()) / len(rows) for name, rows in table.items()}
    ours, peer = [means[names[1]]], [means["NIQE"]]
    details = {"weights": str(args.weights), "means": {name: round(mean, 3) for name, mean in means.items()}}
    print_result(
        "filter_auroc_pictures", ours, peer, "mean AUROC", torch.device("cpu"), save=args.save, **details, table=table
    )


def judge_picture(scorer: Any, picture: Picture) -> tuple[float, float, float]:
    """Ours by few and by many tiles, and NIQE; higher is worse."""
    register()
    from basicsr.metrics.niqe import calculate_niqe

    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    few, many = (score_image(scorer, image, tiles)["degraded_logit"] for tiles in (FEW, MANY))
    return few, many, float(calculate_niqe(picture[..., ::-1].copy(), crop_border=0))


# --- what is compared -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def badness(scorer: Any, tiles: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every column of the scorer, and the simple statistics that are no part of it; ``(N,)`` each."""
    columns = torch.cat([scorer(chunk) for chunk in torch.split(tiles, 64)])
    grey = (luma(tiles)[:, 0] * 255).round().numpy()
    laplacian = torch.tensor([float(laplace(tile).var()) for tile in grey])
    coded = torch.tensor([len(zlib.compress(tile.astype(np.uint8).tobytes(), 9)) * 8 / TILE**2 for tile in grey])
    named = dict(zip(scorer.columns, columns.unbind(1), strict=True))
    # Fewer bits and less detail are worse.
    return {**named, "zlib_bits": -coded, "laplacian_variance": -laplacian}


def better_sign(name: str, good: dict[str, torch.Tensor], bad: dict[str, dict[str, torch.Tensor]]) -> int:
    """1 for what has a sign of its own, else the one with the higher mean AUROC."""
    if name in ("degraded_logit", "zlib_bits", "laplacian_variance") or name.startswith("log_energy"):
        return 1
    mean = sum(auroc(good[name], row[name]) for row in bad.values()) / len(bad)
    return 1 if mean >= 0.5 else -1


def table_of(
    name: str, sign: int, good: dict[str, torch.Tensor], bad: dict[str, dict[str, torch.Tensor]]
) -> dict[str, dict[str, float]]:
    """AUROC, pair accuracy where there are pairs, and the share found at 5 % false rejects, by row and on the mean."""
    clean = sign * good[name]
    limit = clean.quantile(0.95)
    table: dict[str, dict[str, float]] = {}
    for row, columns in bad.items():
        values = sign * columns[name]
        table[row] = {"auroc": auroc(clean, values), "found_at_5_percent": float((values > limit).float().mean())}
        if len(values) == len(clean) and row not in ("screenshots, text", "constant", "uniform noise"):
            table[row]["pair"] = pair_accuracy(clean, values)
    keys = ("auroc", "found_at_5_percent", "pair")
    table["mean"] = {
        key: sum(figures[key] for figures in table.values() if key in figures)
        / sum(key in figures for figures in table.values())
        for key in keys
    }
    return {row: {key: round(value, 3) for key, value in figures.items()} for row, figures in table.items()}


def dropped_clean(good: dict[str, torch.Tensor], bad: dict[str, dict[str, torch.Tensor]]) -> float:
    """Share of clean tiles above the threshold that drops 80 % of the JPEG 10 and blur 1 tiles."""
    damaged = torch.cat([bad["jpeg 10"]["degraded_logit"], bad["blur 1"]["degraded_logit"]])
    return round(float((good["degraded_logit"] > damaged.quantile(0.2)).float().mean()), 3)


if __name__ == "__main__":
    main()
