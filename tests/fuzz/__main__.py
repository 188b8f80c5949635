"""``python -m tests.fuzz NAME --minutes 10 --seed 0``: damaged inputs for one reader; without a name, the list."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import torch

from tests.fuzz.campaign import run_campaign
from tests.fuzz.reader import names, prepare


def main() -> int:
    """Run one campaign; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", nargs="?", choices=names(), help="the reader; without one: list them")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/synthpipe-fuzz"), help="for inputs that fail")
    args = parser.parse_args()
    if args.name is None:
        sys.stdout.write("\n".join(names()) + "\n")
        return 0
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        reader = prepare(args.name, Path(scratch))
        done = run_campaign(reader, args.seed, 60 * args.minutes, args.folder / args.name, args.cases)
    lines = [
        f"{args.name}: {done.cases} cases, {done.refused} refused, {done.seconds:.0f} s, seed {args.seed}, "
        f"{len(done.failures)} distinct failures"
    ]
    for key, numbers in sorted(done.failures.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {key}: {len(numbers)} times, first case {numbers[0]}")
    if done.failures:
        lines.append(f"inputs and traces in {args.folder / args.name}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if done.failures else 0


if __name__ == "__main__":
    sys.exit(main())
