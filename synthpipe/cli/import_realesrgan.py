"""``synthpipe import-realesrgan``: a BasicSR option file of Real-ESRGAN to one that degrades in the stream."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from synthpipe.cli.command import add_command
from synthpipe.cli.places import local_path, place

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "import-realesrgan",
        help="a BasicSR option file of Real-ESRGAN to one that degrades in the stream",
        description="Translate an option file of RealESRGANModel or RealESRNetModel with a RealESRGANDataset into an "
        "equal one: a SynthPipeDataset makes the pairs, each sample with draws of its own, and the model trains on "
        "them. What has no equal is said on the error stream and at the top of the file.",
        example="synthpipe import-realesrgan train_realesrgan_x4plus.yml --shards /data/hr --out train_stream.yml",
    )
    parser.add_argument("source", type=local_path, metavar="OPT.yml", help="the option file, as BasicSR reads it")
    parser.add_argument("--out", type=local_path, metavar="FILE", help="the file to write (default: standard output)")
    parser.add_argument(
        "--shards",
        type=place,
        metavar="PLACE",
        help="where the shards lie or will lie (default: beside the images, their folder's name with _shards)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, translate, write, and say what has no equal; returns the exit code."""
    from synthpipe.basicsr_plugin.command_line import CommandLine
    from synthpipe.basicsr_plugin.option_file import read_option_file
    from synthpipe.config.import_realesrgan import option_file_text, translate
    from synthpipe.errors import OptionError
    from synthpipe.files.whole_file import check_file_is_writable, write_whole

    if args.out is not None:
        if args.out.exists() and os.path.samefile(args.out, args.source):
            raise OptionError(f"--out {args.out}: is the file that is read; name another")
        check_file_is_writable(args.out)
    # By the rules of BasicSR, to which `yes` is true, and written for them.
    source = str(args.source)
    translation = translate(read_option_file(CommandLine(source)), source, args.shards)
    text = option_file_text(translation, args.source.name)
    if args.out is None:
        print(text, end="")
    else:
        write_whole(args.out, text.encode())
        print(f"{args.out}: written")
    for command in translation.commands:
        print(f"run first: {command}", file=sys.stderr)
    for note in translation.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0
