"""Latent priors of the two domains (Wolf et al. 2021, sections 3.2 and 3.3).

Clean latents are ``z_x ~ N(0, I)``; noisy ones are ``z_y = z_x + u`` with ``u ~ N(mu, S)`` independent of z_x, over
channels, independent from position to position.  Hence ``z_y ~ N(mu, I + S)``, and the posterior that cleans is

    z_x | z_y ~ N((I + S)^-1 (z_y - mu), S (I + S)^-1).

Legend: B batch, C channels of the latent, F channels of the features, H, W positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.coupling import ColourNet

__all__ = ["ColourShift", "DiagonalShift", "DomainShift", "FullShift", "standard_normal_log_prob"]

_LOG_2PI = math.log(2 * math.pi)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """``log N(z; 0, I)`` summed over all but the batch: ``(B, C, H, W)`` -> ``(B,)`` in nats."""
    return -0.5 * (z.square() + _LOG_2PI).flatten(1).sum(1)


class DomainShift(nn.Module, ABC):
    """The contract: densities of both domains, sampling of u, and the posterior that takes u away.

    All maps take ``cond`` ``(B, F, H, W)``, the features at the latent's level, and may ignore it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 1, 1))

    @abstractmethod
    def log_prob_noisy(self, z: Tensor, cond: Tensor) -> Tensor:
        """``log N(z; mu, I + S)``, ``(B, C, H, W)`` -> ``(B,)`` in nats."""

    @abstractmethod
    def shift(self, eps: Tensor, cond: Tensor) -> Tensor:
        """u from standard normal ``eps``, both ``(B, C, H, W)``."""

    @abstractmethod
    def remove(self, z: Tensor, eps: Tensor, cond: Tensor) -> Tensor:
        """A draw of ``z_x | z_y = z`` from standard normal ``eps``; ``(B, C, H, W)``."""

    @abstractmethod
    def norm(self) -> float:
        """Root mean square standard deviation of u per channel, where it does not depend on cond."""

    def log_prob_clean(self, z: Tensor, cond: Tensor) -> Tensor:
        """``log N(z; 0, I)``, ``(B, C, H, W)`` -> ``(B,)`` in nats."""
        return standard_normal_log_prob(z)

    def draw_clean(self, eps: Tensor, cond: Tensor) -> Tensor:
        """z_clean from standard normal ``eps``, both ``(B, C, H, W)``."""
        return eps

    def log_prob(self, z: Tensor, domain: Tensor, cond: Tensor) -> Tensor:
        """Per sample, the density of its own domain (``domain`` ``(B,)``, 0 clean, 1 noisy); ``(B,)`` in nats."""
        return torch.where(domain == 0, self.log_prob_clean(z, cond), self.log_prob_noisy(z, cond))


class FullShift(DomainShift):
    """``S = A A^T`` with a full C x C matrix, the same everywhere: the published form.

    Args:
        channels: C.
        init: A starts at ``init * I``.  At 0, the reference's value, the gradient of A is exactly 0 and the
            covariance never trains; 1 trains best.
    """

    def __init__(self, channels: int, init: float = 1.0) -> None:
        super().__init__(channels)
        self.factor = nn.Parameter(torch.eye(channels) * init)

    def log_prob_noisy(self, z: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            factor = self.factor.to(z.dtype)
            cholesky = torch.linalg.cholesky(_identity(factor) + factor @ factor.T)
            centred = (z - self.mean.to(z.dtype)).flatten(2)  # (B, C, HW)
            white = torch.linalg.solve_triangular(cholesky.expand(len(z), -1, -1), centred, upper=False)
            log_det = cholesky.diagonal().log().sum() * centred.shape[2]
        return standard_normal_log_prob(white) - log_det

    def shift(self, eps: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(eps.device.type, enabled=False):
            return torch.einsum("ij,bjhw->bihw", self.factor.to(eps.dtype), eps) + self.mean.to(eps.dtype)

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor) -> Tensor:
        # S may be singular, so no Cholesky: S = Q diag(s) Q^T gives all three matrices at once, in float64.
        factor = self.factor.double()
        s, q = torch.linalg.eigh(factor @ factor.T)
        s = s.clamp_min(0)
        gain = (q / (1 + s)) @ q.T
        root = (q * (s / (1 + s)).sqrt()) @ q.T
        centred = z - self.mean.to(z.dtype)
        with torch.autocast(z.device.type, enabled=False):
            mean = torch.einsum("ij,bjhw->bihw", gain.to(z.dtype), centred)
            return mean + torch.einsum("ij,bjhw->bihw", root.to(z.dtype), eps)

    def norm(self) -> float:
        return float(self.factor.detach().square().sum(1).mean().sqrt())


class DiagonalShift(DomainShift):
    """``S = diag(softplus(raw))``, the same everywhere: C numbers instead of C^2; the flow itself can rotate.

    Args:
        channels: C.
        init: standard deviation of u at the start, above 0.
    """

    def __init__(self, channels: int, init: float = 1.0) -> None:
        super().__init__(channels)
        if init <= 0:
            raise ShapeError(f"{type(self).__name__}: init must be above 0, got {init}; only a full shift starts at 0")
        self.raw = nn.Parameter(torch.full((channels, 1, 1), math.log(math.expm1(init**2))))

    def variance(self, cond: Tensor, dtype: torch.dtype) -> Tensor:
        """Variance of u: ``(C, 1, 1)``, or ``(B, C, H, W)`` where it depends on the features."""
        return F.softplus(self.raw.to(dtype))

    def clean_variance(self, cond: Tensor, dtype: torch.dtype) -> Tensor:
        """Variance of z_clean, shapes as in :meth:`variance`; 1 unless a subclass says otherwise."""
        return torch.ones_like(self.raw, dtype=dtype)

    def log_prob_clean(self, z: Tensor, cond: Tensor) -> Tensor:
        return _normal_log_prob(z, self.clean_variance(cond, z.dtype))

    def log_prob_noisy(self, z: Tensor, cond: Tensor) -> Tensor:
        total = self.clean_variance(cond, z.dtype) + self.variance(cond, z.dtype)
        return _normal_log_prob(z - self.mean.to(z.dtype), total)

    def draw_clean(self, eps: Tensor, cond: Tensor) -> Tensor:
        return eps * self.clean_variance(cond, eps.dtype).sqrt()

    def shift(self, eps: Tensor, cond: Tensor) -> Tensor:
        return eps * self.variance(cond, eps.dtype).sqrt() + self.mean.to(eps.dtype)

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor) -> Tensor:
        clean, variance = self.clean_variance(cond, z.dtype), self.variance(cond, z.dtype)
        kept = clean / (clean + variance)
        return (z - self.mean.to(z.dtype)) * kept + eps * (variance * kept).sqrt()

    def norm(self) -> float:
        return float(F.softplus(self.raw.detach()).mean().sqrt())


class ColourShift(DiagonalShift):
    """Clean spread that follows the features, noise that follows the colour: ``S = diag(softplus(raw + net(colour)))``.

    ``z_clean ~ N(0, V(h))`` and ``z_noisy ~ N(mu, V(h) + S)``, with log V from all features and S from the colour of
    the reduced image alone.  The published model has V = I, so its flow must scale its latents by the texture, and the
    same u then comes out weak on flat areas and strong on textured ones.  Here V takes the texture, and flat areas
    tell how strong the noise is for a colour.  Meant for additive couplings.  Ours, not in the paper.

    Args:
        channels: C.
        cond_channels: 3 + F; the first three channels are the colour.
        hidden: width of the net that gives V.
        init: standard deviation of u at the start, above 0.
    """

    #: log V stays within this of 0: spreads from 1/90 to 90.
    _LIMIT = 9.0

    def __init__(self, channels: int, cond_channels: int, hidden: int = 32, init: float = 1.0) -> None:
        super().__init__(channels, init)
        self.clean_net = nn.Sequential(
            nn.Conv2d(cond_channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        nn.init.zeros_(self.clean_net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.clean_net[2].bias)  # type: ignore[arg-type]
        self.colour_net = ColourNet(channels)

    def variance(self, cond: Tensor, dtype: torch.dtype) -> Tensor:
        return F.softplus(self.raw.to(dtype) + self.colour_net(cond).to(dtype))

    def clean_variance(self, cond: Tensor, dtype: torch.dtype) -> Tensor:
        log_variance = self.clean_net(cond).to(dtype)
        return (self._LIMIT * torch.tanh(log_variance / self._LIMIT)).exp()


def _normal_log_prob(z: Tensor, variance: Tensor) -> Tensor:
    log_det = (0.5 * variance.log()).expand_as(z).flatten(1).sum(1)
    return standard_normal_log_prob(z * variance.rsqrt()) - log_det


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)
