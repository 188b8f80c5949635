"""``synthpipe denoise``: clean the images of a folder, or of shards, with a trained denoiser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synthpipe.cli.command import add_command, given_options, print_given_up, print_nothing_done, progress_bar
from synthpipe.cli.device import add_device_argument, find_device
from synthpipe.cli.folders.image_folder import FolderJob, convert_images, written_back
from synthpipe.cli.folders.result_names import PageKey
from synthpipe.cli.page_options import PageReading, add_in_place_argument, add_page_arguments
from synthpipe.cli.places import place
from synthpipe.cli.score import add_engine_arguments
from synthpipe.errors import OptionError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.config.denoise import DenoiseOptions
    from synthpipe.corpus.image_units import ShardUnit
    from synthpipe.transforms.page_images import PageImage

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe denoise auto photos/ cleaned/
  synthpipe denoise mine.safetensors /data/hr /data/hr_clean --sigma 0.02 --workers 8

WEIGHTS auto is a network for the noise of cameras and one for white noise, by what is measured on each image.  Without
--sigma, --min-sigma, --max-sigma, --hole and --strength, all of it follows from level and correlation of the image's
noise; with one of them, the others are as each of them says.
IN is a folder of images (nested is fine) or one image: OUT gets a PNG of each under the same relative name.  Or IN is
shards (a folder with an index, a pattern such as hr-{000..511}.tar, URLs): OUT gets shards with the same samples under
the same keys in the same order, images as PNG, everything else byte for byte, and an index; after an interruption the
same command goes on where it stopped.  Noise levels are standard deviations on the [0, 1] scale: 5/255 is 0.0196.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "denoise",
        help="clean the images of a folder or of shards with a trained denoiser",
        description="Denoise every image of a folder or of shards with any trained denoiser.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "weights", type=place, metavar="WEIGHTS", help="auto, a .safetensors file, or the name of shipped weights"
    )
    parser.add_argument("source", type=place, nargs="+", metavar="IN", help="a folder of images, one image, or shards")
    parser.add_argument("output", type=place, metavar="OUT", help="folder to write; of shards, local or an fsspec URL")
    add_in_place_argument(parser)
    add_page_arguments(parser)
    parser.add_argument(
        "--sigma", type=_level, metavar="auto|X", help="level of the noise (auto: each image's, taken for white)"
    )
    parser.add_argument("--min-sigma", type=float, metavar="X", help="images estimated below X stay as they are")
    parser.add_argument("--max-sigma", type=float, metavar="X", help="estimates above X are taken for X")
    parser.add_argument(
        "--hole", type=int, metavar="PIXELS", help="widens a blind-spot network's hole, for correlated noise"
    )
    parser.add_argument("--strength", type=float, metavar="S", help="mix with the input: 1 is denoised (default 1)")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="longest side denoised at once (default 512)")
    parser.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="overlap of tiles (default: what the network sees)"
    )
    add_device_argument(parser, "with shards, cuda is a device for each worker")
    parser.add_argument(
        "--broken",
        choices=["skip", "copy"],
        default="skip",
        help="samples of shards whose image cannot be read: leave out (default) or take over as they are",
    )
    add_engine_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Denoise; 0 if any image worked, 1 if none did."""
    from synthpipe.config.denoise import DenoiseOptions
    from synthpipe.corpus.image_units import ShardUnit, find_units, is_image_file, is_image_folder
    from synthpipe.files.output_place import local_output

    options = given_options(args, DenoiseOptions)
    args.device = find_device(args)
    if all(is_image_folder(place) or is_image_file(place) for place in args.source):
        return _denoise_folder(options, args)
    if args.in_place:
        raise OptionError("--in-place: is for a folder of images; shards are written anew, name another OUT")
    output = local_output(args.output)
    expected = "a folder of images, one image, or shards (tars, their folder or index)"
    units = find_units(args.source, allow_pipe=bool(args.allow_pipe), output=output, expected=expected)
    return _denoise_shards(options, [unit for unit in units if isinstance(unit, ShardUnit)], args)


def _denoise_folder(options: DenoiseOptions, args: argparse.Namespace) -> int:
    import torch

    from synthpipe.errors import ImageError
    from synthpipe.transforms.build import build_denoise

    if len(args.source) > 1:
        raise OptionError(f"IN: expected one folder of images at a time, or one image, got {len(args.source)}")
    transform = build_denoise(options).to(args.device)

    def clean(image: PageImage, key: PageKey) -> dict[str, Tensor]:
        """The image without noise, on the CPU."""
        y = transform.clean(image.x.to(args.device), rounded=False).cpu()
        if not bool(torch.isfinite(y).all()):
            raise ImageError("the denoiser gave NaN or infinity", "not_finite")
        return {"": y}

    source, target = Path(args.source[0]), Path(args.output)
    job = FolderJob("denoise", "denoised", source, target, PageReading.of(args), in_place=args.in_place)
    return convert_images(job, written_back(clean))


def _denoise_shards(options: DenoiseOptions, units: list[ShardUnit], args: argparse.Namespace) -> int:
    from synthpipe.corpus.denoise_edit import DenoiseEdit
    from synthpipe.corpus.edit import REPORT_NAME, edit_corpus
    from synthpipe.corpus.shard_edit import ImageReading
    from synthpipe.shards.engine import default_workers

    if args.pages == "all":
        raise OptionError("--pages all: a sample of a shard is one image; give first (the default) or refuse")
    reading = PageReading.of(args)

    engine: Literal["local", "ray"] = args.engine or "local"
    cuda = args.device.startswith("cuda")
    workers = args.workers or default_workers(cuda=cuda)
    # Each worker process sees one device, by the name "cuda".
    apart = cuda and (workers > 1 or engine == "ray")
    with progress_bar("shard") as show:
        report = edit_corpus(
            units,
            DenoiseEdit.of(options, "cuda" if apart else args.device),
            args.output,
            broken=args.broken,
            reading=ImageReading(reading.value_range, reading.max_pixels, args.pages == "refuse"),
            engine=engine,
            workers=workers,
            cuda=cuda,
            on_progress=show,
        )
    index = report.index
    done = f"{report.edited} of {counted(report.images, 'image')} denoised"
    print(f"{args.output}: {done}, in {counted(len(index.shards), 'shard')}")
    if report.broken:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.broken.items())
        what = "skipped" if args.broken == "skip" else "taken over as they are where possible"
        print(f"{what}: {reasons}; see {args.output}/{REPORT_NAME}")
    if report.further:
        print(
            f"taken over as they are: {counted(report.further, 'further image')} beside the samples' own",
            file=sys.stderr,
        )
    print_given_up(report.given_up, report.examples)
    if not report.edited:
        print_nothing_done("denoise", "no image could be denoised; the report says why", report.broken)
    return 0 if report.edited else 1


def _level(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected auto or a number from 0 to 1, got {text!r}") from error
