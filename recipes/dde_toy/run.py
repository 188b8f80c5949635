"""Denoising density estimators of point sets, against the exact smoothed density.

    python recipes/dde_toy/run.py                          # sigma 0.2: three sets, about 2 minutes of one core
    python recipes/dde_toy/run.py --sigma 0.05             # about 5 minutes of one core
    python recipes/dde_toy/run.py --sets rings --seed 1

One thread; fresh points at each step.  The table goes to the terminal and to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synthpipe import checkpoints
from synthpipe.density.base import DensityEstimator, dde_loss
from synthpipe.density.grid import compare_on_grid
from synthpipe.density.point_sets import POINT_SETS, PointSet
from synthpipe.density.vector import VectorDDE

#: Steps that stay within the time asked for: 60 CPU-seconds at 0.2, 120 at 0.05.
STEPS = {0.2: 4000, 0.05: 12_000}


@dataclass(frozen=True)
class Training:
    """Settings of a run; the table in README.md says which of them matter."""

    steps: int
    batch: int = 1024
    rate: float = 6e-3
    antithetic: bool = True
    ema: float = 0.0
    first_sigma: float = 0.5
    """Noise at the first step; it falls to the level asked for over the first part of the steps."""


#: Part of the steps over which the noise falls.
_FALL = 0.3


def level_at(step: int, sigma: float, settings: Training) -> float:
    """Noise of a step.  Coarse noise comes first: where fine noise never reaches, S stays as coarse noise left it."""
    place = min(step / (_FALL * settings.steps), 1)
    first = max(settings.first_sigma, sigma)
    return first * (sigma / first) ** place


def train(model: DensityEstimator, points: PointSet, sigma: float, settings: Training, seed: int = 0) -> None:
    """Fit ``model`` to ``points`` at one noise level, in place: Adam, a cosine to 0, fresh points at each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema)) if settings.ema else None
    copies = 2 if settings.antithetic else 1
    for step in range(settings.steps):
        levels = torch.full((settings.batch,), level_at(step, sigma, settings))
        x = points.sample(settings.batch // copies, generator)
        e = torch.randn(x.shape, generator=generator)
        if settings.antithetic:
            x, e = torch.cat([x, x]), torch.cat([e, -e])
        loss = dde_loss(model, x, levels, e).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(model)
    if average is not None:
        copy_parameters(average.module, model)


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def measure(model: DensityEstimator, points: PointSet, sigma: float, seed: int) -> dict[str, float]:
    """The columns of the table, held against the exact density and on points of their own."""
    generator = torch.Generator().manual_seed(1000 + seed)
    comparison = compare_on_grid(model, points, sigma)
    x = points.sample(20_000, generator)
    levels = torch.full((len(x),), sigma)
    j = dde_loss(model, x, levels, torch.randn(x.shape, generator=generator)).mean()
    with torch.no_grad():
        clean = model.log_density(x, levels).double().mean() - comparison.log_z
    return {
        "J": float(j.detach()),
        **{k: v for k, v in asdict(comparison).items() if k != "log_z"},
        "clean_log_likelihood": float(clean),
        "clean_log_likelihood_exact": float(points.log_smoothed_density(x.double(), sigma).mean()),
    }


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    steps = args.steps or STEPS.get(args.sigma, 4000)
    settings = Training(steps, args.batch, args.rate, not args.independent, args.ema, args.first_sigma)
    rows = {}
    for name in args.sets:
        torch.manual_seed(args.seed)
        model = VectorDDE(sigma_range=(args.sigma, args.sigma))
        started = time.process_time()
        train(model, POINT_SETS[name], args.sigma, settings, args.seed)
        seconds = time.process_time() - started
        rows[name] = measure(model, POINT_SETS[name], args.sigma, args.seed) | {"cpu_seconds": seconds}
        print(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in rows[name].items()), flush=True)
        checkpoints.save(args.out / f"{name}_s{args.sigma:g}.safetensors", model, {"measured": rows[name]})
    report = {
        "settings": asdict(settings) | {"sigma": args.sigma, "seed": args.seed},
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "rows": rows,
    }
    (args.out / f"s{args.sigma:g}_seed{args.seed}.json").write_text(json.dumps(report, indent=1))
    print("\n" + table(rows))


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    columns = list(next(iter(rows.values())))
    lines = ["| set | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        assert all(math.isfinite(value) for value in row.values())
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.4f}" for c in columns) + " |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(POINT_SETS)
    parser.add_argument("--sets", nargs="+", choices=known, default=known[:3])
    parser.add_argument("--sigma", type=float, default=0.2, help="standard deviation of the smoothing")
    parser.add_argument("--steps", type=int, help=f"default by sigma: {STEPS}")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=6e-3, help="Adam's first learning rate")
    parser.add_argument("--independent", action="store_true", help="noise without its mirror image")
    parser.add_argument("--ema", type=float, default=0.0, help="decay of averaged weights; 0: none")
    parser.add_argument("--first-sigma", type=float, default=0.5, help="noise at the first step; falls to --sigma")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/dde_toy"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    main()
