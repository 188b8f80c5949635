"""The MAP denoiser: a network whose output *is* the maximum a posteriori estimate, the proximal operator of a prior.

Bigdeli, Honzátko, Süsstrunk, Dunbar, "Image Restoration using Plug-and-Play CNN MAP Denoisers", VISAPP 2020
(arXiv 1912.09299).  With ``p_s`` the density of clean images smoothed by Gaussian noise of standard deviation ``s``,

    D(v, sigma) = argmin_x  -log p_s(x) + (rho / 2) ||x - v||^2,        rho = 1 / sigma^2,

so that ``D(v) = v + sigma^2 grad log p_s(D(v))``: an implicit step along the score, where the least-squares denoiser is
the explicit step from ``v``.  The paper has one level and ``s = sigma``, a short step: in flat regions, where clean
images do not vary, it halves the noise.  Here the level is an input and ``s = smoothing * sigma``, so that the penalty
can be annealed and a step go as far as wanted: in flat regions it leaves ``smoothing^2 / (1 + smoothing^2)`` of the
noise.

Legend: B batch, C channels of the denoiser, H, W size; images on the [0, 1] scale, ``sigma`` and ``s`` likewise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.plain import ResidualNet
from synthpipe.errors import ShapeError

__all__ = ["MapDenoiser", "dae_map_loss", "dde_map_objective", "step_mismatch"]


class FixedLevelNet(nn.Module):
    """The authors' network: 3x3 convolutions with zero padding, no normalisation and no level.

    Args:
        channels: of the image, in and out.
        width: inside.
        depth: convolutions, at least 2.
        inner_bias: whether convolutions between the first and the last have a bias; the authors' have none.
        slope: of the activation below 0; the authors' 0 let whole layers die.
    """

    def __init__(self, channels: int, width: int, depth: int, inner_bias: bool, slope: float) -> None:
        super().__init__()
        sizes = [channels] + [width] * (depth - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, bias=inner_bias or place == 0)
            for place, (i, o) in enumerate(itertools.pairwise(sizes))
        )
        self.out = nn.Conv2d(width, channels, 3, padding=1)
        self.act = nn.LeakyReLU(slope, inplace=True)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight, a=slope)
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C, H, W)``."""
        h = x
        for conv in self.convs:
            h = self.act(conv(h))
        out: Tensor = self.out(h)
        return out


class MapDenoiser(Denoiser):
    """``v - net(v, sigma)`` for any level, or ``v + net(v)`` for one level.

    Levels above ``sigma_range`` are taken as its upper end.  Below its lower end the step shrinks with ``sigma^2``, as
    ``sigma^2 grad log p`` does where the prior hardly changes, down to none at 0.

    Weights of the authors' TensorFlow release fit :meth:`reference`: layer k's kernel ``(3, 3, in, out)``, permuted to
    ``(out, in, 3, 3)``, is ``net.convs.k.weight`` for k = 0..15 and ``net.out.weight`` for k = 16; biases exist in the
    first and the last.

    Args:
        channels: 1 or 3.
        width: channels inside.
        depth: convolutions.
        sigma_range: lowest and highest level that it is trained for; equal where ``level_map`` is False.
        smoothing: ``s / sigma``, of the density whose proximal operator it is trained to be.
        level_map: whether the level is an input; without, the level given to :meth:`forward` is ignored.
        inner_bias: without ``level_map``: biases in every layer, not in the first and the last alone.
        slope: without ``level_map``: of the activation below 0.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 48,
        depth: int = 8,
        sigma_range: Sequence[float] = (2 / 255, 50 / 255),
        smoothing: float = 0.5,
        level_map: bool = True,
        inner_bias: bool = True,
        slope: float = 0.1,
    ) -> None:
        super().__init__()
        low, high = sigma_range
        ordered = 0 < low < high if level_map else 0 < low == high
        if channels not in (1, 3) or width < 1 or depth < 2 or not ordered or not smoothing > 0 or not 0 <= slope < 1:
            raise ShapeError(
                "MapDenoiser: expected channels 1 or 3, width of at least 1, depth of at least 2, smoothing above 0, "
                "slope in [0, 1) and 0 < low < high in sigma_range (low = high without level_map); got "
                f"channels={channels}, width={width}, depth={depth}, smoothing={smoothing}, slope={slope}, "
                f"sigma_range={list(sigma_range)}, level_map={level_map}"
            )
        self.config = {
            "channels": channels,
            "width": width,
            "depth": depth,
            "sigma_range": [float(low), float(high)],
            "smoothing": float(smoothing),
            "level_map": level_map,
            "inner_bias": inner_bias,
            "slope": float(slope),
        }
        self.channels = channels
        self.sigma_range, self.smoothing = (float(low), float(high)), float(smoothing)
        self.net: ResidualNet | FixedLevelNet
        if level_map:
            self.net = ResidualNet(channels, width, depth)
        else:
            self.net = FixedLevelNet(channels, width, depth, inner_bias, slope)
        self._depth = depth

    @classmethod
    def reference(cls, channels: int = 3) -> MapDenoiser:
        """The authors' network, untrained: 17 layers of 64 channels, 556,483 parameters for RGB, 554,177 for grey."""
        level = (11 if channels == 3 else 7) / 255
        return cls(channels, 64, 17, (level, level), smoothing=1.0, level_map=False, inner_bias=False, slope=0.0)

    @property
    def reach(self) -> int:
        """``depth`` pixels."""
        return self._depth

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The MAP estimate of images ``(B, C, H, W)`` at ``rho = 1 / sigma^2``, ``sigma`` ``(B,)``; of the same shape.

        ``sigma`` is the weight of the data, which need not be the level of any noise in ``x``.
        """
        step: Tensor
        if isinstance(self.net, FixedLevelNet):
            step = self.net(x)
            return x + step
        low, high = self.sigma_range
        shrink = (sigma / low).clamp(max=1).square()
        step = self.net(x, sigma.clamp(low, high))
        return x - shrink[:, None, None, None] * step


def dae_map_loss(d: Tensor, r: Tensor, v: Tensor, sigma: Tensor, s: Tensor) -> Tensor:
    """The paper's loss of a MAP denoiser, with the prior's gradient from a denoising autoencoder ``R``.

    ``(1/s^2) ||D - R(D + n)||^2 + (rho_train / 2) ||D - v||^2`` with n ~ N(0, s^2), times ``sigma^2`` and averaged over
    values.  No gradient flows through ``r``, so that of the first term is *twice* that of ``-log p_s``; with
    ``rho_train = 2 / sigma^2``, as here, the minimum is the proximal operator of ``rho = 1 / sigma^2``.

    Args:
        d: ``(B, ...)``, the denoiser's output D(v).
        r: ``R(d + n)``, the autoencoder for noise of level ``s``.
        v: the denoiser's input.
        sigma: ``(B,)``.
        s: ``(B,)``, the level that ``R`` is trained for.

    Returns:
        ``(B,)``.  Its gradient in ``d`` means something, its value does not.
    """
    prior = (d - r.detach()).flatten(1).square().mean(1)
    return (sigma / s).square() * prior + (d - v).flatten(1).square().mean(1)


def dde_map_objective(d: Tensor, log_density: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """What a MAP denoiser minimises, ``-log p_s(d) + ||d - v||^2 / (2 sigma^2)``: the loss where a density is at hand.

    Args:
        d: ``(B, ...)``, the denoiser's output D(v), or any other candidate.
        log_density: ``(B,)``, of ``d`` in nats up to a constant, summed over the pixels of ``d``, differentiable in it.
        v: the denoiser's input.
        sigma: ``(B,)``.

    Returns:
        ``(B,)`` in nats; comparable between candidates for the same ``v`` and ``sigma``.
    """
    return (d - v).flatten(1).square().sum(1) / (2 * sigma.square()) - log_density


def step_mismatch(d: Tensor, v: Tensor, score: Tensor, sigma: Tensor, again: Tensor | None = None) -> Tensor:
    """``||d - v - sigma^2 score|| / ||d - v||``: how far a denoiser's step is from one along a score.

    With the score at ``d`` this is 0 for the MAP denoiser (the implicit step); with the score at ``v``, for the
    least-squares denoiser of noise ``sigma`` (the explicit step).

    Args:
        d, v, score: ``(B, ...)``, the output, the input, and ``grad log p_s`` at either.
        sigma: ``(B,)``.
        again: where ``score`` is a mean over drawn noise, another of fresh draws: the product of both deviations is
            free of the noise of either, which would count as mismatch.

    Returns:
        ``(B,)``.
    """
    step = (d - v).flatten(1)
    scores = (score, score if again is None else again)
    first, second = (step - sigma.square()[:, None] * one.flatten(1) for one in scores)
    length: Tensor = step.norm(dim=1)
    return (first * second).sum(1).clamp(min=0).sqrt() / length
