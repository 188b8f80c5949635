"""Pages of image files as models take them, and what models give as what came in: grey, with alpha, of 16 bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synthpipe.errors import ImageError
from synthpipe.files.original import Original
from synthpipe.images import crop_to_multiple, downscale_bicubic, luma

__all__ = ["PageImage", "filled", "page_arrays", "page_image", "whole_image"]


class PageImage(NamedTuple):
    """``x`` ``(1, 3, H, W)`` float32 in [0, 1], 1 is the page's white; ``alpha`` ``(1, 1, H, W)`` or None, 1 is opaque.

    Grey stands in all three channels.  Where nothing is seen, colours are white: a model must not see what is hidden
    there, and estimates of noise leave out what is all white.  ``hidden`` ``(1, 3, H, W)`` holds the colours that the
    page has there.
    """

    x: Tensor
    alpha: Tensor | None
    hidden: Tensor | None = None


def page_image(page: Original, reduction: int = 1) -> PageImage:
    """A page for a model.

    Args:
        page: at its own depth.
        reduction: reduce bicubically by this and round to the page's levels.  Colours are weighted by their alpha, so
            that hidden ones do not bleed into what is seen.

    Raises:
        ImageError: ``reason`` ``"too_small"``: a side shorter than ``reduction``.

    >>> from pathlib import Path
    >>> from synthpipe.files.original import read_pages
    >>> from synthpipe.transforms.page_images import page_image
    >>> path = min(Path("photos").glob("*.png"))
    >>> page, = read_pages(path.read_bytes(), path.name)
    >>> page_image(page, 2).x.shape
    torch.Size([1, 3, 80, 96])
    """
    x = _unit(page.color, page.peak)
    if x.shape[1] == 1:
        x = x.repeat(1, 3, 1, 1)
    alpha = None if page.alpha is None else _unit(page.alpha, _white(page.alpha))
    if min(x.shape[2:]) < reduction:
        raise ImageError(f"{x.shape[2]}x{x.shape[3]} is smaller than the scale {reduction}", "too_small")
    if alpha is None:
        return PageImage(x if reduction == 1 else _rounded(_reduced(x, reduction), page.peak), None)
    hidden = x
    if reduction > 1:
        hidden = _reduced(x, reduction)
        weighted, small = _reduced(x * alpha, reduction), _reduced(alpha, reduction)
        alpha = _rounded(small, _white(page.alpha))
        x = _rounded(weighted / torch.where(alpha > 0, alpha, 1), page.peak)
    return PageImage(torch.where(alpha > 0, x, 1), alpha, hidden)


def filled(image: PageImage) -> Tensor:
    """``x`` with the colours of what is seen carried on, ever smoother, into what is not.

    For enlarging and deblurring, which draw white from there into what is seen.
    """
    return image.x if image.alpha is None else _carried_on(image.x, (image.alpha > 0).to(image.x))


def whole_image(page: Original, multiple: int) -> PageImage:
    """A page at its own size, for what reduces it by itself: sides cropped to a multiple, nothing of it hidden.

    Raises:
        ShapeError: a side shorter than ``multiple``.
    """
    return PageImage(crop_to_multiple(filled(page_image(page)), multiple), None)


def page_arrays(y: Tensor, page: Original, given: PageImage) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """What a model made of a page, for :func:`synthpipe.files.original.encode_original`.

    Args:
        y: ``(1, 3, h, w)``, clipped and rounded here.
        page: what was read.
        given: what the model was given, from ``page``.

    Returns:
        Colours ``(h, w, 1)`` of a grey page (the luma of ``y``) or ``(h, w, 3)``, and alpha ``(h, w, 1)`` or None, on
        the page's scale and of its dtype.  Alpha is the one that was given, and so are the colours that it hides; for a
        larger result it is enlarged bicubically.
    """
    alpha, grey = given.alpha, page.color.shape[2] == 1
    if alpha is not None and given.hidden is not None and alpha.shape[2:] == y.shape[2:]:
        y = torch.where(alpha > 0, y, given.hidden)
    color = _levels(luma(y) if grey else y, page.peak, page.color)
    if page.alpha is None or alpha is None:
        return color, None
    if alpha.shape[2:] != y.shape[2:]:
        alpha = F.interpolate(alpha, y.shape[2:], mode="bicubic", align_corners=False)
    return color, _levels(alpha, _white(page.alpha), page.alpha)


def _carried_on(x: Tensor, seen: Tensor) -> Tensor:
    """Where ``seen`` ``(1, 1, H, W)`` is 0, colours of half the size, which are made in the same way."""
    if bool(seen.all()) or max(x.shape[2:]) == 1:
        return x
    share = F.avg_pool2d(seen, 2, ceil_mode=True)
    small = F.avg_pool2d(x * seen, 2, ceil_mode=True) / torch.where(share > 0, share, 1)
    small = _carried_on(torch.where(share > 0, small, 1), (share > 0).to(x))
    return torch.where(seen > 0, x, F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False))


def _unit(values: NDArray[Any], white: int) -> Tensor:
    """``(H, W, C)`` whole numbers -> ``(1, C, H, W)`` in [0, 1]."""
    levels = torch.from_numpy(values).permute(2, 0, 1)[None].to(torch.float32)
    return levels / levels.new_full((), white)


def _white(values: NDArray[Any] | None) -> int:
    return 255 if values is None else int(np.iinfo(values.dtype).max)


def _reduced(x: Tensor, reduction: int) -> Tensor:
    return downscale_bicubic(crop_to_multiple(x, reduction), reduction)


def _rounded(x: Tensor, white: int) -> Tensor:
    """What saving and reading again would do."""
    return (x.clamp(0, 1) * white).round() / x.new_full((), white)


def _levels(x: Tensor, white: int, like: NDArray[Any]) -> NDArray[Any]:
    levels = (x.clamp(0, 1) * white).round()[0].permute(1, 2, 0).contiguous()
    return levels.cpu().numpy().astype(like.dtype)
