r"""Whether the flat-area distance picks good weights: every checkpoint of a run against held-out pairs, as Markdown.

    synthpipe train recipes/deflow_cameras/train.yml run_dir=runs/deflow_cameras/Nikon800/short \
        data.noisy.folder=runs/deflow_cameras/Nikon800/noisy max_steps=60 sample_every=12 checkpoint_every=12 \
        keep_checkpoints=9 ema_decay=0.9 schedule.kind=constant schedule.milestones=[]
    python recipes/deflow_cameras/checkpoints.py --run runs/deflow_cameras/Nikon800/short --camera Nikon800

``sample_every`` and ``checkpoint_every`` must be equal, so that each point of ``distance.csv`` has its
weights.  Those of a run with ``calibrate`` are corrected first, as they were for the distance and would be at the end.

Pairs are those of ``prepare.py``; their references' errors are carried as in ``evaluate.py``.  Scenes are the first two
judged ones that ``--without`` does not name, or those of ``--scenes``.

Crops of a scene are dealt to ``--groups``, and noise is drawn anew with each of ``--seeds`` (tables of the guide: 2):
AKLD, KLD and ``sigma``, of all pixels over that of the real noise, are of one group and one draw, then the mean over
both.  The standard errors are those of the mean over draws and of that over groups of crops, and in the last lines
those of the *difference* of two checkpoints, which share draws and crops.

``--tile-sets 3`` measures the distance of each checkpoint on so many other sets of clean tiles as well, and says by how
much differences of two steps change with the tiles: what a run of several, by their root mean square, takes for alike.
"""

from __future__ import annotations

import argparse
import csv
from itertools import combinations
from pathlib import Path

import torch
from comparison import Generator, by_transform, generate, load_pairs, read
from prepare import CAMERAS
from reference_errors import Registered, register
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.training import read_train_options
from synthpipe.flat_noise import noise_level
from synthpipe.flows import DeFlow
from synthpipe.images import quantize_8bit
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.training.data.flat_calibration import FlatCalibration
from synthpipe.training.data.flat_judge import ALIKE, FlatJudge
from synthpipe.training.data.unpaired import UnpairedData
from synthpipe.training.step.best import step_to_keep
from synthpipe.transforms.deflow import DeFlowDegrade

#: Those that are to be small, and, behind them, sigma of all pixels over that of the real noise.
FIGURES = ("AKLD", "KLD")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/deflow_cameras"), help="made by prepare.py")
    parser.add_argument("--run", type=Path, required=True, help="folder of a training")
    parser.add_argument("--camera", required=True, choices=[camera.name for camera in CAMERAS])
    parser.add_argument("--scenes", nargs="+", help="judged scenes to take")
    parser.add_argument("--without", nargs="*", default=["recie"], help="judged scenes to leave out")
    parser.add_argument("--limit", type=int, default=24, help="crops of a scene")
    parser.add_argument("--groups", type=int, default=4, help="of crops")
    parser.add_argument("--seeds", type=int, default=4, help="draws of the noise")
    parser.add_argument("--steps", type=int, nargs="+", help="checkpoints; all that were measured by default")
    parser.add_argument("--tile-sets", type=int, default=0, help="measure the distance on so many other sets of tiles")
    args = parser.parse_args()
    camera = next(camera for camera in CAMERAS if camera.name == args.camera)
    model = checkpoints.load(args.run / "final.safetensors", kind="deflow")
    assert isinstance(model, DeFlow)
    scenes = args.scenes or [name for name in camera.judged if name not in args.without][:2]
    judged = [load_scene(args.data / camera.name, scene, args.limit, model.pile is not None) for scene in scenes]
    print(f"{camera.name}: {', '.join(scenes)}; {args.seeds} draws")
    print(f"{args.limit} crops of each scene, in {args.groups} groups\n")
    print("| step | distance | AKLD | KLD | sigma |\n| --- | --- | --- | --- | --- |")
    correct = correction_of(args.run, model.pile is not None)
    with (args.run / "distance.csv").open() as file:
        curve = {int(row["step"]): float(row["distance"]) for row in csv.DictReader(file)}
    judges = judges_of(args.run, model.pile is not None, args.tile_sets)
    found, distances = {}, []
    for step in args.steps or sorted(curve):
        state = torch.load(args.run / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)["averaged"]
        own = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
        model.correct(None)
        model.load_state_dict(own)
        if correct is not None:
            correct(model)
        found[step] = torch.stack([measured(model, *scene, args.seeds, args.groups) for scene in judged]).mean(0)
        cells = [with_errors(values, 4) for values in found[step].unbind(-1)]
        print(f"| {step} | {curve[step]:.3f} | {' | '.join(cells)} |", flush=True)
        compared = [judge.compare(model) for judge in judges]
        distances.append([point.distance for point in compared if point is not None])
    chosen = step_to_keep([{"step": step, "distance": curve[step]} for step in found], ALIKE)
    for place, name in enumerate(FIGURES):
        best = min(found, key=lambda step: float(found[step][..., place].mean()))
        against = found[best][..., place]
        share = 100 * (found[chosen][..., place] - against) / against.mean()
        print(f"\n{name}: chosen step {chosen} against best step {best}: {with_errors(share, 1)} %")
    if args.tile_sets > 1 and len(distances) > 1:
        change = change_with_tiles(distances)
        print(f"\ndistance: differences of two steps change by {change:.4f} with the tiles ({args.tile_sets} sets)")


def change_with_tiles(distances: list[list[float]]) -> float:
    """Standard deviation over sets of tiles of the difference of two steps, of all pairs; a list for each step."""
    pairs = combinations(torch.tensor(distances, dtype=torch.float64), 2)
    return float(torch.stack([(one - other).var() for one, other in pairs]).mean().sqrt())


def judges_of(run: Path, levels: bool, count: int) -> list[FlatJudge]:
    """What measures the distance, with tiles of other seeds than the run's."""
    options = read_train_options(run / "options.yml")
    assert isinstance(options, TrainDeFlowOptions)
    seeds = [sample_seed(options.seed, number, "tile sets") for number in range(count)]
    return [FlatJudge(UnpairedData(options.data, seed, with_levels=levels)) for seed in seeds]


def correction_of(run: Path, levels: bool) -> FlatCalibration | None:
    """What a run with ``calibrate`` does to weights before it compares them."""
    options = read_train_options(run / "options.yml")
    assert isinstance(options, TrainDeFlowOptions)
    if not options.calibrate:
        return None
    return FlatCalibration(UnpairedData(options.data, options.seed, with_levels=levels))


def load_scene(folder: Path, scene: str, limit: int, levels: bool) -> tuple[float | None, Registered, list[str]]:
    """Level to ask for, of 255; the pairs; names of the crops."""
    level = noise_level(read(folder / "frames" / f"{scene}.png"))
    assert level is not None, scene
    clean, noisy, names = load_pairs(folder / "judged" / scene, limit)
    return (255 * level if levels else None), register(clean, noisy), names


def measured(
    model: DeFlow, level: float | None, pairs: Registered, names: list[str], seeds: int, groups: int
) -> Tensor:
    """``(seeds, groups, 3)``: AKLD, KLD and ratio of sigma of the residuals, both with the references' coding error."""
    generator = by_transform(DeFlowDegrade(model, 1, level=level))
    real = [residual_of(y, x, LOCAL_MEAN_WINDOW) for y, x in zip(pairs.noisy, pairs.clean, strict=True)]
    rows = []
    for seed in range(seeds):
        ours = made(generator, pairs, [sample_seed(seed, 0, name) for name in names])
        parts = [(real[group::groups], ours[group::groups]) for group in range(groups)]
        rows.append([(akld(*part), histogram_kld(*part), sigma_of(part[1]) / sigma_of(part[0])) for part in parts])
    return torch.tensor(rows, dtype=torch.float64)


def made(generator: Generator, pairs: Registered, seeds: list[int]) -> list[Tensor]:
    """Residuals of one draw."""
    noisy = quantize_8bit(generate(generator, pairs.clean, seeds, 4) + pairs.error)
    return [residual_of(y, x, LOCAL_MEAN_WINDOW) for y, x in zip(noisy, pairs.clean, strict=True)]


def sigma_of(residuals: list[Tensor]) -> float:
    """Over all pixels and channels of ``(3, H, W)`` each."""
    return float(torch.stack([residual.square().mean() for residual in residuals]).mean().sqrt())


def with_errors(values: Tensor, digits: int) -> str:
    """Mean of ``(seeds, groups)``, and its standard errors over draws and over groups of crops."""
    errors = [part.std() / len(part) ** 0.5 if len(part) > 1 else part.new_zeros(()) for part in both_means(values)]
    return f"{values.mean():.{digits}f} (draws {errors[0]:.{digits}f}, crops {errors[1]:.{digits}f})"


def both_means(values: Tensor) -> tuple[Tensor, Tensor]:
    """By draw and by group."""
    return values.mean(1), values.mean(0)


if __name__ == "__main__":
    main()
