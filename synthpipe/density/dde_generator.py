"""Generators, and the gradient that trains them: the Kullback-Leibler divergence of their law from the data's.

arXiv 2001.02728, section 4.  ``q`` is the law of ``G(z)``, ``p`` the data's; the index ``s`` marks both smoothed by
noise of standard deviation ``s``.  As ``E_q[d/dtheta log q_s] = 0``, the gradient of ``KL(q_s || p_s)`` is that of the
mean of ``S_q(G(z) + n) - S_p(G(z) + n)`` with both estimators held fixed.  The divergence is 0 only where the
estimators belong to the same ``s`` and are on the same scale; :func:`require_same_levels` and :func:`slope` check that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.density.base import DensityEstimator
from synthpipe.errors import ShapeError

__all__ = ["DDEGenerator", "kl_gradient", "require_same_levels", "slope"]

NETWORKS = ("residual", "dense", "conv")
#: Pixels on the shorter side of the convolutional generator's first layer, at most.
_BASE = 4
#: What layers that should do little at the start are multiplied by.
_SMALL = 0.1
#: Standard deviation of the residual network's first weights, and range of its first biases.  With torch's own, tenfold
#: smaller, the network is all but linear over the latent's range and tears the plane apart only after very many steps.
_KINKS = 3.0


class DDEGenerator(nn.Module):
    """``x = G(z)`` with standard normal ``z``: points, or grey and RGB images in [0, 1].

    Args:
        shape: of one sample: ``[d]`` for points, ``[C, H, W]`` with C of 1 or 3 for images.
        network: ``residual`` for points, an MLP added to ``spread * z``; ``dense`` for small images, an MLP;
            ``conv`` for image patches, upsampling convolutions with a latent that sets each layer's gains and with one
            plane of noise for each size.
        latent: numbers in the latent (without the planes of noise); for ``residual`` at least d.
        width: units of a layer; channels of ``conv`` at full size, twice that from the second halving on.
        depth: hidden layers or residual blocks; for ``conv`` convolutions at each size.
        spread: standard deviation of the samples that an untrained ``residual`` draws.

    Raises:
        ShapeError: settings that make no network.
    """

    size_multiple = 1

    def __init__(
        self,
        shape: Sequence[int],
        network: str = "conv",
        latent: int = 64,
        width: int = 64,
        depth: int = 2,
        spread: float = 2.0,
    ) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in shape)
        fits = {"residual": len(self.shape) == 1 and latent >= self.shape[0], "dense": len(self.shape) == 3}
        fits["conv"] = fits["dense"]
        small = min((*self.shape, latent, width, depth), default=0) < 1
        grey_or_rgb = len(self.shape) != 3 or self.shape[0] in (1, 3)
        if small or not fits.get(network, False) or not grey_or_rgb or not spread > 0:
            raise ShapeError(
                f"DDEGenerator: expected a network of {NETWORKS}, shape [d] with latent of at least d for 'residual' "
                "and [1 or 3, H, W] for the others, latent, width and depth of at least 1 and spread above 0; got "
                f"network={network!r}, shape={list(self.shape)}, latent={latent}, width={width}, depth={depth}, "
                f"spread={spread}"
            )
        self.config = {
            "shape": list(self.shape),
            "network": network,
            "latent": latent,
            "width": width,
            "depth": depth,
            "spread": float(spread),
        }
        self.network: nn.Module
        if network == "residual":
            self.network = _Residual(self.shape[0], latent, width, depth, spread)
        elif network == "dense":
            self.network = _Dense(self.shape, latent, width, depth)
        else:
            self.network = _Conv(self.shape, latent, width, depth)
        noise = sum(height * width for height, width in getattr(self.network, "sizes", ()))
        #: Numbers that one sample is made from.
        self.latent_size = latent + noise

    def forward(self, z: Tensor) -> Tensor:
        """``(B, latent_size)`` standard normal -> ``(B, *shape)``; images are in [0, 1].

        Raises:
            ShapeError: ``z`` of another size.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ShapeError(f"DDEGenerator: expected a latent (B, {self.latent_size}), got {tuple(z.shape)}")
        out: Tensor = self.network(z)
        return out

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` independent samples ``(n, *shape)`` without a graph.

        Args:
            n: how many.
            generator: on the CPU; the samples are a function of its state.
        """
        reference = next(self.parameters())
        z = torch.randn(n, self.latent_size, generator=generator).to(reference)
        with torch.no_grad():
            out: Tensor = self(z)
        return out


class _Residual(nn.Module):
    """``spread * z[:d] + f(z)``; close to ``spread * z`` at the start, so that all of the data is within reach."""

    def __init__(self, dim: int, latent: int, width: int, depth: int, spread: float) -> None:
        super().__init__()
        self.dim, self.spread = dim, spread
        self.first = nn.Linear(latent, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, dim)
        nn.init.normal_(self.first.weight, std=_KINKS)
        nn.init.uniform_(self.first.bias, -_KINKS, _KINKS)
        for layer in self.outer:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.last.weight.data.mul_(_SMALL)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, latent)`` -> points ``(B, dim)``."""
        h = self.first(z)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = h + outer(F.silu(inner(F.silu(h))))
        out: Tensor = self.spread * z[:, : self.dim] + self.last(F.silu(h))
        return out


class _Dense(nn.Module):
    """Every layer sees the latent and all layers before it, as the authors' network for MNIST."""

    def __init__(self, shape: tuple[int, ...], latent: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = nn.ModuleList(nn.Linear(latent + layer * width, width) for layer in range(depth))
        self.last = nn.Linear(latent + depth * width, math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        """``(B, latent)`` -> ``(B, *shape)`` in [0, 1]."""
        seen = z
        for layer in self.hidden:
            seen = torch.cat([seen, F.silu(layer(seen))], 1)
        return torch.unflatten(torch.sigmoid(self.last(seen)), 1, self.shape)


class _Conv(nn.Module):
    """From a small map to the full size by doubling; any height and width, the surplus is cut off.

    ``sizes`` lists ``(height, width)`` of each level; a plane of noise of that size enters there with a learned gain
    for each channel, which is where fine texture comes from.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, width: int, depth: int) -> None:
        super().__init__()
        channels, height, across = shape
        doublings = max(0, math.ceil(math.log2(min(height, across) / _BASE)))
        self.out_size, self.latent = (height, across), latent
        self.sizes = [(-(-height // 2**k), -(-across // 2**k)) for k in reversed(range(doublings + 1))]
        widths = [width if level == doublings else 2 * width for level in range(doublings + 1)]
        self.base = nn.Linear(latent, widths[0] * math.prod(self.sizes[0]))
        self.levels = nn.ModuleList(
            _Level(before, after, latent, depth) for before, after in itertools.pairwise([widths[0], *widths])
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1, padding_mode="replicate")
        self.last.weight.data.mul_(_SMALL)

    def forward(self, z: Tensor) -> Tensor:
        """Latent and noise in one, ``(B, latent + noise)`` -> images ``(B, C, H, W)`` in [0, 1]."""
        areas = [self.latent, *(height * width for height, width in self.sizes)]
        style, *noises = torch.split(z, areas, 1)
        h = torch.unflatten(self.base(style), 1, (-1, *self.sizes[0]))
        for level, size, noise in zip(self.levels, self.sizes, noises, strict=True):
            if h.shape[2:] != size:
                # Twice the smaller size is at most one pixel too large.
                h = F.interpolate(h, scale_factor=2.0, mode="bilinear")[:, :, : size[0], : size[1]]
            h = level(h, style, torch.unflatten(noise, 1, (1, *size)))
        return torch.sigmoid(self.last(F.silu(h)))


class _Level(nn.Module):
    """Convolutions of one size; after each the latent scales and shifts, and noise comes in."""

    def __init__(self, before: int, after: int, latent: int, depth: int) -> None:
        super().__init__()
        sizes = [before] + [after] * depth
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, padding_mode="replicate") for i, o in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in sizes[:-1])
        self.styles = nn.ModuleList(nn.Linear(latent, 2 * size) for size in sizes[:-1])
        self.noise_gain = nn.Parameter(torch.full((depth, after, 1, 1), _SMALL))
        for style in self.styles:
            assert isinstance(style, nn.Linear)
            style.weight.data.mul_(_SMALL)
            nn.init.zeros_(style.bias)

    def forward(self, h: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Features ``(B, before, h, w)``, latent ``(B, latent)``, noise ``(B, 1, h, w)`` -> ``(B, after, h, w)``."""
        for conv, norm, to_gains, gain in zip(self.convs, self.norms, self.styles, self.noise_gain, strict=True):
            scale, shift = to_gains(style)[:, :, None, None].chunk(2, 1)
            h = conv(F.silu(norm(h) * (1 + scale) + shift)) + gain * noise
        return h


def kl_gradient(data_density: DensityEstimator, sample_density: DensityEstimator, y: Tensor, sigma: Tensor) -> Tensor:
    """``grad S_q - grad S_p`` at the noisy samples: the gradient of ``KL(q_s || p_s)`` with respect to each sample.

    ``sum(kl_gradient * x) / B``, with ``x = G(z)`` and ``y = x + sigma e``, has the gradient of the divergence in the
    generator's parameters, and none in the estimators'.

    Args:
        data_density: ``S_p``, of the data.
        sample_density: ``S_q``, of the samples as they are now.
        y: ``(B, ...)`` samples with noise of ``sigma``.
        sigma: ``(B,)``.

    Returns:
        Of the shape of ``y``, without a graph.
    """
    y = y.detach()
    return (sample_density.score(y, sigma) - data_density.score(y, sigma)).detach()


def slope(density: DensityEstimator, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """What the density's score has to be multiplied by to be of the right scale: 1 for a trained estimator.

    The regression of ``-noise / sigma`` on the score at ``x + sigma noise``, as the score there is the mean of the
    first given the place.  An estimator that was trained with one noise level and scaled by another is off by the
    square of their ratio, which harms no ranking and ruins a difference of two estimators.

    Args:
        density: the estimator.
        x: ``(B, ...)`` samples of what it estimates.
        sigma: ``(B,)``.
        noise: of the shape of ``x``, standard normal.

    Returns:
        A scalar without a graph; infinite or NaN where the score is 0 everywhere.
    """
    scale = sigma.reshape(-1, *([1] * (x.ndim - 1)))
    scaled = scale * density.score(x + scale * noise, sigma).detach()
    return -(scaled * noise).sum() / scaled.square().sum()


def require_same_levels(
    data_density: DensityEstimator, sample_density: DensityEstimator, sigma: Sequence[float]
) -> None:
    """Refuse two estimators that do not share their noise levels, or levels that they are not made for.

    Args:
        data_density: ``S_p``; its ``config`` holds ``sigma_range``, lowest and highest level.
        sample_density: ``S_q``.
        sigma: lowest and highest level that the generator is trained at.

    Raises:
        ShapeError: they differ; the fixed point of the training would be wrong.
    """
    ranges = [_levels(density) for density in (data_density, sample_density)]
    if ranges[0] != ranges[1]:
        raise ShapeError(
            f"the density of the data is of noise levels {ranges[0]}, that of the samples of {ranges[1]}: both must "
            "be of the same levels, or the generator converges to something else than the data; build them alike"
        )
    low, high = sigma
    tolerance = 1e-6 * high
    if not ranges[0][0] - tolerance <= low <= high <= ranges[0][1] + tolerance:
        raise ShapeError(
            f"the generator is to be trained at noise levels {[low, high]}, but its density estimators are of "
            f"{ranges[0]}: choose sigma within that range"
        )


def _levels(density: DensityEstimator) -> list[float]:
    levels = density.config.get("sigma_range")
    if not isinstance(levels, list | tuple) or len(levels) != 2:
        raise ShapeError(
            f"{type(density).__name__}: expected 'sigma_range', lowest and highest noise level, in its config, got "
            f"{density.config}"
        )
    return [float(level) for level in levels]
