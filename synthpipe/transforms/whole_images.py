"""A degradation on whole images of any size, one at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.errors import ImageError, OptionError
from synthpipe.transforms.base import BatchTransform

__all__ = ["degrade_image"]


@torch.no_grad()
def degrade_image(degrade: BatchTransform, x: Tensor, seed: int, seen: int) -> Tensor:
    """``(1, 3, H, W)`` in [0, 1] -> ``(1, 3, H / scale, W / scale)``, unrounded, on the same device.

    Args:
        degrade: on the device of ``x``.
        x: sides are multiples of its scale.
        seed: all randomness.
        seen: samples that a schedule takes as read before.

    Raises:
        ImageError: ``reason`` ``"unfit_size"``: a stage cannot take images of this size; ``"not_finite"``: NaN out.
    """
    try:
        degrade.check_tiles(*x.shape[2:])
    except OptionError as error:
        size = f"{x.shape[2]}x{x.shape[3]}"
        raise ImageError(f"{size} does not go through the degradation: {error}", "unfit_size") from error
    lq: Tensor = degrade({"gt": x, "seed": torch.tensor([seed]), "seen": torch.tensor([seen])})["lq"].float()
    if not bool(torch.isfinite(lq).all()):
        raise ImageError("the degradation came to NaN or infinity", "not_finite")
    return lq
