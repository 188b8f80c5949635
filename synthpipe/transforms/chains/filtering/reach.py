"""Kernels that are too large for the images."""

from __future__ import annotations

from synthpipe.errors import OptionError
from synthpipe.transforms.chains.stage import Extent

__all__ = ["check_reach"]


def check_reach(stage: str, side: int, options: str, before: Extent) -> None:
    """Refuse kernels that would look at an image's mirror of its mirror.

    Args:
        stage: its type in options.
        side: of its largest kernel.
        options: what makes it so large.
        before: sizes of the images.

    Raises:
        OptionError: the kernel reaches twice over the smallest image, or further.
    """
    if side // 2 >= 2 * min(before.least):
        raise OptionError(
            f"degrade: {stage} has kernels of up to {side}x{side} pixels, and images of down to "
            f"{before.least.height}x{before.least.width} at its place in the chain; make the kernels smaller "
            f"({options}), put it where images are larger, or make the tiles larger"
        )
