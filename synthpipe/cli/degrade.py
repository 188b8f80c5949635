"""``synthpipe degrade``: a folder of clean images to a folder of degraded ones."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthpipe.errors import ImageError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.flows.deflow import DeFlow

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "degrade",
        help="degrade a folder of images with a trained DeFlow",
        description="Write a degraded PNG for every image below IN, under the same relative name. "
        "An image's result depends on the seed and its relative name alone. Broken images are skipped and listed.",
        epilog="example: synthpipe degrade deflow_small photos/ degraded/ --scale 4 --samples 2",
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="a .safetensors file, or the name of shipped weights")
    parser.add_argument("source", type=Path, metavar="IN", help="folder of images (nested is fine), or one image")
    parser.add_argument("target", type=Path, metavar="OUT", help="folder to write; files of the same name are replaced")
    parser.add_argument("--scale", type=int, default=1, help="reduce bicubically by this first (default 1)")
    parser.add_argument(
        "--samples", type=int, default=1, help="results per image; above 1 they are named NAME_1.png, NAME_2.png, ..."
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness (default 0)")
    parser.add_argument("--strength", type=float, default=1.0, help="1 is the trained degradation, 0 none (default 1)")
    parser.add_argument("--tile", type=int, default=512, help="largest side degraded at once (default 512)")
    parser.add_argument("--overlap", type=int, default=32, help="pixels seen around each tile (default 32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Degrade; 0 if any image worked, 1 if none did."""
    from tqdm import tqdm

    from synthpipe import checkpoints
    from synthpipe.pipeline.image_files import list_images

    _check(args)
    paths = list_images(args.source)
    model: Any = checkpoints.load(args.weights, kind="deflow").requires_grad_(False).to(args.device)
    targets = _targets(paths, args.source)
    failed: Counter[str] = Counter()
    for path in tqdm(paths, unit="image", disable=None):
        try:
            _degrade_file(model, path, targets[path], args)
        except ImageError as error:
            failed[error.reason] += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    done = len(paths) - failed.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
    print(f"{args.target}: {done} of {len(paths)} images degraded" + (f"; skipped: {reasons}" if reasons else ""))
    if done == 0:
        print(f"synthpipe degrade: no image below {args.source} could be used", file=sys.stderr)
    return 0 if done else 1


def _check(args: argparse.Namespace) -> None:
    import torch

    for name, low in (("scale", 1), ("samples", 1), ("seed", 0), ("tile", 64), ("overlap", 0), ("strength", 0)):
        if getattr(args, name) < low:
            raise OptionError(f"--{name}: expected at least {low}, got {getattr(args, name)}")
    if args.tile < 4 * args.overlap:
        raise OptionError(f"--tile: expected at least 4 times the overlap of {args.overlap}, got {args.tile}")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device: {args.device!r} cannot be used here: {error}") from error


def _targets(paths: list[Path], source: Path) -> dict[Path, str]:
    """Relative name of each result, without ``.png``; two images that differ in suffix alone keep theirs."""
    root = source if source.is_dir() else source.parent
    stems = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    taken = Counter(stems.values())
    return {path: stem if taken[stem] == 1 else path.relative_to(root).as_posix() for path, stem in stems.items()}


def _degrade_file(model: DeFlow, path: Path, name: str, args: argparse.Namespace) -> None:
    import torch

    from synthpipe import images
    from synthpipe.pipeline.decode import encode_png
    from synthpipe.pipeline.image_files import read_image
    from synthpipe.transforms.base import sample_seed

    x = images.to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
    if min(x.shape[-2:]) < args.scale:
        raise ImageError(f"{path}: {x.shape[-2]}x{x.shape[-1]} is smaller than the scale {args.scale}", "too_small")
    x = images.quantize_8bit(images.downscale_bicubic(images.crop_to_multiple(x, args.scale), args.scale))
    for number in range(args.samples):
        y = _degrade_image(model, x, sample_seed(args.seed, number, name), args)
        suffix = f"_{number + 1}" if args.samples > 1 else ""
        target = args.target / f"{name}{suffix}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode_png(images.to_uint8(y)[0].permute(1, 2, 0).contiguous().numpy()))


def _degrade_image(model: DeFlow, x: Tensor, seed: int, args: argparse.Namespace) -> Tensor:
    """``(1, 3, H, W)`` on the CPU, tile by tile on the device."""
    from synthpipe.transforms.base import generator_for
    from synthpipe.transforms.tiling import apply_tiled

    def degrade(tile: Tensor, index: int) -> Tensor:
        generator = generator_for(seed, f"degrade tile {index}")
        return model.degrade(tile.to(args.device), [generator], args.strength).cpu()

    return apply_tiled(degrade, x, args.tile, args.overlap, model.size_multiple)
