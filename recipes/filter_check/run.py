"""Does filtering a spoilt corpus help what is trained on it?  Small networks, same steps, other parts of the corpus.

    python recipes/filter_check/run.py --weights scorer_small --data ../shared/data

The corpus: tiles of clean photographs of which 0, 30 or 50 % are compressed, blurred or enlarged.  Arms: all of it;
a random part; what the filter keeps; the clean tiles alone.  See README.md.

Each finished arm is kept in ``--out`` and skipped when the command is given again; ``--quick`` tries the whole in about
a minute, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import Mask, Size, load_pictures, mean_psnr_y, train
from contamination import CORRUPTIONS, Corpus, contaminated, make_corpus
from numpy.typing import NDArray
from real_shots import make_real_corpus
from torch import Tensor
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.basicsr_plugin.compat import prepare as prepare_basicsr
from synthpipe.transforms.density import DEGRADED_LOGIT, Scorer, clean_threshold, load_scorer, score_image

#: By the letters of the literature: (a), (b), (c), (d), and the rule for those who do not know the contamination.
ARMS = ("all", "random", "filtered", "oracle", "quantile")
PERCENTS = (0, 30, 50)
#: Share that "filtered" drops of a clean corpus, where the worst 0 % would be no filter.
CLEAN_DROP_PERCENT = 20
CLEAN_QUANTILE = 0.95
QUICK = Size(tiles=24, side=72, patch=12, batch=2, steps=4, features=4, layers=1, pictures=2)
_UNSEEN_TILES = 400
_SAVE_EVERY = 200
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Judged:
    """A corpus and what the scorer says.

    Attributes:
        logits: ``(2, N)``, of the clean and the corrupted tiles; higher is worse (of ``--by``).  None where no arm asks
            for them.
        threshold: that :data:`CLEAN_QUANTILE` of the scorer's own clean images do not exceed.
    """

    corpus: Corpus
    logits: NDArray[np.float64] | None
    threshold: float


def main() -> None:
    args = parse_arguments()
    prepare_basicsr()
    size = QUICK if args.quick else Size(steps=args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = make_corpus(args.data / "clean_train", size.side, size.tiles, size.scale)
    if args.real:
        corpus = make_real_corpus(args.data, corpus, size.side, size.scale)
    pictures = load_pictures(args.data / "clean_test", size.pictures, size.scale)
    needed = {"filtered", "quantile"} & set(args.arms)
    seen, report = Judged(corpus, None, float("nan")), {}
    if needed:
        seen, report = judge_corpora(args, corpus, size)
    base = digest_of([corpus.clean, corpus.corrupted, *pictures], {"size": asdict(size), "version": _CACHE_VERSION})
    rows = []
    for seed in range(1 if args.quick else args.seeds):
        for percent in args.percents:
            mixed = contaminated(len(corpus), percent, seed)
            for arm in args.arms:
                keep = choose(arm, seen, mixed, percent, seed)
                psnr = run_arm(args.out, base, seen.corpus, mixed, keep, seed, size, pictures, f"{percent} % {arm}")
                rows.append(describe(percent, arm, seed, psnr, mixed, keep, corpus))
    summary = {"size": asdict(size), "tiles": len(corpus), "detection": report, "arms": rows}
    (args.out / "results.json").write_text(json.dumps(summary, indent=1))
    text = "\n\n".join(filter(None, [psnr_table(rows), clean_table(rows), keep_table(rows), detection_table(report)]))
    (args.out / "results.md").write_text(text + "\n")
    print(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="scorer_small", help="a density scorer")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with clean_train and clean_test"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/filter_check"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="which; random and oracle need no scorer")
    parser.add_argument("--percents", nargs="+", type=int, choices=range(100), metavar="P", default=PERCENTS)
    parser.add_argument("--real", action="store_true", help="contaminate with real noisy shots in place of corruptions")
    parser.add_argument("--by", default=DEGRADED_LOGIT, help="the scorer's column that decides, like p_noise")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Size.steps)
    parser.add_argument("--score-tiles", type=int, default=16, help="most tiles of the scorer in a tile of the corpus")
    parser.add_argument("--quick", action="store_true", help="try the whole in a minute; its figures mean nothing")
    args = parser.parse_args()
    if args.by != DEGRADED_LOGIT and "quantile" in args.arms:
        parser.error("--by: clean quantiles are of degraded_logit; name the --arms without 'quantile'")
    return args


# --- the filter ---


def judge_corpora(args: argparse.Namespace, corpus: Corpus, size: Size) -> tuple[Judged, dict[str, Any]]:
    """Score the corpus, and tiles of pictures that neither scorer nor network ever saw: the same there, no luck."""
    scorer = load_scorer(args.weights)
    fingerprint = hashlib.sha256(checkpoints.resolve(args.weights).read_bytes()).hexdigest()
    unseen = make_corpus(args.data / "clean_test", size.side, min(_UNSEEN_TILES, size.tiles), size.scale)
    report: dict[str, Any] = {"weights": fingerprint, "score_tiles": args.score_tiles}
    logits = {}
    for name, tiles in (("corpus", corpus), ("unseen", unseen)):
        logits[name] = score(scorer, fingerprint, tiles, args.score_tiles, args.out, args.by)
        report[name] = detection(logits[name], tiles.family, tiles.kinds)
    # Apart, because what is not of the kind that the scorer was calibrated on is harder.
    kinds = np.array([kind_of_picture(name) for name in unseen.names])
    report["unseen_kinds"] = {}
    for kind in sorted(set(kinds)):
        rows = kinds == kind
        report["unseen_kinds"][kind] = detection(logits["unseen"][:, rows], unseen.family[rows], unseen.kinds)
    first = torch.from_numpy(corpus.clean[0])
    count = int(score_image(scorer, first, args.score_tiles)["tiles"])
    threshold = clean_threshold(scorer, CLEAN_QUANTILE, count)
    return Judged(corpus, logits["corpus"], threshold), report


def score(scorer: Scorer, fingerprint: str, corpus: Corpus, limit: int, out: Path, by: str) -> NDArray[np.float64]:
    """The column ``by``, ``(2, N)``, of the clean and the corrupted tiles, saved as it grows; like tiles once alone."""
    column = {} if by == DEGRADED_LOGIT else {"by": by}
    digest = digest_of([corpus.clean, corpus.corrupted], {"scorer": fingerprint, "tiles": limit, **column})
    path = out / f"scores_{digest}.npy"
    logits = np.load(path) if path.is_file() else np.full((2, len(corpus)), np.nan)
    missing = np.argwhere(np.isnan(logits)).tolist()
    found: dict[bytes, float] = {}
    for done, (side, n) in enumerate(tqdm(missing, desc="scoring", unit="tile", disable=None), 1):
        tile = np.ascontiguousarray((corpus.corrupted if side else corpus.clean)[n])
        key = hashlib.sha256(tile.data).digest()
        if key not in found:
            found[key] = score_image(scorer, torch.from_numpy(tile), limit)[by]
        logits[side, n] = found[key]
        if done % _SAVE_EVERY == 0 or done == len(missing):
            part = path.with_suffix(f".{os.getpid()}.npy")
            np.save(part, logits)
            part.replace(path)
    return logits


def choose(arm: str, judged: Judged, mixed: Mask, percent: int, seed: int) -> Mask:
    """Which tiles the arm trains on, ``(N,)``."""
    count = len(mixed)
    dropped = int(mixed.sum()) if percent else round(count * CLEAN_DROP_PERCENT / 100)
    keep = np.ones(count, bool)
    if arm == "oracle":
        return ~mixed
    if arm == "random":
        keep[np.random.default_rng((1, seed)).permutation(count)[:dropped]] = False
    elif arm in ("filtered", "quantile"):
        assert judged.logits is not None
        logits = np.where(mixed, judged.logits[1], judged.logits[0])
        if arm == "quantile":
            return logits <= judged.threshold
        keep[np.argsort(logits, kind="stable")[count - dropped :]] = False
    return keep


def detection(
    logits: NDArray[np.float64], family: NDArray[np.int64], kinds: Sequence[str] = CORRUPTIONS
) -> dict[str, float]:
    """AUROC of each corruption, all clean tiles against the tiles so corrupted."""
    clean = np.sort(logits[0])
    out = {}
    for number, name in enumerate(kinds):
        bad = logits[1, family == number]
        below, up_to = np.searchsorted(clean, bad, "left"), np.searchsorted(clean, bad, "right")
        out[name] = float((below + up_to).mean() / (2 * len(clean))) if len(bad) else float("nan")
    return out


def kind_of_picture(name: str) -> str:
    """``kodim05.png`` and ``kodim07.png`` are of a kind, and so are ``set14_x.png`` and ``set14_y.png``."""
    return Path(name).stem.split("_")[0].rstrip("0123456789") or "pictures"


# --- one arm ---


def run_arm(
    out: Path,
    base: str,
    corpus: Corpus,
    mixed: Mask,
    keep: Mask,
    seed: int,
    size: Size,
    pictures: Sequence[Tensor],
    label: str,
) -> float:
    """PSNR-Y of the arm, from the cache where the very same tiles, seed and sizes were run before."""
    digest = digest_of([mixed & keep, keep], {"base": base, "seed": seed})
    path = out / f"arm_{digest}.json"
    if not path.is_file():
        start = time.process_time()
        psnr = mean_psnr_y(train(corpus, mixed, keep, seed, size), pictures, size.scale)
        seconds = round(time.process_time() - start, 1)
        path.write_text(json.dumps({"label": label, "seed": seed, "psnr_y": psnr, "cpu_seconds": seconds}))
    result = json.loads(path.read_text())
    print(f"seed {seed}, {label}: {int(keep.sum())} tiles, {result['psnr_y']:.3f} dB", flush=True)
    return float(result["psnr_y"])


def describe(percent: int, arm: str, seed: int, psnr: float, mixed: Mask, keep: Mask, corpus: Corpus) -> dict[str, Any]:
    """One row of the results: the figure, and what was dropped."""
    rejected = ~keep
    row: dict[str, Any] = {"percent": percent, "arm": arm, "seed": seed, "psnr_y": psnr, "kept": int(keep.sum())}
    row["precision"] = _share(mixed[rejected])
    row["recall"] = _share(rejected[mixed])
    row |= {f"recall_{name}": _share(rejected[mixed & (corpus.family == n)]) for n, name in enumerate(corpus.kinds)}
    return row


def digest_of(arrays: Iterable[NDArray[Any] | Tensor], settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _share(mask: Mask) -> float:
    return float(mask.mean()) if len(mask) else float("nan")


# --- tables ---


def figures(rows: Sequence[dict[str, Any]], percent: int, arm: str, key: str = "psnr_y") -> list[float]:
    """Of each seed."""
    return [row[key] for row in rows if (row["percent"], row["arm"]) == (percent, arm)]


def psnr_table(rows: Sequence[dict[str, Any]]) -> str:
    names = {"all": "(a) all", "random": "(b) random", "filtered": "(c) filtered", "oracle": "(d) oracle"}
    names["quantile"] = f"clean quantile {CLEAN_QUANTILE}"
    lines = [
        "| corrupted | " + " | ".join(names.values()) + " | d - b | value (c - b) / (d - b) |",
        "|" + " --- |" * (len(names) + 3),
    ]
    for percent in sorted({row["percent"] for row in rows}):
        a, b, c, d, q = (figures(rows, percent, arm) for arm in names)
        gap = [y - x for x, y in zip(b, d, strict=bool(b and d))]
        cells = [spread(x, ".3f") for x in (a, b, c, d, q)] + [spread(gap, "+.3f")]
        lines.append(f"| {percent} % | " + " | ".join(cells) + f" | {value_cell(b, c, d) if percent else '-'} |")
    return "\n".join(lines)


def value_cell(b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> str:
    """Ratio of the means, and the ratio of each seed."""
    if not (b and c and d):
        return "-"
    each = ", ".join(f"{(z - x) / (w - x):.2f}" for x, z, w in zip(b, c, d, strict=True) if w != x)
    gap = statistics.fmean(d) - statistics.fmean(b)
    return f"{(statistics.fmean(c) - statistics.fmean(b)) / gap:.2f} ({each})" if gap else "-"


def clean_table(rows: Sequence[dict[str, Any]]) -> str:
    a = figures(rows, 0, "all")
    lines = ["| clean corpus | dropped | PSNR-Y against (a) |", "| --- | --- | --- |"]
    labels = {
        "filtered": f"worst {CLEAN_DROP_PERCENT} %",
        "quantile": f"beyond clean quantile {CLEAN_QUANTILE}",
        "random": f"random {CLEAN_DROP_PERCENT} %",
    }
    for arm, label in labels.items():
        change = [y - x for x, y in zip(a, figures(rows, 0, arm), strict=False)]
        if change:
            kept, total = figures(rows, 0, arm, "kept")[0], figures(rows, 0, "all", "kept")[0]
            lines.append(f"| {label} | {100 * (1 - kept / total):.1f} % | {spread(change, '+.3f')} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def keep_table(rows: Sequence[dict[str, Any]]) -> str:
    """What the two rules drop, mean over the seeds."""
    keys = ["precision", "recall", *(key for key in rows[0] if key.startswith("recall_"))]
    lines = ["| corrupted | rule | dropped | " + " | ".join(k.replace("_", " ") for k in keys) + " |"]
    lines.append("|" + " --- |" * (len(keys) + 3))
    for percent in sorted({row["percent"] for row in rows} - {0}):
        for arm in ("filtered", "quantile"):
            kept, every = figures(rows, percent, arm, "kept"), figures(rows, percent, "all", "kept")
            if kept and every:
                cells = [f"{statistics.fmean(figures(rows, percent, arm, key)):.2f}" for key in keys]
                dropped = 100 * (1 - statistics.fmean(kept) / every[0])
                lines.append(f"| {percent} % | {arm} | {dropped:.0f} % | " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def detection_table(report: dict[str, Any]) -> str:
    if not report:
        return ""
    kinds = [*report["corpus"]]
    lines = ["| AUROC | " + " | ".join(kinds) + " |", "|" + " --- |" * (len(kinds) + 1)]
    rows = {"tiles of the corpus": report["corpus"]}
    if [*report["unseen"]] == kinds:
        rows |= {"tiles of the test pictures": report["unseen"]}
        rows |= {f"- of them {kind}": found for kind, found in report["unseen_kinds"].items()}
    for label, found in rows.items():
        lines.append(f"| {label} | " + " | ".join(f"{found[kind]:.3f}" for kind in kinds) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation over the seeds."""
    if not values:
        return "-"
    text = f"{statistics.fmean(values):{form}}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


if __name__ == "__main__":
    main()
