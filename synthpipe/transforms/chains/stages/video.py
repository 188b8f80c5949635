"""Compression as a frame of a video."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthpipe.config.stages.video import VideoStageOptions
from synthpipe.files.codecs.video import LONGEST_SIDE, check_video_codecs, video_round_trip
from synthpipe.transforms.chains.host_codec import HostCodec
from synthpipe.transforms.chains.laws import pick, whole_between
from synthpipe.transforms.chains.stage import Params

__all__ = ["Video"]

_UNPREDICTED = {"mpeg2", "mpeg4"}


class Video(HostCodec):
    """An intra frame and back, by FFmpeg's libraries.

    Codecs that predict pixels from those above and to the left let edges settle down and to the right at low qualities;
    MPEG-2 and MPEG-4 do not.

    Raises:
        OptionError: PyAV, or one of the codecs, is missing on this machine.
    """

    name = "video"
    longest_side = LONGEST_SIDE
    numbers = 2

    def __init__(self, options: VideoStageOptions) -> None:
        super().__init__()
        self.options = options
        self.codecs = tuple(options.codecs)
        self.words = {"codec": self.codecs}  # type: ignore[misc]  # each chain's own
        used = [codec for codec, weight in options.codecs.items() if weight > 0]
        self.aligned = set(used) <= _UNPREDICTED
        check_video_codecs(used)

    def draw(self, u: Tensor) -> Params:
        """``codec``, its place among those of the options, and ``quality``, its crf or quantiser."""
        codec = pick(list(self.options.codecs.values()), u[:, 0])
        quality = torch.zeros_like(codec)
        for number, name in enumerate(self.codecs):
            drawn = whole_between(self.options.qualities[name], u[:, 1])
            quality = torch.where(codec == number, drawn, quality)
        return {"codec": codec, "quality": quality}

    def coded(self, levels: np.ndarray, params: Params) -> np.ndarray:
        """As a decoder would show it."""
        codec = self.codecs[int(params["codec"])]
        return video_round_trip(levels, codec, int(params["quality"]), self.options.matrix)
