"""``synthpipe check``: whether a clean and a noisy pile fit together, before a training."""

from __future__ import annotations

import argparse
import json
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command, add_max_pixels, log_lines
from synthpipe.cli.page_options import check_at_least
from synthpipe.cli.places import local_path
from synthpipe.pixel_limit import MAX_PIXELS

if TYPE_CHECKING:
    from synthpipe.training.data.pile_check import PileCheck

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe check /data/clean_photos /data/noisy_photos
  synthpipe check /data/clean_photos /data/noisy_photos --scale 2 --json check.json"""
_WIDTH = 110
_VERDICTS = {
    "fits": "the piles fit together",
    "fits with options": "the piles fit together, with the options below",
    "does not fit": "the piles do not fit together: mend what says so first",
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "check",
        help="say whether a clean and a noisy pile fit together",
        description="Measure two folders of photographs, 24 crops of each, before a DeFlow is trained on them: amount, "
        "noise, sharpness, brightness, colour cast, JPEG blocks. Says of each whether it fits, what to do, and which "
        "options to train with. The exit code is 0 whatever the verdict is.",
        example=_EXAMPLE,
    )
    parser.add_argument("clean", type=local_path, metavar="CLEAN", help="folder of clean images (nested is fine)")
    parser.add_argument("noisy", type=local_path, metavar="NOISY", help="folder of degraded images")
    parser.add_argument(
        "--scale", type=int, default=1, metavar="N", help="reduce the clean images by this first (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which crops (default 0)")
    add_max_pixels(parser)
    parser.add_argument("--json", type=local_path, metavar="FILE", help="write the numbers and verdicts here, too")
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and say; 0 when both piles could be measured."""
    from synthpipe.files.whole_file import check_file_is_writable, write_whole
    from synthpipe.training.data.pile_check import check_piles

    check_at_least(args, {"scale": 1, "seed": 0, "max_pixels": 1})
    if args.json is not None:
        check_file_is_writable(args.json)
    with log_lines():
        limit = MAX_PIXELS if args.max_pixels is None else args.max_pixels
        found = check_piles(args.clean, args.noisy, args.scale, args.seed, limit)
    print(_text(found))
    if args.json is not None:
        write_whole(args.json, json.dumps(found.as_dict(), indent=1).encode())
        print(args.json)
    return 0


def _text(found: PileCheck) -> str:
    lines = []
    for finding in found.findings:
        mark = {"fits": "ok  ", "fits with options": "set ", "does not fit": "BAD "}[finding.fit]
        lines += textwrap.wrap(f"{mark} {finding.subject}: {finding.words}", _WIDTH, subsequent_indent="     ")
    lines += ["", _VERDICTS[found.fit]]
    # As a shell takes them: a list has blanks and brackets.
    lines += [f"  {shlex.quote(f'{name}={_plain(value)}')}" for name, value in found.options.items()]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """As YAML reads it; texts without quotes, which a shell would take off."""
    return value if isinstance(value, str) else json.dumps(value)
