"""Lossy WebP compression."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from synthpipe.config.stages.webp import WebpStageOptions
from synthpipe.files.codecs.webp import webp_round_trip
from synthpipe.transforms.chains.host_codec import HostCodec
from synthpipe.transforms.chains.laws import whole_between
from synthpipe.transforms.chains.stage import Params

__all__ = ["Webp"]


class Webp(HostCodec):
    """WebP and back, by libwebp.

    Pixels are predicted from those above and to the left, so at low qualities edges settle down and to the right.
    """

    aligned = False
    name = "webp"
    longest_side = 16383
    numbers = 1

    def __init__(self, options: WebpStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``quality``."""
        return {"quality": whole_between(self.options.quality, u[:, 0])}

    def coded(self, levels: np.ndarray, params: Params) -> np.ndarray:
        """As a file would hold it."""
        return webp_round_trip(levels, int(params["quality"]), self.options.method)
