"""The contract of blind-spot networks: what they say of a pixel comes from its surroundings, never from itself.

A network MUST

* give an output of the size of its input, for every size from 1x1 on;
* make the output at a pixel *exactly* independent of the ``(2 * hole + 1)^2`` block of input pixels around it, at the
  border of the image too: the gradient there is 0.0, not small.  So pad by zeros (mirrored or repeated borders put a
  copy of the pixel among its neighbours), normalise over nothing that holds the pixel, and apply no convolution larger
  than 1x1 after a layer that makes the hole;
* take ``hole`` at each call, from 0 on, with the same weights;
* treat each image of a batch by itself.

``tests/blind_spot_contract.py`` checks all of it; a new network joins by one line.

Legend: B batch, C_in and C_out channels, H, W size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["BlindSpotNet", "neighbours"]

#: The places around a pixel, row by row, (row, column).
_AROUND = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]


class BlindSpotNet(nn.Module, ABC):
    """A network whose output at a pixel does not depend on the input there; the module's docstring is the contract.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        sizes: all other sizes that must be at least 1 for a network to be, by the names of the subclass's arguments.

    Raises:
        ShapeError: a size below 1.
    """

    #: Outputs are those of a larger image where its tiles begin at multiples of this.
    grid: int = 1

    def __init__(self, in_channels: int, out_channels: int, **sizes: int | Sequence[int]) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, **sizes}
        flat = [size for some in sizes.values() for size in ([some] if isinstance(some, int) else some)]
        if min(flat) < 1:
            given = ", ".join(f"{name}={some if isinstance(some, int) else list(some)}" for name, some in sizes.items())
            raise ShapeError(f"{type(self).__name__}: expected sizes of at least 1, got {given}")
        self.in_channels, self.out_channels = in_channels, out_channels

    @abstractmethod
    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        """``(B, C_in, H, W)``, centred on 0 where it matters -> ``(B, C_out, H, W)``.

        Args:
            x: any floating-point image.
            hole: pixels on each side of the centre that are not seen either.

        Raises:
            ShapeError: a negative hole.
        """

    @abstractmethod
    def reach(self, hole: int = 0) -> int:
        """How far, in pixels, an output looks on each side with this ``hole``."""

    def _check_hole(self, hole: int) -> None:
        if hole < 0:
            raise ShapeError(f"{type(self).__name__}: expected a hole of at least 0 pixels on each side, got {hole}")


def neighbours(x: Tensor, distance: int) -> Tensor:
    """The pixels at that distance in 8 directions, zero outside; ``(B, C, H, W)`` -> ``(B, 8 * C, H, W)``.

    Row by row from the upper left, all channels of a direction together.
    """
    height, width = x.shape[2:]
    padded = F.pad(x, (distance, distance, distance, distance))
    return torch.cat(
        [padded[..., r * distance : r * distance + height, c * distance : c * distance + width] for r, c in _AROUND], 1
    )
