"""Every row of the table in README.md: train what is not there yet, evaluate, print.

    python recipes/glow_grey/prepare.py && synthpipe train recipes/glow_grey/train.yml
    python recipes/flow_prior_grey/run.py [--steps 600] [--seeds 10] [--rows twin automatic ...]

A row is a set of overrides of train.yml; its results are kept in runs/flow_prior_grey/results.json by row, steps and
seed, with the CPU seconds of its training (one thread).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from evaluate import blur, figures

from synthpipe import checkpoints
from synthpipe.config.training import read_train_options
from synthpipe.training.build import train

HERE = Path(__file__).parent
TEST = Path("runs/grey_pictures/test")

FIXED = {f"kappa {k}": (f"weight={{type: fixed, kappa: {k}}}",) for k in (0.15, 0.2, 0.24, 0.28, 0.32, 0.36, 0.5)}
STEIN = {
    f"stein, kappa {k}": ("data_term.type=stein", f"weight={{type: fixed, kappa: {k}}}") for k in (0.0, 0.01, 0.03, 0.1)
}
#: Trained with a level that is wrong by a quarter; tested with the same.
TOLD = {
    "x1.25": ("noise_model=0.122549", "correlation=white"),
    "x0.75": ("noise_model=0.0735294", "correlation=white"),
}
#: Overrides of train.yml.
ROWS: dict[str, tuple[str, ...]] = {
    "exact": ("weight={type: exact}",),
    **FIXED,
    **{f"blur, kappa {k}": ("data_term={type: blur}", f"weight={{type: fixed, kappa: {k}}}") for k in (0.01, 0.03)},
    "automatic": (),
    "automatic, white": ("weight={type: automatic, rule: white}",),
    "automatic, variance": ("weight={type: automatic, rule: variance}",),
    **{f"automatic, told {name}": told for name, told in TOLD.items()},
    **{
        f"automatic, white, told {name}": ("weight={type: automatic, rule: white}", *told)
        for name, told in TOLD.items()
    },
    **{
        f"stein, kappa 0.03, told {name}": ("data_term.type=stein", "weight={type: fixed, kappa: 0.03}", *told)
        for name, told in TOLD.items()
    },
    **STEIN,
}


def main() -> None:
    """Train, evaluate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--rows", nargs="+", default=["noisy", "blurred", "twin", *ROWS])
    parser.add_argument("--prior", default="runs/glow_grey/final.safetensors")
    parser.add_argument("--out", type=Path, default=Path("runs/flow_prior_grey"), help="runs and results.json")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides, for trials: give another --out")
    args = parser.parse_args()
    file = args.out / "results.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    for row in args.rows:
        for seed in args.seeds:
            key = f"{row} | {args.steps} | {seed}"
            if key not in kept:
                kept[key] = result(row, seed, args)
                args.out.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(kept, indent=1))
            print(line(key, kept[key]), flush=True)


def result(row: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Figures of one row."""
    if row == "noisy":
        return figures(lambda x, sigma: x, TEST, args.prior)
    if row == "blurred":  # the best of a grid, by the clean pictures
        tried = [
            figures(lambda x, sigma, std=std: blur(x, std), TEST, args.prior)  # type: ignore[misc]
            for std in (0.6, 0.7, 0.8, 0.9, 1.0)
        ]
        return max(tried, key=lambda found: found["psnr"])
    run = args.out / f"{row}_{args.steps}_{seed}".replace(" ", "_").replace(",", "")
    overrides = [f"max_steps={args.steps}", f"seed={seed}", f"run_dir={run}", "device=cpu", "resume=auto", *args.set]
    if row == "twin":
        options = read_train_options(HERE / "twin.yml", overrides)
    else:
        options = read_train_options(HERE / "train.yml", [*ROWS[row], f"prior={args.prior}", *overrides])
    started = time.process_time()
    weights = train(options)
    spent = time.process_time() - started
    logged = checkpoints.read_header(weights)["info"]["figures"]
    told = float(row.split("told x")[1]) if "told" in row else 1.0
    model = checkpoints.load(weights)
    found = figures(lambda x, sigma: model(x, told * sigma), TEST, args.prior) | {"cpu_seconds": round(spent, 1)}
    return found | ({"kappa": round(logged["kappa"], 4)} if "kappa" in logged else {})


def line(key: str, found: dict[str, float]) -> str:
    """A row of the README's table."""
    names = ("psnr", "psnr_whole", "bits", "high_frequency", "residual_variance", "residual_correlation")
    names += ("psnr_by_stein", "kappa", "cpu_seconds")
    return " | ".join([key, *(f"{name} {found[name]:.4g}" if name in found else "-" for name in names)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
