"""Arguments of commands that turn a folder of images into others, and how they read each image: pages, range, size."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synthpipe.cli.command import add_max_pixels
from synthpipe.cli.device import add_device_argument
from synthpipe.cli.places import local_path, place
from synthpipe.errors import ImageError, OptionError
from synthpipe.pixel_limit import MAX_PIXELS

if TYPE_CHECKING:
    from synthpipe.files.original import Original

__all__ = [
    "MOST_SEEN",
    "PageReading",
    "add_folder_arguments",
    "add_in_place_argument",
    "add_page_arguments",
    "check_at_least",
    "check_at_most",
    "check_places",
]

_DEEPEST = 65535
#: Samples read, behind the end of every schedule.
MOST_SEEN = 1 << 53
_FIRST_PLACES = {"epoch": 0, "seen": 0, "world_size": 1}
_LAST_PLACES = {"epoch": 1 << 24, "seen": MOST_SEEN, "world_size": 1 << 16}
_PAGES = ("all", "first", "refuse")


@dataclass(frozen=True)
class PageReading:
    """How images are read.

    Args:
        pages: of files with several: all, the first, or none, which skips the image.
        value_range: see :func:`synthpipe.files.original.read_pages`.
        max_pixels: images of more are refused.
    """

    pages: Literal["all", "first", "refuse"] = "all"
    value_range: int | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, args: argparse.Namespace) -> PageReading:
        """Of the arguments of :func:`add_page_arguments`.

        Raises:
            OptionError: a limit below 1.
        """
        check_at_least(args, {"max_pixels": 1})
        return cls(args.pages or "all", args.range, MAX_PIXELS if args.max_pixels is None else args.max_pixels)

    def pages_of(self, path: Path) -> Iterator[tuple[Original, int]]:
        """The pages of a file that are used, each with the number of those that are left behind.

        Raises:
            ImageError: as :func:`synthpipe.files.original.read_pages`; ``"pages"``: several, which are refused.
        """
        from synthpipe.files.image_files import read_file
        from synthpipe.files.original import read_pages

        for page in read_pages(read_file(path), str(path), value_range=self.value_range, max_pixels=self.max_pixels):
            if page.pages > 1 and self.pages == "refuse":
                raise ImageError(f"{path}: has {page.pages} pages, which --pages refuse skips", "pages")
            if self.pages == "first":
                yield page, page.pages - 1
                return
            yield page, 0


def add_folder_arguments(parser: argparse.ArgumentParser, note: str = "") -> None:
    """``WEIGHTS``, ``IN``, ``OUT``, how images are read, and ``--device``; ``note`` follows the help of ``WEIGHTS``."""
    parser.add_argument(
        "weights", type=place, metavar="WEIGHTS", help=f"a .safetensors file, or the name of shipped weights{note}"
    )
    parser.add_argument("source", type=local_path, metavar="IN", help="folder of images (nested is fine), or one image")
    parser.add_argument(
        "target", type=local_path, metavar="OUT", help="folder to write; files of the same name are replaced"
    )
    add_in_place_argument(parser)
    add_page_arguments(parser, shards=False)
    add_device_argument(parser)


def add_in_place_argument(parser: argparse.ArgumentParser) -> None:
    """``--in-place``, of all commands with a folder of images as IN and as OUT."""
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="let OUT be IN, a folder of PNG: each image is replaced; or lie inside it: what is in OUT is not read",
    )


def add_page_arguments(parser: argparse.ArgumentParser, *, shards: bool = True) -> None:
    """How images are read, for :meth:`PageReading.of`; ``shards``: whether the command takes them, too."""
    parser.add_argument(
        "--pages",
        choices=_PAGES,
        help="of files with several pages or frames: all, as NAME_p1.png, NAME_p2.png, ... (default); the first"
        f"{' (of shards always)' if shards else ''}; or skip the file",
    )
    parser.add_argument(
        "--range",
        type=_range,
        metavar="auto|full|N",
        help="the value of white in 16-bit files: auto (default): 65535, or the least of 255, 1023 and 4095 that holds "
        "all values; full: 65535; or N. Results keep the scale of the file",
    )
    add_max_pixels(parser)


def check_at_least(args: argparse.Namespace, limits: Mapping[str, float]) -> None:
    """Refuse arguments below their limits; those that were not given (None) pass.

    Raises:
        OptionError: names the argument.
    """
    for name, low in limits.items():
        value = getattr(args, name)
        if value is not None and not value >= low:
            raise OptionError(f"--{name.replace('_', '-')}: expected at least {low}, got {value}")


def check_at_most(args: argparse.Namespace, limits: Mapping[str, float]) -> None:
    """Refuse arguments above their limits; those that were not given (None) pass, and so do those of other commands.

    Raises:
        OptionError: names the argument.
    """
    for name, high in limits.items():
        value = getattr(args, name, None)
        if value is not None and not value <= high:
            raise OptionError(f"--{name.replace('_', '-')}: expected at most {high}, got {value}")


def check_places(args: argparse.Namespace) -> None:
    """Refuse ``epoch``, ``seen`` and ``world_size`` to which no stream comes; raises :class:`OptionError`."""
    check_at_least(args, {name: low for name, low in _FIRST_PLACES.items() if hasattr(args, name)})
    check_at_most(args, _LAST_PLACES)


def _range(text: str) -> int | None:
    if text in ("auto", "full"):
        return _DEEPEST if text == "full" else None
    if text.isascii() and text.isdigit() and 0 < int(text) <= _DEEPEST:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected auto, full or a whole number from 1 to {_DEEPEST}, got {text!r}")
