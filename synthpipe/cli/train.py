"""``synthpipe train``: train a model from an option file."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from synthpipe.cli.command import add_command, log_lines
from synthpipe.cli.places import local_path

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe train recipes/deflow_small/train.yml run_dir=runs/a data.clean.folder=clean data.noisy.folder=noisy
  synthpipe train recipes/deflow_small/train.yml run_dir=runs/a ... --resume
  torchrun --nproc_per_node=2 -m synthpipe train recipes/deflow_aim/train.yml"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "train",
        help="train a model from an option file",
        description="Train a model from an option file; writes run_dir/final.safetensors.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "options", type=local_path, metavar="OPTIONS.yml", help="option file, such as recipes/deflow_small/train.yml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="options that replace those of the file")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run_dir")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train; 0 when done, also when max_minutes, SIGTERM or the first Ctrl-C ended the run with a checkpoint."""
    from synthpipe.config.training import read_train_options
    from synthpipe.training import train

    overrides = [*args.overrides, *(["resume=auto"] if args.resume else [])]
    options = read_train_options(args.options, overrides)
    with log_lines(), _asked_to_stop() as asked:
        path = train(options, stop=asked)
    print(path)
    return 0


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM or Ctrl-C has come; a second one ends the process as usual."""
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.getsignal(number) for number in signals}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        """Remember the signal; the next one of its kind is handled as before."""
        came.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number in signals:
            signal.signal(number, previous[number])
