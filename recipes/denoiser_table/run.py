#!/usr/bin/env python
"""One table of all denoisers: the same budget for each, several seeds, synthetic and real noise.

    python recipes/denoiser_table/run.py run                      # every row, seeds 0 1 2; goes on where it was stopped
    python recipes/denoiser_table/run.py run --rows supervised --seeds 0
    python recipes/denoiser_table/run.py table                    # Markdown, and results.json beside this file
    python recipes/denoiser_table/run.py picture --seed 0 --name kodim07

Training runs through `synthpipe.training.train` with the option files in rows/; runs/ keeps weights and figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from methods import ROWS, Row
from pictures import REAL, SETS, SYNTHETIC, TRAINED_AT, build_test, psnr
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.config.training import read_train_options
from synthpipe.files.decode import encode_png
from synthpipe.images import to_uint8
from synthpipe.training import train

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)


def main() -> None:
    """One of three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "picture"))
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS], help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--on", nargs="+", choices=("photographs", "sidd"), default=["photographs", "sidd"])
    parser.add_argument("--seed", type=int, default=0, help="picture: of the weights shown")
    parser.add_argument("--name", default="kodim07", help="picture: the held-out picture that is shown")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/denoiser_table"))
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    args = parser.parse_args()
    rows = [row for row in ROWS if row.name in args.rows]
    if args.command == "run":
        for row in rows:
            run_row(row, args)
    elif args.command == "table":
        show_tables(collect(rows, args))
    else:
        draw(rows, args)


def run_row(row: Row, args: argparse.Namespace) -> None:
    """Train and measure one row for every seed: on photographs made noisy, and on the noisy files of SIDD."""
    synthetic = [test for test in SYNTHETIC if row.told or "told" not in test]
    if row.name == "bm3d":
        synthetic = [test for test in synthetic if "told" not in test]  # three seconds a picture
    jobs = [(row.options, [*synthetic, *REAL])] if "photographs" in args.on else []
    if row.options and "sidd" in args.on:
        jobs.append((row.own, ["sidd"]))
    for options, tests in jobs:
        if options and not (HERE / "rows" / f"{options}.yml").is_file():
            print(f"{row.name}: rows/{options}.yml is not there, skipped", file=sys.stderr)
            continue
        for seed in args.seeds if options else SEEDS[:1]:
            place = measured_path(row, options, seed, args.runs)
            if args.again or not place.is_file():
                found = measure(row, options, seed, tests, args)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(json.dumps(found, indent=1))
                print(place.stem, {test: round(mean(values.values()), 2) for test, values in found["psnr"].items()})


def measured_path(row: Row, options: str, seed: int, runs: Path) -> Path:
    """Where the figures of one row, option file and seed are."""
    return runs / "measured" / f"{row.name}-{options or 'untrained'}-{seed}.json"


def trained(options: str, seed: int, runs: Path) -> dict[str, Any]:
    """The weights of an option file and seed, trained now where they are not there, and what they cost.

    An unfinished run is started anew: its processor time would be unknown.
    """
    folder = runs / options / f"seed{seed}"
    record = folder / "cost.json"
    if not record.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        given = read_train_options(HERE / "rows" / f"{options}.yml", [f"run_dir={folder}", f"seed={seed}"])
        started = time.process_time()
        weights = train(given)
        cost = {"weights": str(weights), "steps": given.max_steps, "cpu_seconds": time.process_time() - started}
        record.write_text(json.dumps(cost))
    return json.loads(record.read_text())


def measure(row: Row, options: str, seed: int, tests: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """PSNR of every picture by test, in the best of the row's variants; with the cost of training."""
    model, cost = load(options, seed, args.runs)
    found: dict[str, Any] = {"row": row.name, "options": options, "seed": seed, **cost, "psnr": {}, "variant": {}}
    for test in tests:
        pictures = build_test(test, args.data)
        tried = {variant: psnr(denoiser(row, model, variant), pictures) for variant in row.variants}
        best = max(tried, key=lambda variant: mean(tried[variant]))
        found["psnr"][test] = {picture.name: value for picture, value in zip(pictures, tried[best], strict=True)}
        found["variant"][test] = best
    return found


def load(options: str, seed: int, runs: Path) -> tuple[nn.Module | None, dict[str, Any]]:
    """The trained model, ready to run, and its cost; None where nothing is trained."""
    if not options:
        return None, {}
    cost = trained(options, seed, runs)
    model = checkpoints.load(cost["weights"]).requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, cost | {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def denoiser(row: Row, model: nn.Module | None, variant: float) -> Any:
    """``(noisy, told) -> result`` of a row."""

    def run(x: Tensor, told: Tensor | None) -> Tensor:
        with torch.inference_mode():
            return row.denoise(model, x, told, variant)

    return run


def collect(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """All figures that there are, by row; also written to results.json."""
    results: dict[str, Any] = {}
    for row in rows:
        for own, options in ((False, row.options), (True, row.own)):
            paths = [measured_path(row, options, seed, args.runs) for seed in args.seeds]
            found = [json.loads(path.read_text()) for path in paths if path.is_file()]
            if found and not (own and not row.options):
                entry = results.setdefault(row.name, {"title": row.title})
                entry["own" if own else "synthetic"] = summary(found)
    text = json.dumps({"torch": torch.__version__, "seeds": args.seeds, "rows": results}, indent=1)
    (HERE / "results.json").write_text(text + "\n")
    return results


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over pictures of each test, and of each set in it: one number for each seed."""
    entry: dict[str, Any] = {"psnr": {}, "seeds": [one["seed"] for one in found], "variant": found[0]["variant"]}
    for key in ("cpu_seconds", "steps", "parameters"):
        if key in found[0]:
            entry[key] = [round(one[key], 1) for one in found]
    for test in found[0]["psnr"]:
        entry["psnr"][test] = [round(mean(one["psnr"][test].values()), 4) for one in found]
        for name, prefix in SETS.items() if test in SYNTHETIC else ():
            values = [[v for k, v in one["psnr"][test].items() if k.startswith(prefix)] for one in found]
            entry["psnr"][f"{test}/{name}"] = [round(mean(value), 4) for value in values]
    return entry


def show_tables(results: dict[str, Any]) -> None:
    """Markdown on standard output."""
    level = f"sigma_{TRAINED_AT}"
    print("| row | sigma 15 | sigma 25 | sigma 50 | parameters | CPU s |\n|---|---:|---:|---:|---:|---:|")
    for entry in results.values():
        one = entry["synthetic"]
        cells = [cell(one, f"sigma_{test}") for test in (15, 25, 50)]
        cost = [f"{one['parameters'][0]:,}", f"{mean(one['cpu_seconds']):.0f}"] if "cpu_seconds" in one else ["", ""]
        print("| " + " | ".join([entry["title"], *cells, *cost]) + " |")
    print("\n| row | Kodak | CBSD68 | Set14 | told 25 at 15 | told 25 at 50 |\n|---|---:|---:|---:|---:|---:|")
    for entry in results.values():
        tests = [f"{level}/{name}" for name in SETS] + [f"sigma_15_told_{TRAINED_AT}", f"sigma_50_told_{TRAINED_AT}"]
        print("| " + " | ".join([entry["title"], *(cell(entry["synthetic"], test) for test in tests)]) + " |")
    print("\n| row | PolyU | SIDD | SIDD, trained on its noisy files |\n|---|---:|---:|---:|")
    for entry in results.values():
        one = entry["synthetic"]
        own = cell(entry["own"], "sidd") if "own" in entry else ""
        print("| " + " | ".join([entry["title"], cell(one, "polyu"), cell(one, "sidd"), own]) + " |")


def cell(entry: dict[str, Any], test: str) -> str:
    """Mean and spread (standard deviation) over seeds; empty where it was not measured."""
    values = entry["psnr"].get(test)
    if not values:
        return ""
    return f"{values[0]:.2f}" if len(values) == 1 else f"{mean(values):.2f} ± {stdev(values):.2f}"


def draw(rows: list[Row], args: argparse.Namespace) -> None:
    """The middle of one picture at the trained level, clean and through every row that is there, side by side."""
    (picture,) = (p for p in build_test(f"sigma_{TRAINED_AT}", args.data) if p.name == args.name)
    shown = [picture.clean]
    names = ["clean"]
    for row in rows:
        found = measured_path(row, row.options, args.seed if row.options else SEEDS[0], args.runs)
        if found.is_file():
            model, _ = load(row.options, args.seed, args.runs)
            variant = json.loads(found.read_text())["variant"][f"sigma_{TRAINED_AT}"]
            shown.append(denoiser(row, model, variant)(picture.noisy, picture.told))
            names.append(row.name)
    shown += [torch.ones_like(picture.clean)] * (-len(shown) % 4)
    lines = [torch.cat(shown[at : at + 4], 3) for at in range(0, len(shown), 4)]
    place = args.runs / f"{args.name}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(encode_png(to_uint8(torch.cat(lines, 2))[0].permute(1, 2, 0).numpy()))
    print(f"{place}: four in a row: {', '.join(names)}")


if __name__ == "__main__":
    main()
