"""A denoiser learned from noisy images alone, under a density of clean ones (Kattakinda & Rajagopalan, ICIP 2020).

The published network (64 blocks on a state of 3 channels, instance normalisation, a sigmoid at the end) is replaced by
a residual one that is told the noise level.  What it is trained for: :mod:`synthpipe.training.flow_prior`.
"""

from __future__ import annotations

from synthpipe.denoisers.plain import PlainDenoiser

__all__ = ["FlowPriorDenoiser"]


class FlowPriorDenoiser(PlainDenoiser):
    """``x - net(x, sigma)``; nothing of the density is left in it.

    Args:
        channels: 1 or 3.
        width: channels inside.
        depth: convolutions.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(self, channels: int = 3, width: int = 32, depth: int = 8) -> None:
        super().__init__(channels, width, depth)
        self.config = {"channels": channels, "width": width, "depth": depth}
