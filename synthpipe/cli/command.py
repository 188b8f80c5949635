"""What every command does alike: its place in ``synthpipe``, its options, its progress bar and what it says."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

from tqdm import tqdm

from synthpipe.errors import counted

if TYPE_CHECKING:
    from synthpipe.config.reader import Options

__all__ = [
    "Progress",
    "add_command",
    "add_max_pixels",
    "given_options",
    "log_lines",
    "print_given_up",
    "print_nothing_done",
    "print_passed_over",
    "progress_bar",
]

OptionsT = TypeVar("OptionsT", bound="Options")


class Progress(Protocol):
    """How far a command is."""

    def __call__(self, done: int, total: int, images: int | None = None) -> None:
        """Show units done and units in all; where units are shards, also the images in those done."""


def add_command(subparsers: Any, name: str, *, help: str, description: str, example: str) -> argparse.ArgumentParser:
    """Add a command to ``synthpipe`` and return its parser, for its arguments.

    Args:
        subparsers: of the parser of ``synthpipe``.
        name: what the user types.
        help: half a sentence for the list of commands.
        description: sentences for the top of the command's own help.
        example: one command line; or several indented ones and what there is to say of them, shown as they are.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=textwrap.fill(description, shutil.get_terminal_size().columns - 2),
        epilog=f"example:\n{example}" if example.startswith(" ") else f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    return parser


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """``--max-pixels``, as all commands have it that decode images."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse images of more pixels than this (default: 200 million)",
    )


def given_options(args: argparse.Namespace, schema: type[OptionsT], **more: Any) -> OptionsT:
    """The options of ``schema`` that stand in ``args``, over which goes ``more``; None counts as not given in ``args``.

    Raises:
        OptionError: a value that the schema refuses.
    """
    from synthpipe.config.reader import parse_options

    given = {name: value for name in schema.model_fields if (value := getattr(args, name, None)) is not None}
    return parse_options(given | more, schema, source=f"synthpipe {args.command}")


@contextmanager
def progress_bar(unit: str) -> Iterator[Progress]:
    """A bar on the error stream while inside, moved by the function that this gives; nothing where that is a file."""
    with tqdm(unit=unit, disable=None) as bar:

        def show(done: int, total: int, images: int | None = None) -> None:
            """Move the bar to ``done`` of ``total``; ``images`` is written behind it."""
            bar.total = total
            if images is not None:
                bar.set_postfix_str(counted(images, "image"), refresh=False)
            bar.update(done - bar.n)

        yield show


@contextmanager
def log_lines(level: int | None = None) -> Iterator[None]:
    """Show what synthpipe logs on the error stream while inside, above a progress bar instead of through it.

    Args:
        level: from where on; by default warnings, unless another part of synthpipe says otherwise.
    """
    logger = logging.getLogger("synthpipe")
    before = logger.level
    console = _Console(sys.stderr)
    logger.addHandler(console)
    if level is not None:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(console)
        logger.setLevel(before)


def print_nothing_done(command: str, what: str, skipped: Mapping[str, int]) -> None:
    """The end of a command that no image went through: ``what``, and what helps by the reasons in ``skipped``."""
    from synthpipe.files.skip_advice import raise_limit, skip_advice

    advice = skip_advice(skipped, {"bomb": raise_limit("--max-pixels")}, start="; ")
    print(f"synthpipe {command}: {what}{advice}", file=sys.stderr)


def print_passed_over(passed_over: Mapping[str, int]) -> None:
    """One line on the error stream of what lay in the folders beside the images, by suffix or reason."""
    from synthpipe.files.folder_walk import passed_over_text

    if passed_over:
        print(f"passed over: {passed_over_text(passed_over)}", file=sys.stderr)


def print_given_up(given_up: Mapping[str, int], files: Mapping[str, Sequence[str]] | None = None) -> None:
    """Say on the error stream what images held that was not used, by reason, and a line on each.

    Args:
        given_up: counts by the reasons of :data:`synthpipe.files.decode.GIVEN_UP`.
        files: the first few of each reason.
    """
    from synthpipe.files.decode import GIVEN_UP
    from synthpipe.files.printable import printable

    if given_up:
        print("given up: " + ", ".join(f"{count} {reason}" for reason, count in given_up.items()), file=sys.stderr)
    for reason in given_up:
        named = [printable(name) for name in (files or {}).get(reason, ())]
        print(f"  {reason}: {GIVEN_UP[reason]}{'; ' if named else ''}{', '.join(named)}", file=sys.stderr)


class _Console(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        tqdm.write(self.format(record), file=self.stream)
