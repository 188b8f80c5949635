"""``synthpipe score``: how degraded each image of a corpus is, as a table."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from synthpipe.cli.command import (
    add_command,
    add_max_pixels,
    given_options,
    print_given_up,
    print_nothing_done,
    print_passed_over,
    progress_bar,
)
from synthpipe.cli.device import find_device
from synthpipe.cli.places import place
from synthpipe.errors import counted

__all__ = ["add_engine_arguments", "add_parser", "run"]

_EXAMPLE = """\
  synthpipe score scorer_kinds /data/hr hr.parquet --workers 8 --cache ~/.cache/synthpipe
  synthpipe filter /data/hr hr.parquet /data/hr_kept --reject-kinds all

SOURCE is shards (a folder with an index, a pattern such as hr-{000..511}.tar, URLs) or a folder of images.  The
table has one row for each image: degraded_logit (log-odds that it is degraded, higher is worse), the probability of
each kind of degradation and the likeliest as `reason` (scorer_kinds) or every part of the number (scorer_small),
checksum and size; images that cannot be used stand in it with the reason, and `given_up` names what was not looked
at (alpha, further pages, ...).  hr.parts/ holds one file for each shard: after an interruption the same command goes
on where it stopped.  Later it scores anew what has another size or modification time; remove hr.parts/ to score all.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "score",
        help="rate how degraded each image of a corpus is",
        description="Score every image of shards or folders with a density scorer and write a Parquet table.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "weights", type=place, metavar="WEIGHTS", help="a scorer's .safetensors file, or scorer_kinds or scorer_small"
    )
    parser.add_argument("source", type=place, nargs="+", metavar="SOURCE", help="shards, or folders of images")
    parser.add_argument("output", type=place, metavar="OUT.parquet", help="the table, local or an fsspec URL")
    parser.add_argument("--tiles", type=int, metavar="N", help="tiles of each image, at most (default: 16)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto (default): CUDA where there is one, else the CPU; cuda is a device for each worker",
    )
    parser.add_argument(
        "--cache",
        type=place,
        metavar="DIR",
        help="remember scores by content here, for other runs (a local disk; default: none)",
    )
    add_max_pixels(parser)
    add_engine_arguments(parser)
    return parser


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """``--engine``, ``--workers`` and ``--allow-pipe``, as `score` and `filter` have them."""
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        help="processes of this machine (default), or tasks on the Ray cluster that RAY_ADDRESS names",
    )
    parser.add_argument(
        "--workers", type=_at_least_one, metavar="N", help="shards at work at once (default: cores, or devices)"
    )
    parser.add_argument("--allow-pipe", action="store_true", default=None, help="let pipe: URLs run shell commands")


def run(args: argparse.Namespace) -> int:
    """Score; 0 if any image has a score, 1 if none has."""
    from synthpipe.config.score import ScoreOptions
    from synthpipe.corpus.score import score_corpus
    from synthpipe.shards.engine import default_workers

    device = find_device(args)
    workers = args.workers or default_workers(cuda=device == "cuda")
    options = given_options(args, ScoreOptions, source=tuple(args.source), device=device, workers=workers)
    with progress_bar("shard") as show:
        report = score_corpus(options, show)
    scored = f"{report.scored} of {counted(report.images, 'image')} scored"
    print(f"{report.output}: {scored}, in {counted(report.units, 'part')}")
    if report.errors:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.errors.items())
        print(f"without a score: {reasons}; see the column `error` of the table")
    print_given_up(report.given_up, report.examples)
    print_passed_over(report.passed_over)
    if report.unused:
        print(report.unused, file=sys.stderr)
    if report.reused_units:
        print(f"from an earlier run: {counted(report.reused_units, 'part')}")
    if options.cache is not None:
        print(f"cache: {report.hits} found, {report.misses} computed")
    if not report.scored:
        print_nothing_done("score", "no image could be scored; the table says why for each", report.errors)
    return 0 if report.scored else 1


def _at_least_one(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)
