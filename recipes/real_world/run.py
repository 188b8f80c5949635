"""What are training pairs worth on real photographs?  The same networks and steps for every way to make the pairs.

    python recipes/real_world/run.py --data ../shared/data

Tests: denoising of real pairs of three cameras, super-resolution of real x4 and x2 photographs, each with intact and
with compressed photographs beside them.  Arms: see arms/*.yml; their pairs are made on the fly, by ordinary streams.
README.md says what came out.

Each finished (test, arm, seed) is kept in ``--out`` and skipped when the command is given again; arms whose weights are
not there are left out with a word.  ``--only`` takes patterns of test/arm: ``--only "real_x4*/prototype" "x1*/real"``.
``--tiny`` tries the whole in about a minute, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from arms import NOTHING, MissingError, arm_names
from experiment import Job, Workshop
from networks import SIZES
from pictures import draw_pages
from scenes import TESTS
from tables import rows_of, table, tone_table

from synthpipe.basicsr_plugin.compat import prepare as prepare_basicsr

HERE = Path(__file__).parent


def main() -> None:
    args = parse_arguments()
    workshop = make_workshop(args)
    prepare(args.threads)
    found = plan(workshop, args)
    if args.jobs > 1:
        with ProcessPoolExecutor(args.jobs, get_context("spawn"), prepare, (args.threads,)) as pool:
            for job, result in zip(found, pool.map(workshop.run, found), strict=True):
                tell(job, result)
    else:
        for job in found:
            tell(job, workshop.run(job))
    report(workshop, args)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images; default: as settings.yml says")
    parser.add_argument("--settings", type=Path, help="a file like settings.yml; what it leaves out is as there")
    parser.add_argument("--out", type=Path, default=Path("runs/real_world"))
    parser.add_argument("--only", nargs="+", default=["*"], metavar="TEST/ARM", help="patterns of what is run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--steps", type=int, help="of every training, in place of the size's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="--size tiny with one seed: figures mean nothing")
    parser.add_argument("--report", action="store_true", help="tables and pictures of what is finished")
    args = parser.parse_args(argv)
    if args.tiny:
        args.size, args.seeds = "tiny", args.seeds[:1]
    return args


def make_workshop(args: argparse.Namespace) -> Workshop:
    """Settings and arguments together."""
    settings: dict[str, Any] = yaml.safe_load((HERE / "arms" / "settings.yml").read_text())
    given: dict[str, Any] = yaml.safe_load(args.settings.read_text()) if args.settings else {}
    weights = {**settings["weights"], **(given.get("weights") or {})}
    data = args.data or Path(given.get("data", settings["data"]))
    out = args.out if args.size == "cpu" else args.out / args.size
    return Workshop(data.resolve(), out, weights, args.size, args.device, args.steps)


def prepare(threads: int) -> None:
    """Of this process, or of one of several."""
    torch.set_num_threads(threads)
    prepare_basicsr()


def plan(workshop: Workshop, args: argparse.Namespace) -> list[Job]:
    """What has to be run: seed after seed, so that all arms have one before any has two."""
    jobs, missing = [], {}
    for seed in args.seeds:
        for test in TESTS.values():
            if not (workshop.data / test.folder).is_dir():
                missing[test.name] = f"no folder {workshop.data / test.folder}"
                continue
            for arm in arm_names(test):
                if not any(fnmatch(f"{test.name}/{arm}", pattern) for pattern in args.only):
                    continue
                if arm == NOTHING and seed != args.seeds[0]:
                    continue
                job = Job(test.name, arm, seed)
                try:
                    _, digest = workshop.planned(job)
                except MissingError as error:
                    missing[f"{test.name}/{arm}"] = str(error)
                    continue
                if workshop.kept(job, digest) is None:
                    jobs.append(job)
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", flush=True)
    return [] if args.report else jobs


def tell(job: Job, result: dict[str, Any]) -> None:
    """One line, without the judged columns: who follows a run must not choose by them."""
    psnr = " ".join(f"{name} {value:.3f}" for name, value in result["psnr"].items() if not name.startswith("judge"))
    print(f"{job.label}: {psnr}; {result['training_seconds']} s + {result['measuring_seconds']} s", flush=True)


def report(workshop: Workshop, args: argparse.Namespace) -> None:
    """Tables, JSON and pictures of all that is finished."""
    paths = sorted((workshop.out / "results").glob("*/*.json"))
    rows = rows_of([json.loads(path.read_text()) for path in paths])
    (workshop.out / "results.json").write_text(json.dumps({"size": args.size, "rows": rows}, indent=1) + os.linesep)
    found = [name for name in TESTS if any(row["test"] == name for row in rows)]
    texts = [f"{name}:\n\n{table(rows, name)}\n\n{tone_table(rows, name)}".rstrip() for name in found]
    (workshop.out / "results.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))
    for path in draw_pages(workshop, rows):
        print(path)


if __name__ == "__main__":
    main()
