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

__all__ = ["ConditionalShift", "DiagonalShift", "DomainShift", "FullShift", "standard_normal_log_prob"]

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

    def log_prob(self, z: Tensor, domain: Tensor, cond: Tensor) -> Tensor:
        """Per sample, the density of its own domain (``domain`` ``(B,)``, 0 clean, 1 noisy); ``(B,)`` in nats."""
        return torch.where(domain == 0, standard_normal_log_prob(z), self.log_prob_noisy(z, cond))


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

    def log_prob_noisy(self, z: Tensor, cond: Tensor) -> Tensor:
        total = 1 + self.variance(cond, z.dtype)
        white = (z - self.mean.to(z.dtype)) * total.rsqrt()
        log_det = (0.5 * total.log()).expand_as(z).flatten(1).sum(1)
        return standard_normal_log_prob(white) - log_det

    def shift(self, eps: Tensor, cond: Tensor) -> Tensor:
        return eps * self.variance(cond, eps.dtype).sqrt() + self.mean.to(eps.dtype)

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor) -> Tensor:
        variance = self.variance(cond, z.dtype)
        return (z - self.mean.to(z.dtype)) / (1 + variance) + eps * (variance / (1 + variance)).sqrt()

    def norm(self) -> float:
        return float(F.softplus(self.raw.detach()).mean().sqrt())


class ConditionalShift(DiagonalShift):
    """``S = diag(softplus(raw + net(cond)))``: the strength of u follows the conditioning features.

    The published model adds the same u everywhere, while the scale of its latents follows the texture: smooth areas
    then get too little noise and textured ones too much.  The features are the same for both domains, so the model
    stays identifiable from unpaired data.  Ours, not in the paper.

    Args:
        channels: C.
        cond_channels: F.
        hidden: width of the net.
        init: standard deviation of u at the start, above 0.
    """

    def __init__(self, channels: int, cond_channels: int, hidden: int = 32, init: float = 1.0) -> None:
        super().__init__(channels, init)
        self.net = nn.Sequential(
            nn.Conv2d(cond_channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]

    def variance(self, cond: Tensor, dtype: torch.dtype) -> Tensor:
        return F.softplus(self.raw.to(dtype) + self.net(cond).to(dtype))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)
