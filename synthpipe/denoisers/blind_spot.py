"""The blind-spot denoiser: a prior of each pixel from its surroundings, and what the noisy pixel adds to it.

Honzatko et al., SDS 2020; loss and posterior of Laine et al., NeurIPS 2019.  A network that does not see a pixel gives
mean and covariance of its clean colour; :mod:`synthpipe.denoisers.noise_model` trains them on noisy images alone and
puts the noisy pixel back in.

Where the level is not known in training, the network's variance is that of the *noisy* pixel, which short trainings do
get right (a learned level does not find its place among the two for hundreds of thousands of steps).  The noise is what
is left where the surroundings tell a pixel best: a low percentile over the image; that is taken off again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet
from synthpipe.denoisers.blind_spot_nets.dilated import DilatedNet
from synthpipe.denoisers.blind_spot_nets.rotated import RotatedNet
from synthpipe.denoisers.blind_spot_nets.sweeps import SweepNet
from synthpipe.denoisers.noise_level import estimate_noise_line
from synthpipe.denoisers.noise_model import (
    AdditiveNoise,
    GaussianNoise,
    ImpulseNoise,
    NoiseModel,
    PoissonNoise,
    SignalDependentNoise,
)
from synthpipe.denoisers.pixel_covariance import (
    covariance_from_factor,
    factor_size,
    marginal_std,
    plus_diagonal,
    subtract_diagonal,
)
from synthpipe.errors import ShapeError

__all__ = ["BlindSpotDenoiser", "NoiseKind"]

NoiseKind = Literal["gaussian", "poisson", "signal_dependent", "impulse"]
LevelKind = Literal["known", "total", "learned"]

#: Networks by ``net["type"]``; the other keys are their arguments.
_NETS: dict[str, Callable[..., BlindSpotNet]] = {"dilated": DilatedNet, "rotated": RotatedNet, "sweeps": SweepNet}

_LEVELS: dict[str, int] = {"gaussian": 1, "poisson": 1, "signal_dependent": 2, "impulse": 1}
#: Standard deviation that an untrained network predicts: with none at all, the first losses are in the thousands.
_FIRST_STD = 0.1
#: Variance that rounding to 8 bits has anyway.
_ROUNDING = 1 / (12 * 255**2)
#: Share of the pixels whose variance is taken for noise alone, and groups of pixels by brightness.
_PERCENTILE = 0.05
_BRIGHTNESSES = 8


class BlindSpotDenoiser(Denoiser):
    """Posterior mean of the clean image under a blind-spot prior.

    For ``"gaussian"`` noise the contract of :class:`Denoiser` holds to the letter.  The other kinds turn ``sigma``,
    a mean over the image, into their own parameters by the brightness of the image that is handed in, so tiles should
    not be small; :meth:`posterior_mean` takes the parameters themselves.

    Args:
        channels: 1 or 3.
        net: ``{"type": "dilated", ...}`` with further arguments of the network.
        noise: what the posterior takes the noise for.
        level: ``"known"``: trained with the level of each image; the network's variance is the clean pixel's.
            ``"total"``: trained without; it is the noisy pixel's.  ``"learned"``: trained with one learned level for
            all images (Laine et al.), which needs very long training.
        hole: pixels on each side of a pixel that are not looked at either; as far as noise is correlated.

    Raises:
        ShapeError: settings that make no model.
    """

    def __init__(
        self,
        channels: int = 3,
        net: dict[str, Any] | None = None,
        noise: NoiseKind = "gaussian",
        level: LevelKind = "known",
        hole: int = 0,
    ) -> None:
        super().__init__()
        net = {"type": "dilated"} if net is None else dict(net)
        _check_settings(channels, net, noise, level, hole)
        self.channels, self.noise, self.level, self._net, self.hole = channels, noise, level, net, hole
        arguments = {key: value for key, value in net.items() if key != "type"}
        self.net = _NETS[net["type"]](channels, channels + factor_size(channels), **arguments)
        spread = [_FIRST_STD * (row == column) for row in range(channels) for column in range(row, channels)]
        # A buffer, so that it is where the network is; no part of the weights.
        start = torch.tensor([0.5] * channels + spread, dtype=torch.float64)[:, None, None]
        self.register_buffer("_start", start, persistent=False)
        self.raw_level = nn.Parameter(torch.zeros(_LEVELS[noise])) if level == "learned" else None

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        """Keyword arguments that build the same model again, with the hole as it is set now."""
        return {
            "channels": self.channels,
            "net": self._net,
            "noise": self.noise,
            "level": self.level,
            "hole": self.hole,
        }

    @property
    def reach(self) -> int:
        """That of the network with the hole as it is set now."""
        return self.net.reach(self.hole)

    @property
    def grid(self) -> int:
        """That of the network."""
        return self.net.grid

    def predict(self, x: Tensor, hole: int | None = None) -> tuple[Tensor, Tensor]:
        """What the surroundings of each pixel say of it.

        Args:
            x: ``(B, C, H, W)``, noisy.
            hole: None: the model's.

        Returns:
            Mean ``(B, C, H, W)``, and the upper triangle A, row by row ``(B, C (C + 1) / 2, H, W)``, of the covariance
            ``A^T A``: of the clean pixel where the level is ``"known"``, else of the noisy one but for its base.
        """
        out = self.net(x - 0.5, self.hole if hole is None else hole) + self._start.to(x.dtype)
        return out[:, : self.channels], out[:, self.channels :]

    def nll(self, x: Tensor, mu: Tensor, factor: Tensor, known: NoiseModel | None = None) -> Tensor:
        """What trains the model: ``(B, H, W)``, nats, of noisy ``x`` under what :meth:`predict` said of it.

        Args:
            x: ``(B, C, H, W)``.
            mu: of :meth:`predict`.
            factor: of :meth:`predict`.
            known: the noise, where the level is ``"known"``.
        """
        noise = known if known is not None else self._base_noise(len(x), x)
        return noise.nll(x, mu, covariance_from_factor(factor, self.channels))

    def learned_noise(self, count: int) -> NoiseModel:
        """The noise as learned, for ``count`` images; only for ``level="learned"``."""
        assert self.raw_level is not None, "only models with level='learned' have one"
        level = F.softplus(self.raw_level - 4) + 1e-3
        match self.noise:
            case "gaussian":
                return GaussianNoise(level.expand(count))
            case "poisson":
                return PoissonNoise(1 / level.expand(count))
            case "signal_dependent":
                return SignalDependentNoise(level[:1].expand(count), level[1:].expand(count))
            case "impulse":
                return ImpulseNoise(level.expand(count))
            case _:
                assert_never(self.noise)

    def total(self, mu: Tensor, factor: Tensor) -> Tensor:
        """Covariance ``(B, C, C, H, W)`` of the noisy pixel where the level is not ``"known"``, else of the clean."""
        covariance = covariance_from_factor(factor, self.channels)
        if self.level == "known":
            return covariance
        base = self._base_noise(len(mu), mu)
        return plus_diagonal(covariance, base.variance(mu)) if isinstance(base, AdditiveNoise) else covariance

    def _base_noise(self, count: int, like: Tensor) -> NoiseModel:
        """What is added to the network's covariance to make that of the noisy pixel."""
        if self.level == "learned":
            return self.learned_noise(count)
        return GaussianNoise(like.new_full((count,), _ROUNDING**0.5), saturates=self.noise != "poisson")

    def forward(self, x: Tensor, sigma: Tensor, hole: int | None = None) -> Tensor:
        """Posterior mean, ``(B, C, H, W)``, for noise of ``sigma`` ``(B,)``."""
        mu, factor = self.predict(x, hole)
        return self._posterior(x, mu, factor, self._noise_of_level(x, mu, factor, sigma))

    def posterior_mean(self, x: Tensor, noise: NoiseModel, hole: int | None = None) -> Tensor:
        """As :meth:`forward`, ``(B, C, H, W)``, for noise whose parameters are known."""
        return self._posterior(x, *self.predict(x, hole), noise)

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """See :class:`Denoiser`; where the level was unknown in training, it is read off the prediction."""
        if sigma is None and self.level != "known":
            self._check(x, None)
            sigma = self.own_sigma(x)
        return super().denoise(x, sigma)

    @torch.no_grad()
    def own_sigma(self, x: Tensor) -> Tensor:
        """Level of the noise by the model's own account, ``(B,)``, root mean square over channels.

        The 5th percentile over pixels of the noisy pixel's variance; where noise depends on brightness, a line through
        the lowest of each range of brightness.  For models whose level is not ``"known"``.

        Args:
            x: ``(B, C, H, W)`` of 1 or 3 channels, as for :meth:`Denoiser.denoise`.
        """
        if x.shape[1] > self.channels:
            by_plane = self.own_sigma(x.flatten(0, 1)[:, None])
            return torch.unflatten(by_plane, 0, x.shape[:2]).square().mean(1).sqrt()
        mu, factor = self.predict(x.expand(-1, self.channels, -1, -1))
        if self.noise == "impulse":
            noise = self.learned_noise(len(x))
            assert isinstance(noise, ImpulseNoise)
            return (noise.alpha * _distance_to_uniform(mu)).sqrt()
        if self.noise == "gaussian":
            return _low_percentile(self.total(mu, factor)).mean(1).sqrt()
        a, b = _low_line(mu, self.total(mu, factor))
        return (a * mu.clamp(0, 1).mean((2, 3)) + b).mean(1).sqrt()

    def _noise_of_level(self, x: Tensor, mu: Tensor, factor: Tensor, sigma: Tensor) -> NoiseModel:
        """The model of noise whose mean level over the image is ``sigma``."""
        mu = mu.detach().clamp(0, 1)
        brightness, variance = mu.mean((2, 3)), sigma.square()  # (B, C), (B,)
        match self.noise:
            case "gaussian":
                return GaussianNoise(sigma)
            case "poisson":
                return PoissonNoise(brightness.mean(1).clamp(min=1e-3) / variance.clamp(min=1e-12))
            case "impulse":
                return ImpulseNoise((variance / _distance_to_uniform(mu)).clamp(1e-6, 1 - 1e-6))
            case "signal_dependent":
                return self._line_of_level(x, mu, factor, brightness, variance)
            case _:
                assert_never(self.noise)

    def _line_of_level(
        self, x: Tensor, mu: Tensor, factor: Tensor, brightness: Tensor, variance: Tensor
    ) -> SignalDependentNoise:
        """Noise over brightness as the prediction or the image shows it, scaled to ``variance`` ``(B,)``."""
        if self.level != "known":
            a, b = _low_line(mu, self.total(mu, factor.detach()))
        elif min(x.shape[2:]) >= 8:
            a, b = (line[:, None].expand_as(brightness) for line in estimate_noise_line(x.detach()))
        else:
            a, b = torch.zeros_like(brightness), torch.ones_like(brightness)
        scale = (variance / (a * brightness + b).mean(1).clamp(min=1e-12))[:, None]
        return SignalDependentNoise(a * scale, b * scale)

    def _posterior(self, x: Tensor, mu: Tensor, factor: Tensor, noise: NoiseModel) -> Tensor:
        prior = self.total(mu, factor)
        if self.level != "known" and isinstance(noise, AdditiveNoise):
            prior = subtract_diagonal(prior, noise.variance(mu))
        return noise.posterior_mean(x, mu, prior)


def _check_settings(channels: int, net: dict[str, Any], noise: str, level: str, hole: int) -> None:
    if channels not in (1, 3) or hole < 0 or noise not in _LEVELS or level not in ("known", "total", "learned"):
        raise ShapeError(
            f"BlindSpotDenoiser: expected channels 1 or 3, a hole of at least 0, noise of {sorted(_LEVELS)} and level "
            f"'known', 'total' or 'learned', got channels={channels}, hole={hole}, noise={noise!r}, level={level!r}"
        )
    if net.get("type") not in _NETS:
        raise ShapeError(f"BlindSpotDenoiser: expected net['type'] of {sorted(_NETS)}, got {net.get('type')!r}")
    if noise == "impulse" and level == "total":
        raise ShapeError("BlindSpotDenoiser: impulse noise adds no variance to tell; take level 'known' or 'learned'")


def _distance_to_uniform(mu: Tensor) -> Tensor:
    """``(B,)``: mean square between the image and uniformly drawn colours."""
    return (1 / 12 + (mu - 0.5).square()).flatten(1).mean(1)


def _low_percentile(total: Tensor) -> Tensor:
    """``(B, C)``: low percentile over pixels of the noisy pixel's variance ``(B, C, C, H, W)``."""
    variance = marginal_std(total).square().flatten(2)
    return variance.kthvalue(max(1, round(_PERCENTILE * variance.shape[2])), 2).values


def _low_line(mu: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """``a`` and ``b`` ``(B, C)`` of the variance ``a * brightness + b`` that is left where prediction is best.

    From the pixels of lowest variance among those of like brightness, twice as many as the percentile has below it.

    Args:
        mu: ``(B, C, H, W)``.
        total: ``(B, C, C, H, W)``.
    """
    brightness, order = mu.flatten(2).sort(2)
    variance = marginal_std(total).square().flatten(2).gather(2, order)
    groups = min(_BRIGHTNESSES, brightness.shape[2])
    places, lows = [], []
    for m, v in zip(brightness.tensor_split(groups, 2), variance.tensor_split(groups, 2), strict=True):
        lowest = v.topk(max(1, round(2 * _PERCENTILE * v.shape[2])), 2, largest=False)
        places.append(m.gather(2, lowest.indices).mean(2))
        lows.append(lowest.values.mean(2))
    return _line(torch.stack(places, 2).clamp(0, 1), torch.stack(lows, 2))


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept ``(B, C)``, at least 0, of the least-squares lines through points ``(B, C, G)``."""
    mean_x, mean_y = x.mean(2), y.mean(2)
    away = x - mean_x[..., None]
    slope = (away * (y - mean_y[..., None])).mean(2) / away.square().mean(2).clamp(min=1e-12)
    through_zero = (x * y).mean(2) / x.square().mean(2).clamp(min=1e-12)
    slope = slope.clamp(min=0).minimum(through_zero)
    return slope, (mean_y - slope * mean_x).clamp(min=0)
