"""The loop of commands that turn each image of a folder into others: reading, writing, what is skipped, exit code."""

from __future__ import annotations

import argparse
import errno
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

    from synthpipe.files.output_place import OutputPlace

__all__ = ["add_folder_arguments", "add_in_place_argument", "check_at_least", "convert_images"]


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """``WEIGHTS``, ``IN``, ``OUT`` and ``--device``."""
    parser.add_argument(
        "weights", type=place, metavar="WEIGHTS", help="a .safetensors file, or the name of shipped weights"
    )
    parser.add_argument("source", type=local_path, metavar="IN", help="folder of images (nested is fine), or one image")
    parser.add_argument(
        "target", type=local_path, metavar="OUT", help="folder to write; files of the same name are replaced"
    )
    add_in_place_argument(parser)
    add_device_argument(parser)


def add_in_place_argument(parser: argparse.ArgumentParser) -> None:
    """``--in-place``, of all commands with a folder of images as IN and as OUT."""
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="let OUT be IN, a folder of PNG: each image is replaced; or lie inside it: what is in OUT is not read",
    )


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
    source: Path,
    target: Path,
    convert: Callable[[Tensor, str], Mapping[str, Tensor]],
    command: str,
    verb: str,
    *,
    in_place: bool = False,
    samples: int = 1,
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
        in_place: whether ``target`` may be ``source`` or lie inside it, see :func:`add_in_place_argument`.
        samples: results of each image.

    Returns:
        The exit code: 0 if any image worked, 1 if none did.

    Raises:
        OptionError: ``source`` does not exist; ``target`` is ``source`` or lies inside it, and may not.
    """
    from tqdm import tqdm

    from synthpipe.files.folder_walk import expected_images
    from synthpipe.files.image_files import list_images
    from synthpipe.files.whole_file import check_folder_is_writable

    passed_over: Counter[str] = Counter()
    place = _output_place(target, in_place)
    paths = list_images(source, passed_over, place)
    if not paths:
        print(f"synthpipe {command}: no images in {source}: {expected_images(passed_over)}", file=sys.stderr)
        return 1
    names = _relative_names(paths, source)
    check_folder_is_writable(target)
    _check_results(names, source, place, samples)
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


def _output_place(target: Path, in_place: bool) -> OutputPlace:
    from synthpipe.files.output_place import OutputPlace

    cure = "name a folder beside it, or add --in-place, which replaces images of the same name"
    return OutputPlace(target, in_place=in_place, cure=cure)


def _check_results(names: Mapping[Path, str], source: Path, place: OutputPlace, samples: int) -> None:
    """Refuse results that would lie among the images that are read, unless each takes the place of its image.

    Raises:
        OptionError: says which, and what to do.
    """
    if place.in_place and place.is_at(source):
        if samples > 1:
            raise OptionError(f"--in-place: {samples} results cannot replace one image; leave out --samples")
        strange = [str(path) for path, name in names.items() if path.name != f"{Path(name).name}.png"]
        if strange:
            raise OptionError(
                f"--in-place: {len(strange)} images are no .png, such as {strange[0]!r}: their results would lie "
                "beside them, and the next run would read both; name another OUT"
            )
    elif source.is_dir():
        place.check_folders({path.parent for path in names}, {Path(name).parent for name in names.values()})
    elif not place.in_place:
        place.check_file(*next(iter(names.items())))


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
        _write_result(
            folder / f"{name}{suffix}.png", encode_png(images.to_uint8(y)[0].permute(1, 2, 0).contiguous().numpy())
        )


def _write_result(path: Path, data: bytes) -> None:
    """Write one file whole; a name that is too long for the file system skips the image."""
    from synthpipe.files.whole_file import write_whole

    try:
        write_whole(path, data)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = f"{path.name[:40]}...{path.name[-30:]}"
        raise ImageError(
            f"{path.parent}: the name of the result, {name}, is too long; rename the image", "long_name"
        ) from error
