"""Learned blur of crops: what a clean domain is put through before it is compared with a degraded one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.run import BlurOptions
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.kernels import KernelsStage

__all__ = ["CropBlur"]


class CropBlur:
    """One kernel of a bank, at a strength of its own, for each crop; as the stage `kernels` of a chain.

    Args:
        options: of a domain.

    Raises:
        CheckpointError: weights that are missing, damaged or of another kind.
    """

    def __init__(self, options: BlurOptions) -> None:
        model = checkpoints.load(options.weights, kind="kernels")
        self._stage = KernelsStage(model, options.strength)
        #: Pixels around a crop that its blur looks at; where an image ends before, its mirror.
        self.margin = self._stage.kernels.shape[-1] // 2

    def __call__(self, piece: Tensor, draws: Sequence[float]) -> Tensor:
        """``(3, h, w)`` float32 in [0, 1], blurred; values may leave the range.

        Args:
            piece: the same shape, with the margin.
            draws: two numbers of the uniform law on [0, 1): which kernel, and how strongly.
        """
        params = self._stage.draw(torch.tensor([list(draws)], dtype=torch.float64))
        context = Context(Size(*piece.shape[1:]), torch.zeros(1, dtype=torch.int64), "blur")
        return self._stage.on_image(piece[None], params, context)[0]
