#!/usr/bin/env python
"""How well a scorer tells degraded tiles from clean ones, against each of its parts and the usual simple statistics.

    python tools/bench/filter.py --weights scorer_kinds --data ../shared/data
    python tools/bench/filter.py --real              # noisy photographs against their references, and reliability
    python tools/bench/filter.py --pictures          # whole pictures, against NIQE of BasicSR (two minutes)

Whole held-out pictures (``clean_test``) are corrupted with Pillow, NumPy and SciPy, by other code and other seeds than
the scorer was fitted with; then the same 64x64 places are cut from picture and copy.  Two figures for each kind of
corruption: AUROC (0.5 is blind, below it prefers the bad tiles) and pair accuracy (share of tiles whose copy is ranked
worse than their own original).  A part that has no natural sign is given the one that suits it better on the mean.
``ours`` is the mean AUROC of ``degraded_logit`` over the rows that there were first, ``peer`` that of the best single
part; rows that were added later stand in the table and not in the mean.  Of a scorer that tells kinds apart, ``own`` is
the AUROC of the detectors whose kind a row is of.

With ``--real`` the noisy shots of real pairs are told from their references, each picture by one number of 16 tiles, as
``synthpipe score`` gives it: by ``p_noise`` and by ``degraded_logit``, on the pairs that settings may be chosen on and
on those that only judge.  A scorer by kinds is also asked whether its probabilities are true: on mixtures of
degradations of held-out pictures, the share that has a kind is compared with the mean probability, at even odds, in
five bins, which are merged until each rests on 20 pictures (``equal_bins_bias`` is of the bins as they were).

With ``--pictures`` each whole picture gets one number, as ``synthpipe score`` gives it, from 4 and from 16 tiles; the
peer is NIQE of the whole picture, and the rows are those with an original.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filter_sets import NEW_OWN_KIND, OWN_KIND, TEXT_PICTURES, TILE, Picture, corruptions, read, real_pairs, test_tiles
from report import bench_parser, print_result
from scipy.ndimage import laplace
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.basicsr_plugin import register
from synthpipe.density.detection import auroc, pair_accuracy
from synthpipe.density.kinds import KindScorer, probability_column
from synthpipe.images import downscale_bicubic, luma, to_float
from synthpipe.seeds import sample_seed
from synthpipe.training.kinds import draw_mixture
from synthpipe.training.kinds.calibrate import reliability
from synthpipe.transforms.density import load_scorer, score_image

FEW, MANY = 4, 16
#: Copies of each held-out picture, as it is and halved, for the reliability of probabilities.
MIXTURES = 16


def main() -> None:
    """Score, compare, print."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    scorer: Any = load_scorer(args.weights)
    if args.pictures or args.real:
        (compare_pictures if args.pictures else judge_real)(args, scorer)
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
        own=own_kinds(scorer, good, bad),
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
    parser.add_argument("--real", action="store_true", help="judge real noisy photographs, and probabilities")
    parser.add_argument("--pictures", action="store_true", help="judge whole pictures, against NIQE")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not (args.data / "clean_test").is_dir():
        parser.error(f"--data: no folder {args.data / 'clean_test'}")
    return args


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


# --- real pairs, and mixtures -----------------------------------------------------------------------------------------


def judge_real(args: argparse.Namespace, scorer: Any) -> None:
    """AUROC and pair accuracy on real pairs, and how true the probabilities are; prints."""
    by_kinds = isinstance(scorer, KindScorer)
    columns = ("degraded_logit", *(map(probability_column, scorer.kinds) if by_kinds else ()))
    found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    for name, judged, shot, reference in tqdm([*real_pairs(args.data)], unit="pair", disable=None):
        both = numbers_of(scorer, shot), numbers_of(scorer, reference)
        found.setdefault(f"{name}, {'judged' if judged else 'chosen on'}", []).append(both)
    for name in ("polyu", "sidd"):
        found[f"{name}, all"] = [*found[f"{name}, judged"], *found[f"{name}, chosen on"]]
    table = {}
    for row, pairs in found.items():
        for column in columns:
            noisy, clean = (torch.tensor([side[column] for side in sides]) for sides in zip(*pairs, strict=True))
            figures = {"auroc": auroc(clean, noisy), "pair": pair_accuracy(clean, noisy)}
            limit = 0.0 if column == "degraded_logit" else 0.5
            figures |= {"noisy_above": share_above(noisy, limit), "clean_above": share_above(clean, limit)}
            table[f"{row}: {column}"] = {key: round(value, 3) for key, value in figures.items()}
    decisive = "p_noise" if by_kinds else "degraded_logit"
    print_result(
        "filter_auroc_real",
        [table[f"polyu, judged: {decisive}"]["auroc"]],
        [table["polyu, judged: degraded_logit"]["auroc"]],
        "AUROC",
        torch.device("cpu"),
        save=args.save,
        weights=str(args.weights),
        reliability=mixtures_reliability(args, scorer) if by_kinds else None,
        table=table,
    )


def share_above(values: torch.Tensor, limit: float) -> float:
    """Share of the values above ``limit``."""
    return float((values > limit).float().mean())


def numbers_of(scorer: Any, picture: Picture) -> dict[str, float]:
    """All numbers of one picture, of 16 tiles."""
    return score_image(scorer, torch.from_numpy(picture.copy()).permute(2, 0, 1), MANY)


def mixtures_reliability(args: argparse.Namespace, scorer: KindScorer) -> dict[str, Any]:
    """Of mixtures of ``clean_test``, which no fit saw; the mixtures are those of the fit, with other draws.

    Pictures as they are have grain of their own (film, scanned), which no label knows of; halved ones have less.
    """
    noises: Any = [checkpoints.load(weights, kind="deflow") for weights in ("canon_5d2", "autochrome")]
    rows = {}
    for name, factor in (("as they are", 1), ("halved", 2)):
        logits, labels, owners = [], [], []
        for place, path in enumerate(tqdm(sorted((args.data / "clean_test").iterdir()), unit="picture", disable=None)):
            if path.name in TEXT_PICTURES:
                continue
            image = to_float(torch.from_numpy(read(path, args.grey).copy()).permute(2, 0, 1))
            image = downscale_bicubic(image[None, :, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2], factor)[0]
            for number in range(MIXTURES):
                with torch.no_grad():
                    mixture = draw_mixture(image, sample_seed(args.seed, number, path.name), 2.5, noises)
                numbers = score_image(scorer, mixture.image[0], MANY)
                chances = torch.tensor([numbers[probability_column(kind)] for kind in scorer.kinds])
                logits.append(torch.logit(chances.double(), eps=1e-9))
                labels.append(mixture.labels)
                owners.append(place)
        rows[name] = reliability(scorer.kinds, torch.stack(logits), torch.stack(labels), torch.tensor(owners))
    return rows


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
    if name in ("degraded_logit", "zlib_bits", "laplacian_variance") or name.startswith(("log_energy", "p_")):
        return 1
    mean = sum(auroc(good[name], bad[row][name]) for row in OWN_KIND) / len(OWN_KIND)
    return 1 if mean >= 0.5 else -1


def own_kinds(
    scorer: Any, good: dict[str, torch.Tensor], bad: dict[str, dict[str, torch.Tensor]]
) -> dict[str, dict[str, float]]:
    """AUROC of the detectors that should see each row; empty for a scorer of one number."""
    if not isinstance(scorer, KindScorer):
        return {}
    kinds = {row: (kind,) for row, kind in OWN_KIND.items()} | NEW_OWN_KIND
    return {
        row: {
            kind: round(auroc(good[probability_column(kind)], bad[row][probability_column(kind)]), 3)
            for kind in kinds[row]
        }
        for row in bad
    }


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
    counted = [figures for row, figures in table.items() if row in OWN_KIND]
    table["mean"] = {
        key: sum(figures[key] for figures in counted if key in figures) / sum(key in figures for figures in counted)
        for key in keys
    }
    return {row: {key: round(value, 3) for key, value in figures.items()} for row, figures in table.items()}


def dropped_clean(good: dict[str, torch.Tensor], bad: dict[str, dict[str, torch.Tensor]]) -> float:
    """Share of clean tiles above the threshold that drops 80 % of the JPEG 10 and blur 1 tiles."""
    damaged = torch.cat([bad["jpeg 10"]["degraded_logit"], bad["blur 1"]["degraded_logit"]])
    return round(float((good["degraded_logit"] > damaged.quantile(0.2)).float().mean()), 3)


if __name__ == "__main__":
    main()
