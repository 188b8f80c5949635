"""The loop of commands that turn each image of a folder into others: reading, writing, what is skipped, exit code."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from synthpipe.cli.command import print_passed_over
from synthpipe.cli.device import add_device_argument
from synthpipe.cli.places import local_path, place
from synthpipe.errors import ImageError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_folder_arguments", "check_at_least", "convert_images"]


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """``WEIGHTS``, ``IN``, ``OUT`` and ``--device``."""
    parser.add_argument(
        "weights", type=place, metavar="WEIGHTS", help="a .safetensors file, or the name of shipped weights"
    )
    parser.add_argument("source", type=local_path, metavar="IN", help="folder of images (nested is fine), or one image")
    parser.add_argument(
        "target", type=local_path, metavar="OUT", help="folder to write; files of the same name are replaced"
    )
    add_device_argument(parser)


def check_at_least(args: argparse.Namespace, limits: Mapping[str, float]) -> None:
    """Refuse arguments below their limits; those that were not given (None) pass.

    Raises:
        OptionError: names the argument.
    """
    for name, low in limits.items():
        value = getattr(args, name)
        if value is not None and not value >= low:
            raise OptionError(f"--{name.replace('_', '-')}: expected at least {low}, got {value}")


def convert_images(
    source: Path, target: Path, convert: Callable[[Tensor, str], Mapping[str, Tensor]], command: str, verb: str
) -> int:
    """Convert every image below ``source``; broken ones are skipped and listed on the error stream.

    Args:
        source: a folder, searched to any depth, links to folders included, or one image.
        target: folder of the results, PNG files under the same relative names; two images that differ in suffix alone
            keep theirs.
        convert: ``(image (1, 3, H, W) float32 in [0, 1], relative name without suffix)`` -> results by what is added
            to their names (``""`` or ``"_1"``), each ``(1, 3, h, w)``, clipped and rounded here.  It may raise
            :class:`synthpipe.errors.ImageError`, which skips the image.
        command: ``"degrade"``, for messages.
        verb: what was done to an image, such as ``"degraded"``.

    Returns:
        The exit code: 0 if any image worked, 1 if none did.

    Raises:
        OptionError: ``source`` does not exist.
    """
    from tqdm import tqdm

    from synthpipe.files.folder_walk import expected_images
    from synthpipe.files.image_files import list_images

    passed_over: Counter[str] = Counter()
    paths = list_images(source, passed_over)
    if not paths:
        print(f"synthpipe {command}: no images in {source}: {expected_images(passed_over)}", file=sys.stderr)
        return 1
    names = _relative_names(paths, source)
    failed: Counter[str] = Counter()
    for path in tqdm(paths, unit="image", disable=None):
        try:
            _convert_file(path, names[path], target, convert)
        except ImageError as error:
            failed[error.reason] += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    print_passed_over(passed_over)
    done = len(paths) - failed.total()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failed.items()))
    print(f"{target}: {done} of {len(paths)} images {verb}" + (f"; skipped: {reasons}" if reasons else ""))
    if done == 0:
        print(f"synthpipe {command}: no image below {source} could be used", file=sys.stderr)
    return 0 if done else 1


def _relative_names(paths: list[Path], source: Path) -> dict[Path, str]:
    """Relative name of each result, without ``.png``."""
    root = source if source.is_dir() else source.parent
    stems = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    taken = Counter(stems.values())
    return {path: stem if taken[stem] == 1 else path.relative_to(root).as_posix() for path, stem in stems.items()}


def _convert_file(path: Path, name: str, folder: Path, convert: Callable[[Tensor, str], Mapping[str, Tensor]]) -> None:
    import torch

    from synthpipe import images
    from synthpipe.files.decode import encode_png
    from synthpipe.files.image_files import read_image

    x = images.to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
    try:
        results = convert(x, name)
    except ImageError as error:
        raise ImageError(f"{path}: {error}", error.reason) from error
    for suffix, y in results.items():
        target = folder / f"{name}{suffix}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode_png(images.to_uint8(y)[0].permute(1, 2, 0).contiguous().numpy()))
