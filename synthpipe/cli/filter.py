"""``synthpipe filter``: the part of a scored corpus that is worth training on, and a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from synthpipe.cli.command import add_command, given_options, print_passed_over, progress_bar
from synthpipe.cli.places import place
from synthpipe.cli.score import add_engine_arguments
from synthpipe.errors import counted

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe score scorer_kinds /data/hr hr.parquet
  synthpipe filter /data/hr hr.parquet /data/hr_kept --reject-kinds noise,compression
  synthpipe filter /data/hr hr.parquet /data/hr_kept --reject-kinds all --threshold 0.8 --threshold blur=0.95
  synthpipe filter /data/hr hr.parquet /data/hr_kept --reject 0.2 --reject-kinds all

Of shards, OUT_DIR gets shards of the kept samples, byte for byte as they were, with an index; of a folder of images,
kept.txt with the kept files, and links or copies on request.  OUT_DIR/report.html shows what was kept and dropped.
Images without a score are left out and counted.  After an interruption the same command goes on where it stopped.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "filter",
        help="write the part of a scored corpus that is not degraded",
        description="Reject the worst images of a corpus by the scores of `synthpipe score`; write the others, and a "
        "report.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "source", type=place, nargs="+", metavar="SOURCE", help="what was scored: shards, or folders of images"
    )
    parser.add_argument("scores", type=place, metavar="SCORES.parquet", help="the table that `synthpipe score` wrote")
    parser.add_argument("output", type=place, metavar="OUT_DIR", help="folder to write, local or an fsspec URL")
    parser.add_argument(
        "--reject-kinds",
        type=_kinds,
        metavar="KIND[,KIND]",
        help="reject what has one of these kinds: noise, blur, compression, enlargement, pattern, graphics, or all",
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        action="append",
        metavar="[KIND=]P",
        help="of a kind, or of all: the largest probability that is kept (default 0.5); may be given several times",
    )
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument(
        "--reject",
        type=float,
        metavar="SHARE",
        help="reject this share of the images, as in 0.2; with --reject-kinds the worst in those kinds",
    )
    rule.add_argument("--max-logit", type=float, metavar="X", help="keep what is at or below X in the column --by")
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("--by", metavar="COLUMN", help="the column that decides (default: degraded_logit)")
    parser.add_argument(
        "--per-source", action="store_true", default=None, help="with --reject: the worst of each source by itself"
    )
    parser.add_argument(
        "--files", choices=["list", "link", "copy"], help="of a folder: list the kept files, link or copy them as well"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="chooses the kept images in the report (default: 0)")
    add_engine_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Filter; 0 if anything was kept, 1 if nothing was."""
    import numpy as np

    from synthpipe.config.score import CorpusFilterOptions
    from synthpipe.corpus.filter import HTML_NAME, filter_corpus
    from synthpipe.corpus.keep_rule import State
    from synthpipe.filter_report import render_report
    from synthpipe.shards.engine import default_workers

    workers = args.workers or default_workers()
    if args.reject_kinds is None and args.reject is None and args.max_logit is None:
        args.refuse("one of the arguments --reject-kinds --reject --max-logit is required")
    args.threshold, more = _thresholds(args.threshold or [])
    options = given_options(args, CorpusFilterOptions, source=tuple(args.source), workers=workers, **more)
    with progress_bar("image") as show:
        outcome = filter_corpus(options, show, render_report)
    decisions, index = outcome.decisions, outcome.index
    rejected = decisions.count(State.REJECTED)
    print(f"{outcome.kept} of {counted(outcome.images, 'image')} kept, {rejected} rejected by {decisions.by}")
    if decisions.kinds and rejected:
        print("rejected for: " + ", ".join(f"{n} {kind}" for kind, n in decisions.rejected_by_kind().items() if n))
    elif args.by is None and not decisions.kinds:
        print(
            "one number decided; with a table by scorer_kinds, --reject-kinds tells noise, blur and others apart",
            file=sys.stderr,
        )
    if decisions.without_score:
        reasons = ", ".join(f"{count} {reason}" for reason, count in decisions.without_score.items())
        print(f"left out without a score: {reasons}")
    if decisions.count(State.NOT_FINITE):
        print(f"left out, {decisions.by} is not finite: {decisions.count(State.NOT_FINITE)}")
    if index.shards:
        held = f"{counted(index.samples, 'sample')} in {counted(len(index.shards), 'shard')}"
        print(f"{held}, {index.bytes / 1e6:.1f} MB")
    print_passed_over(outcome.passed_over)
    if outcome.unused:
        print(outcome.unused, file=sys.stderr)
    print(f"{options.output.rstrip('/')}/{HTML_NAME}")
    if not outcome.kept:
        values = decisions.values[np.isfinite(decisions.values)]
        print(
            f"synthpipe filter: nothing was kept: {decisions.by} lies in {values.min():.4g}..{values.max():.4g}; raise "
            + ("--threshold" if decisions.kinds else "--max-logit"),
            file=sys.stderr,
        )
    return 0 if outcome.kept else 1


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _threshold(text: str) -> tuple[str, float]:
    """``0.6`` of all kinds, under "", or ``noise=0.6`` of one."""
    kind, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1 or (equals and not kind):
        raise argparse.ArgumentTypeError(f"expected a probability, or KIND=probability, got {text!r}")
    return kind, value


def _thresholds(given: Sequence[tuple[str, float]]) -> tuple[float | None, dict[str, Any]]:
    """That of all kinds, and the option with those of single ones; the last of several holds."""
    single = {kind: value for kind, value in given if kind}
    common = [value for kind, value in given if not kind]
    return (common[-1] if common else None), ({"thresholds": single} if single else {})
