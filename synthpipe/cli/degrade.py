"""``synthpipe degrade``: a folder of clean images to a folder of degraded ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command
from synthpipe.cli.device import find_device
from synthpipe.cli.folders.image_folder import FolderJob, convert_images, written_back
from synthpipe.cli.folders.result_names import PageKey
from synthpipe.cli.folders.validation_pairs import PAIR_FOLDERS, pairs, print_pairs
from synthpipe.cli.page_options import PageReading, add_folder_arguments, check_at_least
from synthpipe.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.flows.frozen import FrozenDeFlow
    from synthpipe.transforms.page_images import PageImage

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe degrade deflow_small photos/ degraded/ --scale 4 --samples 2
  synthpipe degrade deflow_small photos/ val/ --pairs --scale 4

With --pairs OUT gets two folders, gt and lq, with files of the same flat names: 8-bit sRGB without alpha, which is laid
on white, gt cropped to multiples of the scale.  BasicSR's PairedImageDataset reads them as they are meant.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "degrade",
        help="degrade a folder of images with a trained DeFlow",
        description="Write a degraded PNG for every image below IN, under the same relative name. "
        "With the same options an image's result depends on the seed and its relative name alone; another --tile or "
        "--overlap is other noise where an image is larger than a tile. Broken images are skipped and listed.",
        example=_EXAMPLE,
    )
    add_folder_arguments(parser)
    parser.add_argument("--scale", type=int, default=1, help="reduce bicubically by this first (default 1)")
    parser.add_argument(
        "--samples", type=int, default=1, help="results per image; above 1 they are named NAME_1.png, NAME_2.png, ..."
    )
    parser.add_argument(
        "--pairs", action="store_true", help="write pairs for validation: OUT/gt and OUT/lq, under flat names"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness (default 0)")
    parser.add_argument("--strength", type=float, default=1.0, help="1 is the trained degradation, 0 none (default 1)")
    parser.add_argument("--tile", type=int, default=512, help="largest side degraded at once (default 512)")
    parser.add_argument("--overlap", type=int, default=32, help="pixels seen around each tile (default 32)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Degrade; 0 if any image worked, 1 if none did."""
    from synthpipe import checkpoints
    from synthpipe.flows.frozen import FrozenDeFlow
    from synthpipe.seeds import sample_seed

    check_at_least(args, {"scale": 1, "samples": 1, "seed": 0, "tile": 64, "overlap": 0, "strength": 0})
    if args.tile < 4 * args.overlap:
        raise OptionError(f"--tile: expected at least 4 times the overlap of {args.overlap}, got {args.tile}")
    args.device = find_device(args)
    model: Any = checkpoints.load(args.weights, kind="deflow")
    frozen = FrozenDeFlow(model).to(args.device)

    suffixes = tuple(f"_{number + 1}" for number in range(args.samples)) if args.samples > 1 else ("",)

    def degrade(image: PageImage, key: PageKey) -> dict[str, Tensor]:
        """The image degraded, for each suffix of the file name."""
        return {
            suffix: _degrade_image(frozen, image.x, sample_seed(args.seed, number, key.page), args)
            for number, suffix in enumerate(suffixes)
        }

    folders = PAIR_FOLDERS if args.pairs else ("",)
    job = FolderJob(
        "degrade", "degraded", args.source, args.target, PageReading.of(args), args.in_place, suffixes, folders
    )
    code = convert_images(job, pairs(degrade, args.scale) if args.pairs else written_back(degrade, args.scale))
    if args.pairs and code == 0:
        print_pairs(args.target, args.scale)
    return code


def _degrade_image(model: FrozenDeFlow, x: Tensor, seed: int, args: argparse.Namespace) -> Tensor:
    """``(1, 3, H, W)`` on the CPU, tile by tile on the device."""
    import torch

    from synthpipe.flows.draws import SeededNoise
    from synthpipe.transforms.tiling import apply_tiled

    seeds = torch.tensor([seed], device=args.device)

    def degrade(tile: Tensor, index: int) -> Tensor:
        """One tile, ``(1, 3, h, w)`` in and out, with the draws that belong to its number."""
        noise = SeededNoise(seeds, f"degrade tile {index}")
        return model.degrade(tile.to(args.device), noise, args.strength).cpu()

    return apply_tiled(degrade, x, args.tile, args.overlap, model.size_multiple)
