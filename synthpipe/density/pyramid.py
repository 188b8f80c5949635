"""A density estimator that sees whole patches: the potential form on a U-Net.

``synthpipe.density.DDE`` sees a dozen pixels, which is what the scoring of corpora needs; a generator trained against
it learns textures and no forms.  Here ``S = -||R||^2 / 2`` with ``R`` from a U-Net that halves the patch several times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.density.base import LEVEL_TERMS, DensityEstimator, level_terms
from synthpipe.errors import ShapeError

__all__ = ["PyramidDDE"]

#: Standard deviation of pixels about 0.5 that the untrained estimator assumes.
_SPREAD = 0.25


class PyramidDDE(DensityEstimator):
    """A density of image patches ``(B, C, H, W)`` in [0, 1], of any size.

    ``R = (y - 0.5) / sqrt(sigma^2 + 0.25^2) + 0.25 f / sigma``: with ``f = 0`` the density of white Gaussian pixels.

    Args:
        channels: 1 or 3.
        width: channels at full size; below that twice as many.
        levels: sizes; each halves the one before.
        sigma_range: lowest and highest noise level that it is trained for; equal for a single level.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(
        self, channels: int = 1, width: int = 32, levels: int = 3, sigma_range: Sequence[float] = (0.05, 1.0)
    ) -> None:
        super().__init__()
        low, high = sigma_range
        if channels not in (1, 3) or min(width, levels) < 1 or not 0 < low <= high:
            raise ShapeError(
                "PyramidDDE: expected channels 1 or 3, width and levels of at least 1 and 0 < low <= high in "
                f"sigma_range; got channels={channels}, width={width}, levels={levels}, sigma_range={[low, high]}"
            )
        self.config = {
            "channels": channels,
            "width": width,
            "levels": levels,
            "sigma_range": [float(low), float(high)],
        }
        self.channels = channels
        self._sigma_range = (float(low), float(high))
        widths = [width if level == 0 else 2 * width for level in range(levels)]
        before = [channels, *widths[:-1]]
        self.down = nn.ModuleList(_Block(i, o) for i, o in zip(before, widths, strict=True))
        # From the coarsest but one to the finest: what comes from below beside what was seen on the way down.
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(_Block(below + same, same) for below, same in reversed(pairs))
        self.head = nn.Conv2d(width, channels, 3, padding=1)
        self.head.weight.data.mul_(0.1)

    def residual(self, y: Tensor, sigma: Tensor) -> Tensor:
        """``R``, of the shape of ``y``.

        Args:
            y: ``(B, C, H, W)``; may leave [0, 1] (noise).
            sigma: ``(B,)``.

        Raises:
            ShapeError: wrong channels or sizes.
        """
        if y.ndim != 4 or y.shape[1] != self.channels or sigma.shape != y.shape[:1]:
            raise ShapeError(
                f"PyramidDDE: expected images (B, {self.channels}, H, W) and sigma (B,), got {tuple(y.shape)} and "
                f"{tuple(sigma.shape)}"
            )
        terms = level_terms(sigma, self._sigma_range)
        s = sigma[:, None, None, None]
        whitened = (y - 0.5) / (s.square() + _SPREAD**2).sqrt()
        h, seen = whitened, []
        for depth, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2, ceil_mode=True) if depth else h, terms)
            seen.append(h)
        seen.pop()
        for block in self.up:
            same = seen.pop()
            below = F.interpolate(h, scale_factor=2.0, mode="nearest")[:, :, : same.shape[2], : same.shape[3]]
            h = block(torch.cat([below, same], 1), terms)
        out: Tensor = whitened + _SPREAD * self.head(h) / s
        return out

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        """``S`` in nats, up to a constant, ``(B,)``; see :class:`DensityEstimator`.  It knows one domain only."""
        if domain is not None:
            raise ShapeError(f"PyramidDDE: expected no domain, got {tuple(domain.shape)}")
        return -0.5 * self.residual(y, sigma).square().sum((1, 2, 3))


class _Block(nn.Module):
    """Two 3x3 convolutions with SiLU, whose channels the noise level scales and shifts."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.gains = nn.ModuleList(nn.Linear(LEVEL_TERMS, 2 * after, bias=False) for _ in self.convs)
        for gain in self.gains:
            assert isinstance(gain, nn.Linear)
            nn.init.zeros_(gain.weight)

    def forward(self, h: Tensor, terms: Tensor) -> Tensor:
        """``(B, before, h, w)`` and powers of the level ``(B, LEVEL_TERMS)`` -> ``(B, after, h, w)``."""
        for conv, gain in zip(self.convs, self.gains, strict=True):
            scale, shift = gain(terms)[:, :, None, None].chunk(2, 1)
            h = F.silu(conv(h) * (1 + scale) + shift)
        return h
