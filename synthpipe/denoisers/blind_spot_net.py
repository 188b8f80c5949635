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

from torch import Tensor, nn

__all__ = ["BlindSpotNet"]


class BlindSpotNet(nn.Module, ABC):
    """A network whose output at a pixel does not depend on the input there; the module's docstring is the contract."""

    in_channels: int
    out_channels: int
    #: Outputs are those of a larger image where its tiles begin at multiples of this.
    grid: int = 1

    @abstractmethod
    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        """``(B, C_in, H, W)``, centred on 0 where it matters -> ``(B, C_out, H, W)``.

        Args:
            x: any floating-point image.
            hole: pixels on each side of the centre that are not seen either.
        """

    @abstractmethod
    def reach(self, hole: int = 0) -> int:
        """How far, in pixels, an output looks on each side with this ``hole``."""
