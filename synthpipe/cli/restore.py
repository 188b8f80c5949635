"""``synthpipe restore``: undo a known blur, reduction, loss of pixels or noise in a folder of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command
from synthpipe.cli.device import find_device
from synthpipe.cli.folders.image_folder import FolderJob, convert_images, written_back
from synthpipe.cli.folders.result_names import PageKey
from synthpipe.cli.page_options import PageReading, add_folder_arguments, check_at_least
from synthpipe.cli.places import local_path, place
from synthpipe.errors import DivergenceError, ImageError, OptionError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from synthpipe.denoisers import Denoiser
    from synthpipe.denoisers.degradation_operators import DegradationOperator
    from synthpipe.denoisers.plug_and_play import Method
    from synthpipe.transforms.page_images import PageImage

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe restore map_small blurred/ sharp/ --task deblur --kernel kernel.png
  synthpipe restore map_small small/ large/ --task sr --scale 2
  synthpipe restore map_small holes/ whole/ --task inpaint --mask masks/ --sigma 0.004

Kernels are grey images (divided by their sum), .npy arrays that sum to 1, or gaussian:SIGMA; their sides are odd.
Masks are white where a pixel is missing: one image for all, or a folder with the images' relative names.
Noise levels are standard deviations on the [0, 1] scale: 2.55/255 is 0.01.  Images of any size are restored whole;
the denoiser alone goes tile by tile, with no difference to the result.  Memory: about 0.3 GB for each megapixel.
"""

#: What is reckoned with where the noise of images with missing pixels is not given: rounding, and a little more.
_INPAINTING_SIGMA = 1 / 255
# Kernels and scales far above these are mistakes, and take memory without end.
_LARGEST_KERNEL, _WIDEST_GAUSSIAN, _LARGEST_SCALE = 1001, 125, 64
#: Levels of 255 by which channels of a grey image may differ, as coding of colour leaves them.
_COLOUR = 8
#: Where the annealed schedule is not that of deblurring: holes fill from their borders, which takes time; noise alone
#: takes one step at its own level.
_SCHEDULES: dict[str, dict[str, float]] = {
    "inpaint": {"iterations": 20, "first": 30 / 255, "last": 15 / 255},
    "denoise": {"iterations": 1, "first": 0.001, "floor": 0.001},
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "restore",
        help="deblur, enlarge, fill or denoise a folder of images with any trained denoiser",
        description="Restore every image below IN with a trained denoiser as the prior (plug and play), and write a "
        "PNG under the same relative name. Broken images are skipped and listed.",
        example=_EXAMPLE,
    )
    add_folder_arguments(parser)
    parser.add_argument("--task", required=True, choices=["deblur", "sr", "inpaint", "denoise"], help="what to undo")
    parser.add_argument(
        "--kernel", type=place, metavar="K", help="the blur, for deblur; for sr, in place of bicubic reduction"
    )
    parser.add_argument("--scale", type=int, help="how many times larger, for sr")
    parser.add_argument(
        "--mask", type=local_path, metavar="M", help="for inpaint: an image, or a folder; white is missing"
    )
    parser.add_argument(
        "--sigma",
        default="auto",
        metavar="auto|X",
        help="noise of the images (default: auto, each image's; for inpaint 1/255)",
    )
    parser.add_argument(
        "--border",
        choices=["unknown", "circular"],
        default="unknown",
        help="for deblur: the scene goes on beyond the image (default), or wraps around",
    )
    parser.add_argument(
        "--method",
        choices=["annealed", "map", "dpir", "dmsp"],
        default="annealed",
        help="how the prior is used (default annealed)",
    )
    parser.add_argument("--iterations", type=int, help="steps of the method (default: its own)")
    parser.add_argument("--first", type=float, metavar="X", help="level of the first denoising (default: its own)")
    parser.add_argument("--last", type=float, metavar="X", help="level of the last (default: the noise)")
    parser.add_argument("--penalty", type=float, help="weight of the prior's side (default: the method's own)")
    parser.add_argument("--tile", type=int, default=512, help="largest side denoised at once (default 512)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Restore; 0 if any image worked, 1 if none did."""
    import torch

    from synthpipe.denoisers.noise_level import estimate_sigma
    from synthpipe.denoisers.plug_and_play import Problem, restore
    from synthpipe.transforms.page_images import filled

    check_at_least(args, {"scale": 2, "iterations": 1, "tile": 64})
    args.device = find_device(args)
    reading = PageReading.of(args)
    sigma = _sigma(args)
    method = _method(args)
    operator_for = _operators(args, reading.max_pixels)
    _check_masks(args.target, args.mask)
    denoise = _tiled(_load(args), args.tile)

    def convert(image: PageImage, key: PageKey) -> dict[str, Tensor]:
        """The restored image, on the CPU; ImageError where it does not fit the operator, and for NaN."""
        x, level = filled(image), sigma
        if level is None and image.alpha is not None:
            # What is filled is smooth; white is left out of estimates.
            level = float(estimate_sigma(image.x))
        try:
            operator = operator_for(x, key).to(args.device)
            problem = Problem(operator, _observed(operator, x.to(args.device), args), level)
        except ShapeError as error:
            raise ImageError(str(error), "shape") from error
        try:
            result = restore(problem, denoise, method).image
        except DivergenceError as error:
            raise ImageError(str(error), "diverged") from error
        if not bool(torch.isfinite(result).all()):
            raise ImageError("the denoiser gave NaN or infinity", "not_finite")
        return {"": result.cpu()}

    job = FolderJob("restore", "restored", args.source, args.target, reading, in_place=args.in_place)
    return convert_images(job, written_back(convert))


def _sigma(args: argparse.Namespace) -> float | None:
    if args.sigma == "auto":
        return _INPAINTING_SIGMA if args.task == "inpaint" else None
    try:
        sigma = float(args.sigma)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 1:
        raise OptionError(f"--sigma: expected auto or a number from 0 to 1, got {args.sigma!r}; 5/255 is 0.0196")
    return sigma


def _method(args: argparse.Namespace) -> Method:
    from synthpipe.denoisers.plug_and_play import method_named

    given = {name: getattr(args, name) for name in ("iterations", "first", "last", "penalty")}
    if args.method == "annealed":
        given = _SCHEDULES.get(args.task, {}) | {name: value for name, value in given.items() if value is not None}
    return method_named(args.method, **given)


def _load(args: argparse.Namespace) -> Denoiser:
    from synthpipe.transforms.denoise import load_denoiser

    return load_denoiser(args.weights).requires_grad_(False).to(args.device)


def _tiled(model: Denoiser, tile: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Denoising tile by tile, which gives what the whole image would: tiles overlap by the reach of the network."""
    from synthpipe.transforms.tiling import apply_tiled

    side = max(tile, 4 * (model.reach + model.grid))

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        """``x`` ``(B, C, H, W)`` without noise of standard deviation ``level`` ``(B,)``."""
        return apply_tiled(lambda part, _: model.denoise(part, level), x, side, model.reach, model.grid)

    return denoise


def _observed(operator: DegradationOperator, x: Tensor, args: argparse.Namespace) -> Tensor:
    return operator(x) if args.task == "inpaint" else x  # what lies under a mask is nobody's business


def _operators(args: argparse.Namespace, max_pixels: int) -> Callable[[Tensor, PageKey], DegradationOperator]:
    """What degraded an image ``(1, 3, h, w)`` of this relative name."""
    from synthpipe.denoisers.blur_kernels import bicubic_kernel
    from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur
    from synthpipe.denoisers.degradation_operators import Identity, Mask

    _check_task(args)
    if (args.scale or 1) > _LARGEST_SCALE:
        raise OptionError(f"--scale: expected at most {_LARGEST_SCALE}, got {args.scale}")
    if args.task == "denoise":
        return lambda x, key: Identity()
    if args.task == "inpaint":
        return lambda x, key: Mask(_read_mask(args.mask, x, key, max_pixels))
    kernel, centre = (_read_kernel(args.kernel), None) if args.kernel else bicubic_kernel(args.scale)
    blur = (ValidBlur if args.border == "unknown" else CircularBlur)(kernel, args.scale or 1, centre)
    return lambda x, key: blur


def _check_task(args: argparse.Namespace) -> None:
    needs = {"deblur": "kernel", "sr": "scale", "inpaint": "mask"}
    takes = {"deblur": {"kernel"}, "sr": {"kernel", "scale"}, "inpaint": {"mask"}, "denoise": set()}
    need = needs.get(args.task)
    if need is not None and getattr(args, need) is None:
        raise OptionError(f"--task {args.task}: needs --{need}")
    for name in ("kernel", "scale", "mask"):
        if getattr(args, name) is not None and name not in takes[args.task]:
            raise OptionError(f"--task {args.task}: has no --{name}, got {getattr(args, name)}")


def _read_kernel(text: str) -> Tensor:
    """Of ``gaussian:SIGMA``, a .npy file or a grey image."""
    import numpy as np
    import torch

    from synthpipe.array_file import read_npy
    from synthpipe.denoisers.blur_kernels import check_kernel, gaussian_kernel
    from synthpipe.files.image_files import read_image

    try:
        if text.startswith("gaussian:"):
            sigma = float(text.removeprefix("gaussian:"))
            if not 0 < sigma <= _WIDEST_GAUSSIAN:
                raise OptionError(f"--kernel {text}: expected a sigma above 0 and up to {_WIDEST_GAUSSIAN} pixels")
            return gaussian_kernel(sigma)
        if not Path(text).is_file():
            raise OptionError(f"--kernel: expected gaussian:SIGMA, a .npy array or an image, found no file {text!r}")
        if text.endswith(".npy"):
            array = read_npy(text)
            if array.dtype.kind not in "fiub":
                raise OptionError(
                    f"--kernel {text}: expected an array of real numbers, got {array.dtype} {array.shape}"
                )
            kernel = torch.from_numpy(array.astype(np.float64))
        else:
            levels = torch.from_numpy(read_image(text)).double()
            if float((levels.amax(2) - levels.amin(2)).max()) > _COLOUR:
                raise OptionError(f"--kernel {text}: expected a grey image of the kernel, got one in colour")
            kernel = levels.mean(2) / levels.mean(2).sum()
        check_kernel(kernel)
        if max(kernel.shape) > _LARGEST_KERNEL:
            sides = "x".join(map(str, kernel.shape))
            raise OptionError(f"--kernel {text}: {sides}, expected sides up to {_LARGEST_KERNEL}; cut it")
    except (ShapeError, ImageError, ValueError) as error:
        raise OptionError(f"--kernel {text}: {error}") from error
    return kernel


def _check_masks(target: Path, masks: Path | None) -> None:
    """Results must not replace masks of the same names."""
    from synthpipe.files.output_place import OutputPlace, identity_of

    if masks is not None and masks.is_dir():
        OutputPlace(target, cure="name another OUT").check(identity_of(masks.stat()), str(masks))


def _read_mask(place: Path, x: Tensor, key: PageKey, max_pixels: int) -> Tensor:
    """``(1, 1, H, W)``, 1 where a pixel is there; a page has a mask of its own, or that of the whole file."""
    import torch

    from synthpipe.files.image_files import read_image
    from synthpipe.files.image_formats import IMAGE_SUFFIXES

    path = place
    if place.is_dir():
        names = dict.fromkeys([key.page, key.file])
        named = (place / f"{name}{suffix}" for name in names for suffix in ("", *sorted(IMAGE_SUFFIXES)))
        found = next((path for path in named if path.is_file()), None)
        if found is None:
            raise ImageError(f"--mask: no image {key.page}.png, ... in {place}", "no_mask")
        path = found
    elif not place.is_file():
        raise OptionError(f"--mask: expected an image or a folder of images, found nothing at {place}")
    levels = torch.from_numpy(read_image(path, max_pixels=max_pixels)).float().mean(2)
    missing = levels >= 128
    if 0 < float(levels.max()) < 128:
        raise ImageError(
            f"the mask {path} holds values up to {float(levels.max()):g} of 255; white (255) means missing", "mask_dark"
        )
    if missing.shape != x.shape[2:]:
        raise ImageError(
            f"the mask {path} has {missing.shape[0]}x{missing.shape[1]} pixels, the image {x.shape[2]}x{x.shape[3]}",
            "mask_size",
        )
    if bool(missing.all()):
        raise ImageError(f"the mask {path} leaves no pixel: white means missing", "mask_full")
    return (~missing).float()[None, None]
