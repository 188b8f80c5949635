"""``synthpipe calibrate``: fit a scorer on the user's own clean images."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command, add_max_pixels, given_options, log_lines, print_given_up
from synthpipe.cli.device import add_device_argument, find_device
from synthpipe.cli.places import local_path, place
from synthpipe.errors import CheckpointError, OptionError, counted

if TYPE_CHECKING:
    from synthpipe.config.calibration import CalibrationOptions
    from synthpipe.density import DDE

__all__ = ["add_parser", "run"]

#: Arguments that mean something only where there is a density.
_OF_DENSITIES = ("degraded", "families", "levels", "norm_levels", "tile", "tiles_per_image", "ignore", "ridge")

_EXAMPLE = """\
  synthpipe train recipes/scorer_small/train.yml run_dir=runs/dde data.clean.folder=photos
  synthpipe calibrate runs/dde/final.safetensors photos mine.safetensors --degraded scraped_bad
  synthpipe calibrate scorer_small photos mine.safetensors      # under the density that ships
  synthpipe calibrate scorer_kinds photos mine.safetensors      # a scorer that tells kinds apart, fitted anew
  synthpipe score mine.safetensors shards-{000..063}.tar scores.parquet"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "calibrate",
        help="fit a quality scorer on clean images, from a trained density",
        description="Cut tiles from clean images, corrupt copies of them, and fit the log-odds that a tile is "
        "degraded; with a scorer that tells kinds of degradation apart, fit it anew on mixtures of them. Prints how "
        "well it does on images that the fit did not see.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "weights",
        type=place,
        metavar="WEIGHTS",
        help="a trained density (`kind: dde`), a scorer with one, or a scorer of kinds",
    )
    parser.add_argument("clean", type=place, metavar="CLEAN_FOLDER", help="folder of clean images (nested is fine)")
    parser.add_argument("target", type=local_path, metavar="OUT.safetensors", help="the scorer to write")
    parser.add_argument(
        "--degraded",
        type=place,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of really degraded images, a family of its own; may be given several times",
    )
    parser.add_argument(
        "--families",
        nargs="*",
        metavar="FAMILY",
        help="synthetic corruptions to tell from clean "
        "(default: jpeg blur upscale noise screen page; none: --families with nothing after it)",
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        type=float,
        metavar="SIGMA",
        help="noise levels at which the density is asked (default 0.01 0.03)",
    )
    parser.add_argument(
        "--norm-levels", nargs="+", type=float, metavar="SIGMA", help="noise levels of score norms (default none)"
    )
    parser.add_argument("--reduce", type=float, help="half of the images are reduced by up to this first (default 2)")
    parser.add_argument("--tile", type=int, help="side of the tiles in pixels (default 64)")
    parser.add_argument("--tiles-per-image", type=int, help="tiles cut from each image (default 4)")
    parser.add_argument("--holdout", type=float, help="share of the images that the fit does not see (default 0.25)")
    parser.add_argument(
        "--ignore", nargs="+", metavar="PART", help="parts that shall not count, by name or pattern ('*_ratio_*')"
    )
    parser.add_argument("--ridge", type=float, help="penalty on the fit's weights (default 0.003)")
    parser.add_argument("--seed", type=int, help="seed of all randomness (default 0)")
    _add_kind_arguments(parser)
    add_max_pixels(parser)
    add_device_argument(parser, "kinds are fitted on the CPU")
    return parser


def _add_kind_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixtures", type=int, metavar="N", help="of kinds: degraded copies of each image (default 12)"
    )
    parser.add_argument(
        "--crisp",
        type=int,
        metavar="N",
        help="of kinds: degraded copies of each image beside those, reduced, sharpened or softened first (default 9)",
    )
    parser.add_argument(
        "--noises",
        type=place,
        nargs="*",
        metavar="WEIGHTS",
        help="of kinds: DeFlow weights that know levels, drawn beside synthetic noise (default canon_5d2 autochrome)",
    )


def run(args: argparse.Namespace) -> int:
    """Fit, print the table, write the scorer."""
    from synthpipe import checkpoints
    from synthpipe.files.whole_file import check_file_is_writable
    from synthpipe.training.calibration import calibrate

    if args.target.suffix != ".safetensors":
        raise OptionError(f"OUT: expected a file name ending in .safetensors, got {str(args.target)!r}")
    check_file_is_writable(args.target)
    if checkpoints.read_header(args.weights)["kind"] == "kind_scorer":
        return _fit_kinds(args)
    options = _options(args)
    dde, density = _density(args.weights)
    with log_lines(logging.INFO):
        scorer, info = calibrate(dde, args.clean, options, progress=True)
    path = checkpoints.save(args.target, scorer, {"calibration": info, "density": density})
    print(_table(info))
    print_given_up(info["given_up"])
    print(path)
    return 0


def _fit_kinds(args: argparse.Namespace) -> int:
    from synthpipe import checkpoints
    from synthpipe.config.calibration import KindCalibrationOptions
    from synthpipe.training.kinds import fit_kinds

    given = [name for name in _OF_DENSITIES if getattr(args, name) not in (None, [], ())]
    if given:
        raise OptionError(
            f"--{given[0].replace('_', '-')} is for scorers with a density, and {args.weights} tells kinds apart; "
            "leave it out"
        )
    if args.device not in ("auto", "cpu"):
        raise OptionError(f"--device: kinds are fitted on the CPU, got {args.device!r}; leave it out")
    options = given_options(args, KindCalibrationOptions)
    with log_lines(logging.INFO):
        scorer, info = fit_kinds(args.clean, options, progress=True)
    path = checkpoints.save(args.target, scorer, {"calibration": info})
    images = counted(info["images"], "image")
    print(f"fitted on {images}; each of {info['shares']} shares measured by a fit on the others:")
    print(f"{'kind':12} {'AUROC':>7} {'largest bias':>13} {'in bins':>8} {'copies':>7}")
    for kind, row in info["held_out"].items():
        bias = "unknown" if row["largest_bias"] is None else f"{row['largest_bias']:.3f}"
        print(f"{kind:12} {row['auroc']:7.3f} {bias:>13} {len(row['bins']):8d} {row['images']:7d}")
    if any(row["largest_bias"] is None for row in info["held_out"].values()):
        print("largest bias: unknown where fewer than 20 images say something of a probability; give more images")
    print_given_up(info["given_up"])
    print(path)
    return 0


def _density(weights: str) -> tuple[DDE, dict[str, Any]]:
    """The density of a file of kind ``dde``, or the one inside a scorer, and what its file says of it."""
    from synthpipe import checkpoints
    from synthpipe.density import DDE, DensityScorer

    header = checkpoints.read_header(weights)
    model = checkpoints.load(weights)
    if isinstance(model, DensityScorer):
        return model.dde, header["info"].get("density", header["info"])
    if isinstance(model, DDE):
        return model, header["info"]
    raise CheckpointError(
        f"{weights}: holds a {header['kind']!r} model, expected 'dde', 'density_scorer' or 'kind_scorer'"
    )


def _options(args: argparse.Namespace) -> CalibrationOptions:
    from synthpipe.config.calibration import CalibrationOptions

    given = [name for name in ("mixtures", "crisp", "noises") if getattr(args, name) is not None]
    if given:
        raise OptionError(f"--{given[0]} is for scorers that tell kinds apart, as scorer_kinds; leave it out")
    options = given_options(args, CalibrationOptions)
    return options.model_copy(update={"device": find_device(args)})


def _table(info: dict[str, Any]) -> str:
    """Figures on the images held out, one family a line."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(info["skipped"].items()))
    lines = [
        f"fitted on {counted(info['images_fitted'], 'image')}, measured on {counted(info['images_held_out'], 'other')}"
        + (f"; skipped: {skipped}" if skipped else ""),
        f"{'family':24} {'AUROC':>7} {'pairs':>7} {'caught at 5%':>13} {'coder bits alone':>17} {'tiles':>7}",
    ]
    for name, row in info["held_out"].items():
        pairs = "-" if row["pair_accuracy"] is None else f"{row['pair_accuracy']:.3f}"
        lines.append(
            f"{name:24} {row['auroc']:7.3f} {pairs:>7} {row['caught_at_5_percent']:13.3f} "
            f"{row['coder_bits_auroc']:17.3f} {row['tiles']:7d}"
        )
    return "\n".join(lines)
