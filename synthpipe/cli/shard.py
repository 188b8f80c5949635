"""``synthpipe shard``: image folders and tars to WebDataset shards."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from synthpipe.cli.command import (
    add_command,
    add_max_pixels,
    given_options,
    print_given_up,
    print_passed_over,
    progress_bar,
)
from synthpipe.cli.places import place
from synthpipe.errors import counted

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe shard photos/ more_photos/ /data/hr --workers 8 --max-bytes 512M --min-size 256
  synthpipe shard "/data/foreign/*.tar" /data/hr

The shards /data/hr/shard-000000.tar, ... hold the files as they are, whatever their format, and a JSON with size,
source and checksum each.  /data/hr/index.json lists the shards.  /data/hr/report.json lists the images that could not
be used, and counts what the others lose when they are read as 8-bit sRGB (alpha, 16 bits, further pages, ...).  After
an interruption the same command goes on where it stopped.  OUT_DIR may be s3://bucket/folder.

Of tars (files, patterns, folders with an index), every image becomes a sample under a key without dots; files with the
image's full stem (clip.000.txt for clip.000.png) go with it.
"""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "shard",
        help="image folders, or tars of others, to WebDataset shards",
        description="Pack image folders into WebDataset tar shards with an index.",
        example=_EXAMPLE,
    )
    add = parser.add_argument
    add("inputs", type=place, nargs="+", metavar="IN", help="folder of images, searched to any depth, or tars")
    add("output", type=place, metavar="OUT_DIR", help="folder for the shards, local or an fsspec URL")
    add("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    add("--max-samples", type=int, metavar="N", help="images in a shard, at most (default: 1000)")
    add(
        "--max-bytes",
        type=_size,
        metavar="SIZE",
        help="bytes of images in a shard, at most, as in 512M (default: 256M)",
    )
    add("--min-size", type=int, metavar="PIXELS", help="leave out images whose shorter side is less (default: 0)")
    add("--reencode", choices=["png"], help="store 8-bit RGB PNG instead of the files' own bytes")
    add("--alpha", choices=["white", "refuse"], help="transparent images: accepted (default), or listed as broken")
    add_max_pixels(parser)
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--seed", type=int, metavar="N", help="spread images over shards at random (default: 0)")
    order.add_argument("--sorted", action="store_true", help="keep the order of the folders instead")
    add("--prefix", metavar="NAME", help="shards are called NAME-000000.tar (default: shard)")
    add("--verify", choices=["sha256", "size"], help="how a resumed run checks finished shards (default: sha256)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the shards; returns the exit code."""
    from synthpipe.config.shard import ShardOptions
    from synthpipe.files.printable import printable
    from synthpipe.shards.engine import default_workers
    from synthpipe.shards.pack import REPORT_NAME, write_shards

    more: dict[str, Any] = {"seed": None} if args.sorted else {}
    workers = default_workers() if args.workers is None else args.workers
    options = given_options(args, ShardOptions, inputs=tuple(args.inputs), workers=workers, **more)
    print("listing images ...", file=sys.stderr)
    with progress_bar("image") as show:
        report = write_shards(options, show)
    index = report.index
    held = f"{index.samples} of {counted(report.images, 'image')} in {counted(len(index.shards), 'shard')}"
    print(f"{held}, {index.bytes / 1e6:.1f} MB")
    if report.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items())
        print(f"left out: {reasons}; see {index.root}/{REPORT_NAME}")
    print_given_up(report.given_up, report.examples)
    if report.wrong_suffix:
        named = ", ".join(map(printable, report.examples["wrong_suffix"]))
        print(f"wrong suffix: {report.wrong_suffix}, stored with that of their format: {named}", file=sys.stderr)
    print_passed_over(report.ignored)
    return 0


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected bytes such as 500000, 512M or 1G, got {text!r}")
    return int(match.group(1)) * _UNITS[match.group(2).upper()]
