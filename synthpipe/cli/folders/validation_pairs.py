"""Pairs of a clean and a degraded image in two folders, as BasicSR's ``PairedImageDataset`` reads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from synthpipe.cli.folders.image_folder import Render, Rendered, Result
from synthpipe.cli.folders.result_names import PageKey
from synthpipe.errors import counted

if TYPE_CHECKING:
    from torch import Tensor

    from synthpipe.files.original import Original
    from synthpipe.transforms.page_images import PageImage

__all__ = ["PAIR_FOLDERS", "pairs", "print_pairs"]

PAIR_FOLDERS = ("gt", "lq")


def pairs(degrade: Callable[[PageImage, PageKey], Mapping[str, Tensor]], scale: int, *, whole: bool = False) -> Render:
    """Of each page ``gt``, 8-bit sRGB on white and cropped to a multiple of ``scale``, and ``lq`` made of just that.

    Args:
        degrade: of the reduced gt and its key -> results by suffix; each gets a gt of its own.
        scale: of the reduction.
        whole: ``degrade`` reduces by itself, and is given gt.
    """

    def render(page: Original, key: PageKey) -> Rendered:
        """See :data:`synthpipe.cli.folders.image_folder.Render`."""
        from dataclasses import replace

        from synthpipe.files.decode import flatten_page
        from synthpipe.files.original import encode_original
        from synthpipe.transforms.page_images import page_arrays, page_image, whole_image

        pixels, given_up = flatten_page(page)
        height, width = (side // scale * scale for side in pixels.shape[:2])
        flat = replace(page, color=pixels, alpha=None, peak=255, exif=None)
        given = page_image(flat, scale)
        gt = encode_original(pixels[:height, :width])
        results = []
        for suffix, y in degrade(whole_image(flat, scale) if whole else given, key).items():
            lq = encode_original(*page_arrays(y, flat, given))
            results += [Result("gt", suffix, gt), Result("lq", suffix, lq)]
        return Rendered(results, given_up)

    return render


def print_pairs(target: Path, scale: int) -> None:
    """What lies in the folders now, and for which scale; earlier runs may have left other pairs."""
    # BasicSR takes every file that is not hidden.
    gt, lq = ({path.name for path in (target / folder).glob("[!.]*")} for folder in PAIR_FOLDERS)
    others = sorted(name for name in gt & lq if not _is_of_scale(target, name, scale))
    print(f"{target}/gt and {target}/lq: {counted(len(gt & lq) - len(others), 'pair')} for scale {scale}")
    if others:
        print(f"to be removed there: {counted(len(others), 'pair')} of another scale, such as {others[0]!r}")
    if scale == 1:
        print("gt and lq have the same size; for super-resolution give --scale, such as --scale 4")
    if alone := sorted(gt ^ lq):
        print(f"to be removed there: {counted(len(alone), 'file')} without a partner, such as {alone[0]!r}")


def _is_of_scale(target: Path, name: str, scale: int) -> bool:
    from synthpipe.errors import ImageError
    from synthpipe.files.image_size import image_size

    try:
        (height, width), small = (image_size(target / folder / name, sys.maxsize) for folder in PAIR_FOLDERS)
    except ImageError:
        return False
    return (height, width) == (scale * small[0], scale * small[1])
