"""``synthpipe preview``: a picture of what a stream makes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from synthpipe.cli.command import add_command, print_given_up, print_passed_over
from synthpipe.cli.device import add_device_argument, find_device
from synthpipe.cli.page_options import check_at_least, check_places
from synthpipe.cli.places import local_path

__all__ = ["add_parser", "run"]

#: Real images that could not be shown, of which messages name so many.
_NAMED = 5


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "preview",
        help="draw what a stream makes",
        description="Write OUT_DIR/preview.png: clean | degraded | real degraded | difference x8, from the stream that "
        "OPTIONS.yml describes (a stream option file, or a BasicSR option file with a SynthPipeDataset). Where the "
        "degradation has choices, each crop is also shown degraded every way.",
        example="synthpipe preview train_esrgan.yml runs/look --real noisy_photos/",
    )
    parser.add_argument(
        "options", type=local_path, metavar="OPTIONS.yml", help="stream options, or a BasicSR option file"
    )
    parser.add_argument("target", type=local_path, metavar="OUT_DIR", help="folder for preview.png")
    parser.add_argument("--real", type=local_path, help="folder of real degraded images to show beside the made ones")
    parser.add_argument("--rows", type=int, default=6, help="crops to show (default 6)")
    parser.add_argument("--crop", type=int, help="side of a crop in low-resolution pixels (default 64)")
    parser.add_argument("--zoom", type=int, default=4, help="enlargement, whole pixels (default 4)")
    parser.add_argument(
        "--stages", action="store_true", help="show the crops behind each stage of the degradation, too"
    )
    parser.add_argument(
        "--seen", type=int, help="samples that a schedule takes as read before (default: the stream's first)"
    )
    add_device_argument(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw; 0 when the picture is written."""
    from synthpipe.config.reader import read_yaml
    from synthpipe.files.decode import encode_png
    from synthpipe.files.whole_file import check_file_is_writable, write_whole
    from synthpipe.preview import make_preview, preview_options

    check_at_least(args, {"rows": 1, "crop": 9, "zoom": 1})
    check_places(args)
    options = preview_options(read_yaml(args.options), str(args.options))
    _check_output(args.target, args.real)
    device = find_device(args)
    path = args.target / "preview.png"
    check_file_is_writable(path)
    made = make_preview(
        options,
        real=args.real,
        rows=args.rows,
        crop=args.crop,
        zoom=args.zoom,
        stages=args.stages,
        seen=args.seen,
        device=device,
    )
    write_whole(path, encode_png(made.picture))
    noise = made.degraded
    sigma = " / ".join(f"{255 * value:.1f}" for value in noise.sigma)
    correlation = f"lag-1 correlation {noise.lag1_h:.2f} across, {noise.lag1_v:.2f} down"
    print(f"degraded - clean: sigma R / G / B {sigma} of 255, {correlation}")
    if made.absent:
        print(f"drawn by none of the crops: {', '.join(made.absent)}")
    print_given_up(made.given_up)
    print_passed_over(made.passed_over)
    for text in made.skipped[:_NAMED]:
        print(f"skipped: {text}", file=sys.stderr)
    if len(made.skipped) > _NAMED:
        print(f"skipped: {len(made.skipped) - _NAMED} more of the real images", file=sys.stderr)
    print(path)
    return 0


def _check_output(target: Path, real: Path | None) -> None:
    """The picture is no real image."""
    from synthpipe.files.output_place import OutputPlace, identity_of

    if real is not None and real.is_dir():
        OutputPlace(target, "OUT_DIR", cure="name another folder").check(identity_of(real.stat()), str(real))
