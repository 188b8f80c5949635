"""``synthpipe preview``: a picture of what a stream makes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command, print_given_up, print_passed_over
from synthpipe.cli.device import add_device_argument, find_device
from synthpipe.cli.page_options import check_at_least, check_places
from synthpipe.cli.places import local_path
from synthpipe.errors import OptionError

if TYPE_CHECKING:
    from synthpipe.config.stream import StreamOptions
    from synthpipe.noise_statistics import NoiseStatistics

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe preview train_esrgan.yml runs/look --real noisy_photos/
  synthpipe preview train_esrgan.yml runs/look --real noisy_photos/ --report
  synthpipe preview zoo runs/look --photos photos/
  synthpipe preview canon_5d2,real-esrgan,bsrgan runs/look --photos photos/ --scale 4
"""
_OPTION_FILES = (".yml", ".yaml")
_ROWS, _SCALE = 6, 4
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
        "degradation has choices, each crop is also shown degraded every way. With --photos: many side by side, "
        "also by name: `zoo`, or presets between commas.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "options",
        type=local_path,
        metavar="OPTIONS.yml",
        help="stream options, or a BasicSR option file; with --photos also `zoo`, or names of presets between commas",
    )
    parser.add_argument("target", type=local_path, metavar="OUT_DIR", help="folder for preview.png")
    parser.add_argument("--real", type=local_path, help="folder of real degraded images to show beside the made ones")
    parser.add_argument(
        "--report",
        nargs="?",
        type=local_path,
        const=True,
        metavar="OUT.html",
        help="also write OUT_DIR/report.html (or this file) and the same numbers as .json: noise that is made against "
        "that of --real and --pairs, with verdicts",
    )
    parser.add_argument(
        "--pairs",
        nargs=2,
        type=local_path,
        metavar=("CLEAN", "NOISY"),
        help="for the report: folders of aligned pairs with equal names",
    )
    parser.add_argument(
        "--photos",
        type=local_path,
        help="folder of clean photographs, in place of the stream's images: clean | each degradation, and below each "
        "its difference",
    )
    parser.add_argument("--scale", type=int, help="with --photos: reduce by this (default 4, or the option file's)")
    parser.add_argument("--rows", type=int, help="crops to show (default 6; 3 with --photos)")
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
    check_at_least(args, {"rows": 1, "crop": 9, "zoom": 1, "scale": 1})
    check_places(args)
    return _of_stream(args) if args.photos is None else _side_by_side(args)


def _of_stream(args: argparse.Namespace) -> int:
    from synthpipe.config.reader import read_yaml
    from synthpipe.files.decode import encode_png
    from synthpipe.files.whole_file import check_file_is_writable, write_whole
    from synthpipe.preview import make_preview, preview_options

    _refuse(args, ("scale",), "is for --photos; the option file says it")
    _check_is_file(args.options)
    options = preview_options(read_yaml(args.options), str(args.options))
    page = _page(args)
    for folder in (args.real, *(args.pairs or ())):
        _check_output(args.target, folder)
    device = find_device(args)
    path = args.target / "preview.png"
    for file in (path, *([] if page is None else [page, page.with_suffix(".json")])):
        check_file_is_writable(file)
    made = make_preview(
        options,
        real=args.real,
        rows=_ROWS if args.rows is None else args.rows,
        crop=args.crop,
        zoom=args.zoom,
        stages=args.stages,
        seen=args.seen,
        device=device,
    )
    write_whole(path, encode_png(made.picture))
    print(f"degraded - clean: {_noise_words(made.degraded)}")
    if made.absent:
        print(f"drawn by none of the crops: {', '.join(made.absent)}")
    print_given_up(made.given_up)
    print_passed_over(made.passed_over)
    _print_skipped(made.skipped, "real images")
    if page is not None:
        _write_report(args, options, page, device, made.skipped)
    print(path)
    return 0


def _page(args: argparse.Namespace) -> Path | None:
    """Where the report goes; None: nowhere.

    Raises:
        OptionError: a name that is none of a page; something to compare with, and no report.
    """
    if args.report is None:
        _refuse(args, ("pairs",), "is for --report; add it")
        return None
    page: Path = args.target / "report.html" if args.report is True else args.report
    if page.suffix != ".html":
        raise OptionError(f"--report: expected a file name ending in .html, got {str(page)!r}")
    return page


def _write_report(
    args: argparse.Namespace, options: StreamOptions, page: Path, device: str, named: Sequence[str]
) -> None:
    """The page and its numbers, the verdicts on the output; what was skipped, but for what has been ``named``."""
    import json

    from synthpipe.files.whole_file import write_whole
    from synthpipe.noise_report import render_page
    from synthpipe.preview.report import stream_report

    skipped: list[str] = []
    pairs = None if args.pairs is None else (args.pairs[0], args.pairs[1])
    report = stream_report(
        options,
        f"Noise of {args.options.name}",
        real=args.real,
        pairs=pairs,
        crop=args.crop,
        seen=args.seen,
        device=device,
        skipped=skipped,
    )
    write_whole(page.with_suffix(".json"), json.dumps(report.as_dict(), indent=1).encode())
    write_whole(page, render_page(report).encode())
    for side in report.sides:
        for verdict in side.verdicts:
            option = f"; change: {verdict.option}" if verdict.option else ""
            said = verdict.words if verdict.status in verdict.words else f"{verdict.status}, {verdict.words}"
            print(f"{side.name}: {verdict.subject}: {said}{option}")
    _print_skipped([text for text in dict.fromkeys(skipped) if text not in named], "images of the report")
    print(page)


def _side_by_side(args: argparse.Namespace) -> int:
    """Degradations by name, or the ways of an option file, of photographs that are at hand."""
    if args.report is not None:
        raise OptionError("--report: is of a stream; leave out --photos")
    from synthpipe.config.reader import read_yaml
    from synthpipe.files.decode import encode_png
    from synthpipe.files.whole_file import check_file_is_writable, write_whole
    from synthpipe.preview.option_files import degrade_options
    from synthpipe.preview.side_by_side import degradations_by_name, draw_side_by_side, ways_of_file

    _refuse(args, ("real", "stages", "pairs"), "shows what a stream makes; leave it out with --photos")
    if args.options.suffix in _OPTION_FILES:
        options = degrade_options(read_yaml(args.options), str(args.options))
        scale = options.scale if args.scale is None else args.scale
        degradations = ways_of_file(options.degrade)
    else:
        scale = _SCALE if args.scale is None else args.scale
        degradations = degradations_by_name(str(args.options), scale)
    _check_output(args.target, args.photos)
    device = find_device(args)
    path = args.target / "preview.png"
    check_file_is_writable(path)
    given = {name: getattr(args, name) for name in ("rows", "crop", "seen") if getattr(args, name) is not None}
    made = draw_side_by_side(degradations, args.photos, scale=scale, zoom=args.zoom, device=device, **given)
    write_whole(path, encode_png(made.picture))
    for name, noise in made.added.items():
        print(f"{name} - clean: {_noise_words(noise)}")
    print_passed_over(made.passed_over)
    _print_skipped(made.skipped, "photographs")
    print(path)
    return 0


def _noise_words(noise: NoiseStatistics) -> str:
    sigma = " / ".join(f"{255 * value:.1f}" for value in noise.sigma)
    return f"sigma R / G / B {sigma} of 255, lag-1 correlation {noise.lag1_h:.2f} across, {noise.lag1_v:.2f} down"


def _print_skipped(skipped: Sequence[str], what: str) -> None:
    for text in skipped[:_NAMED]:
        print(f"skipped: {text}", file=sys.stderr)
    if len(skipped) > _NAMED:
        print(f"skipped: {len(skipped) - _NAMED} more of the {what}", file=sys.stderr)


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(args, name):
            raise OptionError(f"--{name}: {why}")


def _check_is_file(options: Path) -> None:
    """A name is no file; raises :class:`OptionError`."""
    from synthpipe.config.presets import PRESETS

    if not options.exists() and any(part in ("zoo", *PRESETS) for part in str(options).split(",")):
        raise OptionError(f"{options}: names degradations and no stream; give the images to show, as --photos FOLDER")


def _check_output(target: Path, real: Path | None) -> None:
    """The picture is none of the images that are shown."""
    from synthpipe.files.output_place import OutputPlace, identity_of

    if real is not None and real.is_dir():
        OutputPlace(target, "OUT_DIR", cure="name another folder").check(identity_of(real.stat()), str(real))
