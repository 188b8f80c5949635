"""``synthpipe train``: train a model from an option file."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from tqdm import tqdm

__all__ = ["add_parser", "run"]

_EXAMPLE = """example:
  synthpipe train recipes/deflow_small/train.yml run_dir=runs/a data.clean.folder=clean data.noisy.folder=noisy
  synthpipe train recipes/deflow_small/train.yml run_dir=runs/a ... --resume
  torchrun --nproc_per_node=2 -m synthpipe train recipes/deflow_aim/train.yml"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Register the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a model from an option file",
        description="Train a model from an option file; writes run_dir/final.safetensors.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", metavar="OPTIONS.yml", help="option file, such as recipes/deflow_small/train.yml")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="options that replace those of the file")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run_dir")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train; 0 when done, also when max_minutes, SIGTERM or the first Ctrl-C ended the run with a checkpoint."""
    from synthpipe.config.training import read_train_options
    from synthpipe.training import train

    overrides = [*args.overrides, *(["resume=auto"] if args.resume else [])]
    options = read_train_options(args.options, overrides)
    logger = logging.getLogger("synthpipe")
    console = _Console(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(console)
    try:
        with _asked_to_stop() as asked:
            path = train(options, stop=asked)
    finally:
        logger.removeHandler(console)
    print(path)
    return 0


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM or Ctrl-C has come; a second one ends the process as usual."""
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.getsignal(number) for number in signals}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number in signals:
            signal.signal(number, previous[number])


class _Console(logging.StreamHandler[TextIO]):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)
