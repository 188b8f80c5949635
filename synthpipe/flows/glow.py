"""Glow: a multi-scale normalising flow of image crops, with exact likelihood and sampling (Kingma & Dhariwal 2018).

A crop goes through L levels of squeeze, K steps (ActNorm, invertible 1x1 convolution, affine coupling) and a split,
where half of the channels leave with a prior predicted from the other half.  No layer mixes images of a batch, so the
likelihood of an image is its own.

Legend: B batch, C image channels, W window (side of the crops), L levels, K steps.  Images are on the [0, 1] scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import FlowLayer, Sequential, check_levels
from synthpipe.flows.draws import Generators, Noise, as_noise, normal_like
from synthpipe.flows.elementwise import LogitMap, TailMap
from synthpipe.flows.initialization import DataInitialized
from synthpipe.flows.levels import glow_level
from synthpipe.flows.prior import standard_normal_log_prob
from synthpipe.flows.reshape import SplitPrior
from synthpipe.flows.windows import cut_windows

__all__ = ["Glow"]

_LEVELS_OF_GREY = 255
# What numbers are for: each purpose has its own.
_SMOOTHING, _DEQUANTIZATION, _PLACE = range(3)


class Glow(DataInitialized):
    """The density of ``window x window`` crops.

    Args:
        channels: 1 (grey) or 3 (RGB).
        levels: L; the window is halved by each.
        steps: K, of each level.
        hidden: width of the couplings' networks.
        window: side of the crops in pixels, a multiple of ``2 ** levels``.
        logit: map values by :class:`LogitMap` first, as the reference does.
        priors: of the latents: ``"standard"`` (normal, the reference), ``"learned"`` (normal, mean and spread
            predicted from the channels that stay, or learned per channel at the top), or ``"tails"`` (the same with a
            learned :class:`TailMap` before: fine detail is not normal).
        whiten: start the first 1x1 convolution of each level at the whitening of the first batch, where that batch has
            at least 4 positions for each channel.
        smoothing: standard deviation, on the [0, 1] scale, of the noise put on images wherever dequantisation noise is:
            the density is then of images with that noise (0.008 to 0.02 make its gradient informative off the data),
            and bits per dimension are no code length of the images themselves.

    Raises:
        ShapeError: a size, a window, priors or a smoothing out of what is said above.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        levels: int = 3,
        steps: int = 8,
        hidden: int = 48,
        window: int = 32,
        logit: bool = False,
        priors: Literal["standard", "learned", "tails"] = "learned",
        whiten: bool = True,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_arguments(channels, levels, steps, hidden, window, priors, smoothing)
        self.config: dict[str, Any] = {
            "channels": channels,
            "levels": levels,
            "steps": steps,
            "hidden": hidden,
            "window": window,
            "logit": logit,
            "priors": priors,
            "whiten": whiten,
            "smoothing": smoothing,
        }
        self.channels, self.window = channels, window
        self.size_multiple = window
        self.logit = LogitMap() if logit else None
        widths = [4 * channels * 2**level for level in range(levels)]
        self.levels = nn.ModuleList(glow_level(width, steps, hidden) for width in widths)
        self.splits = nn.ModuleList(_Split(width, priors) for width in widths[:-1])
        self.top = _top(widths[-1], priors)

    # --- the flow itself -------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Crops to latents that are standard normal under the model.

        Args:
            x: ``(B, C, W, W)``, dequantised where its levels are discrete.

        Returns:
            Latents, those of the finest detail first, ``(B, 2 C 2^l, W / 2^l, W / 2^l)`` for l = 1 .. L - 1 and
            ``(B, 4 C 2^(L-1), W / 2^L, W / 2^L)``, and ``log|det|`` ``(B,)`` in nats.
        """
        total = x.new_zeros(len(x))
        if self.logit is not None:
            x, total = self.logit(x)
        latents = []
        for index, level in enumerate(self.levels):
            x, logdet = level(x)
            total = total + logdet
            if index < len(self.splits):
                x, latent, logdet = self.splits[index](x)
                latents.append(latent)
                total = total + logdet
        top, logdet = self.top(x)
        return [*latents, top], total + logdet

    def decode(self, latents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents of :meth:`encode` to crops ``(B, C, W, W)``, with ``log|det|`` ``(B,)`` of this direction."""
        x, total = self.top.inverse(latents[-1])
        for index in reversed(range(len(self.levels))):
            if index < len(self.splits):
                x, logdet = self.splits[index].inverse(x, latents[index])  # type: ignore[operator]
                total = total + logdet
            x, logdet = self.levels[index].inverse(x)  # type: ignore[operator]
            total = total + logdet
        if self.logit is not None:
            x, logdet = self.logit.inverse(x)
            total = total + logdet
        return x, total

    # --- likelihood ------------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor, generator: Generators | Noise | None = None, check_values: bool = True) -> Tensor:
        """Log-likelihood of 8-bit crops: ``-log_prob / (numel ln 2)`` is an upper bound on the true bits per value.

        Args:
            x: ``(B, C, W, W)`` in [0, 1]; values between the levels, and outside, have a density too.
            generator: draws the dequantisation noise, uniform of width 1/255, and that of ``smoothing``; one per
                image, one for all, or noise of any origin.  None: no noise, the mean in its place.
            check_values: look at the values of ``x``, which waits for the device.

        Returns:
            ``(B,)`` in nats, differentiable in ``x``.

        Raises:
            ShapeError: other shapes, NaN (with ``check_values``), or a wrong number of generators.
        """
        self._check(x, "Glow.log_prob", exact=True, values=check_values)
        return self._log_likelihood(self._with_noise(x, generator))

    def bits_per_dim(self, x: Tensor, generator: Generators | Noise | None = None, check_values: bool = True) -> Tensor:
        """:meth:`log_prob` as bits for each value, ``(B,)``."""
        return -self.log_prob(x, generator, check_values) / (x[0].numel() * math.log(2))

    def window_log_prob(self, x: Tensor, generator: Generators | Noise | None = None) -> Tensor:
        """Log-likelihood per value of images of any size: the mean over a grid of windows at a random place.

        As many windows as fit side by side lie together at a place drawn for each image, so a weight on the result
        means the same for any size.  Images of a multiple of the window leave no choice of place: where the grid must
        not always cut at the same pixels, take sides of a multiple and a half.

        Args:
            x: ``(B, C, H, W)`` in [0, 1], each side at least the window.
            generator: draws places and noise; as in :meth:`log_prob`.  None: the middle, no noise.

        Returns:
            ``(B,)`` in nats per value; ``-result / ln 2`` is bits per dimension.

        Raises:
            ShapeError: as :meth:`log_prob`.
        """
        self._check(x, "Glow.window_log_prob", exact=False)
        windows = cut_windows(x, self.window, self._corners(x, generator))
        count = windows.shape[1]
        windows = self._with_noise(windows, generator).flatten(0, 1)
        by_window = self._log_likelihood(windows) / windows[0].numel()
        return torch.unflatten(by_window, 0, (len(x), count)).mean(1)

    # --- sampling --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, count: int, generator: Generators, temperature: float = 1.0) -> Tensor:
        """Crops drawn from the model.

        Args:
            count: B.
            generator: one per image, or one for all.
            temperature: what the latents' standard deviation is multiplied by.

        Returns:
            ``(B, C, W, W)``, not clipped.
        """
        like = next(self.parameters())
        latents = [
            temperature * normal_like(like.new_empty(count, *shape), generator, "Glow.sample")
            for shape in self._latent_shapes()
        ]
        return self.decode(latents)[0]

    # --- training --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(self, x: Tensor, generator: Generators | Noise | None = None) -> None:
        """Set every ActNorm from one batch of crops, in place; layers that are initialised stay as they are.

        Arguments as of :meth:`log_prob`, x ``(B, C, W, W)``.  With ``whiten``, the first 1x1 convolution of each level
        starts from this batch, too, in a new model.
        """
        with self._starting(self.config["whiten"]):
            self.log_prob(x, generator)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _log_likelihood(self, x: Tensor) -> Tensor:
        latents, total = self.encode(x)
        for latent in latents:
            total = total + standard_normal_log_prob(latent)
        # Each level of grey is an interval of width 1/255 on the scale of the density.
        return total - x[0].numel() * math.log(_LEVELS_OF_GREY)

    def _with_noise(self, x: Tensor, generator: Generators | Noise | None) -> Tensor:
        if generator is None:
            return x
        noise = as_noise(generator)
        if self.config["smoothing"]:
            x = x + self.config["smoothing"] * noise.normal(x, _SMOOTHING)
        return x + (noise.uniform(x, _DEQUANTIZATION) - 0.5) / _LEVELS_OF_GREY

    def _corners(self, x: Tensor, generator: Generators | Noise | None) -> list[list[int]]:
        """Of each image, where its grid of windows begins."""
        slack = torch.tensor([side % self.window + 1 for side in x.shape[2:]])
        if generator is None:
            corners = (slack - 1).expand(len(x), 2) // 2
        else:
            place = as_noise(generator).uniform(torch.empty(len(x), 2), _PLACE)
            corners = (place.cpu() * slack).long()
        return corners.tolist()

    def _check(self, x: Tensor, name: str, exact: bool, values: bool = True) -> None:
        wanted = f"(B, {self.channels}, {self.window}, {self.window})" + ("" if exact else " or larger")
        sides = x.shape[2:]
        fits = x.ndim == 4 and x.shape[1] == self.channels and min(sides) >= self.window
        if not fits or (exact and max(sides) > self.window) or not x.is_floating_point():
            advice = "; window_log_prob takes larger images" if exact else ""
            raise ShapeError(f"{name}: expected floating-point crops {wanted}, got {x.dtype} {tuple(x.shape)}{advice}")
        if values and not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
            raise ShapeError(f"{name}: {bad} of {len(x)} images hold NaN or infinity; expected finite values in [0, 1]")

    def _latent_shapes(self) -> list[tuple[int, int, int]]:
        count = len(self.levels)
        sides = [self.window // 2 ** (level + 1) for level in range(count)]
        widths = [2 * self.channels * 2**level for level in range(count - 1)] + [4 * self.channels * 2 ** (count - 1)]
        return [(width, side, side) for width, side in zip(widths, sides, strict=True)]


class _Split(nn.Module):
    """Half of the channels leave, standardised by the chosen prior; see :class:`SplitPrior`."""

    def __init__(self, channels: int, priors: str) -> None:
        super().__init__()
        self.kept = channels // 2
        self.prior = None if priors == "standard" else SplitPrior(channels)
        self.tails = TailMap(channels - self.kept) if priors == "tails" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, C, H, W)`` -> kept ``(B, C // 2, H, W)``, latent ``(B, C // 2, H, W)``, logdet ``(B,)``."""
        if self.prior is None:
            return x[:, : self.kept], x[:, self.kept :], x.new_zeros(len(x))
        kept, latent, logdet = self.prior(x)
        if self.tails is not None:
            latent, more = self.tails(latent)
            logdet = logdet + more
        return kept, latent, logdet

    def inverse(self, kept: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Kept channels and latent back to ``(B, C, H, W)``, with the log-determinant ``(B,)`` of this direction."""
        if self.prior is None:
            return torch.cat([kept, latent], dim=1), kept.new_zeros(len(kept))
        total = kept.new_zeros(len(kept))
        if self.tails is not None:
            latent, total = self.tails.inverse(latent)
        x, logdet = self.prior.inverse(kept, latent)
        return x, total + logdet


def _top(channels: int, priors: str) -> Sequential:
    """What standardises the latents of the last level: nothing, a mean and spread per channel, or tails as well."""
    layers: list[FlowLayer] = []
    if priors != "standard":
        layers.append(ActNorm(channels))
    if priors == "tails":
        layers.append(TailMap(channels))
    return Sequential(*layers)


def _check_arguments(
    channels: int, levels: int, steps: int, hidden: int, window: int, priors: str, smoothing: float
) -> None:
    if channels not in (1, 3) or min(levels, steps, hidden) < 1:
        raise ShapeError(
            f"Glow: expected channels 1 or 3 and levels, steps and hidden of at least 1, got channels={channels}, "
            f"levels={levels}, steps={steps}, hidden={hidden}"
        )
    check_levels("Glow", levels, 1)
    if window < 1 or window % 2**levels:
        raise ShapeError(f"Glow: window must be a multiple of {2**levels} (2 ** levels), got {window}")
    if priors not in ("standard", "learned", "tails"):
        raise ShapeError(f"Glow: priors must be 'standard', 'learned' or 'tails', got {priors!r}")
    if smoothing < 0:
        raise ShapeError(f"Glow: smoothing must be at least 0, got {smoothing}")
