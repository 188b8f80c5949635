"""Pairs for a denoiser from clean crops and any degradation: learned noise of a camera needs no pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.config.degrade import DegradeOptions
from synthpipe.images import luma, quantize_8bit, to_float
from synthpipe.transforms.build import build_degrade

__all__ = ["DegradedCrops"]


class DegradedCrops:
    """Clean crops, degraded at scale 1 and rounded to 8 bits.

    Args:
        options: of the degradation.

    Raises:
        CheckpointError: weights that are missing, damaged or of another kind.
    """

    def __init__(self, options: DegradeOptions) -> None:
        self._degrade = build_degrade(options, 1)
        self._device = torch.device("cpu")

    @torch.no_grad()
    def __call__(self, x: Tensor, channels: int, seeds: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Degraded and clean crops, and what is known of the noise.

        Args:
            x: clean crops ``(B, 3, H, W)`` uint8.
            channels: of the results: 3, or 1 for luma.
            seeds: ``(B,)`` int64, all randomness of each crop.

        Returns:
            Both ``(B, channels, H, W)`` float32 in [0, 1], never in half precision; ``sigma`` ``(B,)``, the root mean
            square of their difference.

        Raises:
            OptionError: a degradation that leaves another size.
        """
        if x.device != self._device:
            self._degrade.to(x.device)
            self._device = x.device
        with torch.autocast(x.device.type, enabled=False):
            clean = to_float(x)
            self._degrade.check_tiles(*clean.shape[2:])
            keys = [str(row) for row in range(len(x))]
            seeds = seeds.to(x.device)
            made = self._degrade({"gt": clean, "seed": seeds, "seen": torch.zeros_like(seeds), "key": keys})
            noisy = quantize_8bit(made["lq"])
            if channels == 1:
                clean, noisy = luma(clean), luma(noisy)
            return noisy, clean, {"sigma": (noisy - clean).square().flatten(1).mean(1).sqrt()}
