"""``synthpipe degrade``: a folder of clean images to a folder of degraded ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command
from synthpipe.cli.device import find_device
from synthpipe.cli.folders.image_folder import FolderJob, convert_images, written_back
from synthpipe.cli.folders.result_names import PageKey
from synthpipe.cli.folders.validation_pairs import PAIR_FOLDERS, pairs, print_pairs
from synthpipe.cli.page_options import (
    MOST_SEEN,
    PageReading,
    add_folder_arguments,
    check_at_least,
    check_at_most,
    check_places,
)
from synthpipe.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.flows.frozen import FrozenDeFlow
    from synthpipe.flows.pile_levels import AskedLevel
    from synthpipe.transforms.page_images import PageImage

__all__ = ["add_parser", "run"]

_OPTION_FILES = (".yml", ".yaml")
#: Of an image that goes through a chain whole: 600 MB for each of the copies that stages make.
_MOST_PIXELS = 50_000_000

_EXAMPLE = """\
  synthpipe degrade deflow_small photos/ degraded/ --scale 4 --samples 2
  synthpipe degrade deflow_small photos/ val/ --pairs --scale 4
  synthpipe degrade train_esrgan.yml photos/ val/ --pairs

In place of WEIGHTS an option file (.yml, .yaml) will do: of a stream, of BasicSR, or `degrade` and `scale` alone. Each
image goes through all of `degrade` at once: those of more than 50 million pixels are skipped, unless --max-pixels says
otherwise. Sides are cropped to multiples of the scale.

With --pairs OUT gets two folders, gt and lq, with files of the same flat names: 8-bit sRGB without alpha, which is laid
on white, gt cropped to multiples of the scale.  BasicSR's PairedImageDataset reads them as they are meant.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "degrade",
        help="degrade a folder of images with a trained DeFlow or a chain",
        description="Write a degraded PNG for every image below IN, under the same relative name. "
        "With the same options an image's result depends on the seed and its relative name alone; another --tile or "
        "--overlap is other noise where an image is larger than a tile. Broken images are skipped and listed.",
        example=_EXAMPLE,
    )
    add_folder_arguments(parser, "; or an option file with a block `degrade`")
    parser.add_argument(
        "--scale", type=int, help="reduce by this: bicubically first (default 1), or as the option file does (its own)"
    )
    parser.add_argument(
        "--samples", type=int, default=1, help="results per image; above 1 they are named NAME_1.png, NAME_2.png, ..."
    )
    parser.add_argument(
        "--pairs", action="store_true", help="write pairs for validation: OUT/gt and OUT/lq, under flat names"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness (default 0)")
    parser.add_argument("--strength", type=float, help="1 is the trained degradation, 0 none (default 1)")
    parser.add_argument(
        "--level",
        type=float,
        help="noise level in units of sigma of 255, for weights that know one (default: drawn from those of their "
        "noisy images)",
    )
    parser.add_argument("--tile", type=int, help="largest side that a DeFlow degrades at once (default 512)")
    parser.add_argument("--overlap", type=int, help="pixels seen around each tile (default 32)")
    parser.add_argument(
        "--seen", type=int, help="of an option file: samples that schedules take as read (default: all, their ends)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Degrade; 0 if any image worked, 1 if none did."""
    from synthpipe.seeds import sample_seed

    check_at_least(
        args, {"scale": 1, "samples": 1, "seed": 0, "tile": 64, "overlap": 0, "strength": 0, "max_pixels": 1}
    )
    check_places(args)
    whole = args.weights.endswith(_OPTION_FILES)
    work = _by_options(args) if whole else _by_weights(args)
    suffixes = tuple(f"_{number + 1}" for number in range(args.samples)) if args.samples > 1 else ("",)

    def degrade(image: PageImage, key: PageKey) -> dict[str, Tensor]:
        """The image degraded, for each suffix of the file name."""
        return {
            suffix: work(image.x, sample_seed(args.seed, number, key.page)) for number, suffix in enumerate(suffixes)
        }

    folders = PAIR_FOLDERS if args.pairs else ("",)
    job = FolderJob(
        "degrade", "degraded", args.source, args.target, PageReading.of(args), args.in_place, suffixes, folders
    )
    render = pairs if args.pairs else written_back
    code = convert_images(job, render(degrade, args.scale, whole=whole))
    if args.pairs and code == 0:
        print_pairs(args.target, args.scale)
    return code


def _by_weights(args: argparse.Namespace) -> Callable[[Tensor, int], Tensor]:
    """By a trained DeFlow, tile by tile, of the reduced image and a seed."""
    from synthpipe import checkpoints
    from synthpipe.config.presets import PRESETS
    from synthpipe.config.stages.deflow import MOST_LEVEL, MOST_STRENGTH
    from synthpipe.flows.frozen import FrozenDeFlow
    from synthpipe.flows.pile_levels import AskedLevel

    if args.weights in PRESETS and args.weights not in checkpoints.shipped():
        raise OptionError(
            f"{args.weights}: is a preset and no weights; write {{scale: 4, degrade: {args.weights}}} into a file "
            "whose name ends in .yml, and give that"
        )
    if args.seen is not None:
        raise OptionError("--seen: weights have no schedule; leave it out, or give an option file in their place")
    for name, value in {"scale": 1, "strength": 1.0, "tile": 512, "overlap": 32}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    check_at_most(args, {"strength": MOST_STRENGTH, "level": MOST_LEVEL})
    if args.tile < 4 * args.overlap:
        raise OptionError(f"--tile: expected at least 4 times the overlap of {args.overlap}, got {args.tile}")
    args.device = find_device(args)
    model: Any = checkpoints.load(args.weights, kind="deflow")
    frozen = FrozenDeFlow(model).to(args.device)
    level = AskedLevel(frozen, args.level)
    return lambda x, seed: _degrade_image(frozen, x, seed, args, level)


def _by_options(args: argparse.Namespace) -> Callable[[Tensor, int], Tensor]:
    """By all that an option file describes, of the whole image and a seed."""
    from synthpipe.config.degrade import DeFlowDegradeOptions
    from synthpipe.config.reader import read_yaml
    from synthpipe.preview.option_files import degrade_options
    from synthpipe.transforms.build import build_degrade
    from synthpipe.transforms.whole_images import degrade_image

    for name in ("strength", "level", "tile", "overlap"):
        if getattr(args, name) is not None:
            raise OptionError(f"--{name}: is for weights; leave it out, the option file says what is done")
    options = degrade_options(read_yaml(args.weights), args.weights)
    degradation = options.degrade
    if isinstance(degradation, DeFlowDegradeOptions):
        degradation = degradation.model_copy(update={"samples": 1})  # --samples says how many
    args.scale = options.scale if args.scale is None else args.scale
    args.max_pixels = _MOST_PIXELS if args.max_pixels is None else args.max_pixels
    args.device = find_device(args)
    degrade = build_degrade(degradation, args.scale).to(args.device)
    seen = MOST_SEEN if args.seen is None else args.seen
    return lambda x, seed: degrade_image(degrade, x.to(args.device), seed, seen).cpu()


def _degrade_image(model: FrozenDeFlow, x: Tensor, seed: int, args: argparse.Namespace, asked: AskedLevel) -> Tensor:
    """``(1, 3, H, W)`` on the CPU, tile by tile on the device."""
    import torch

    from synthpipe.flows.draws import SeededNoise
    from synthpipe.transforms.tiling import apply_tiled

    seeds = torch.tensor([seed], device=args.device)
    # One level for all tiles of an image.
    one = torch.empty(1, 1, device=args.device)
    level = asked.draw(SeededNoise(seeds, "degrade level").uniform(one, 0)[:, 0]) if asked.drawn else None

    def degrade(tile: Tensor, index: int) -> Tensor:
        """One tile, ``(1, 3, h, w)`` in and out, with the draws that belong to its number."""
        noise = SeededNoise(seeds, f"degrade tile {index}")
        return model.degrade(tile.to(args.device), noise, args.strength, level=level).cpu()

    return apply_tiled(degrade, x, args.tile, args.overlap, model.size_multiple)
