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
from synthpipe.small_systems import inverse_and_log_det

__all__ = ["ColourShift", "DiagonalShift", "DomainShift", "FullShift", "build_shift", "standard_normal_log_prob"]

_LOG_2PI = math.log(2 * math.pi)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """``log N(z; 0, I)`` summed over all but the batch: ``(B, C, H, W)`` -> ``(B,)`` in nats."""
    return -0.5 * (z.square() + _LOG_2PI).flatten(1).sum(1)


class DomainShift(nn.Module, ABC):
    """The contract: densities of both domains, sampling of u, and the posterior that takes u away.

    All maps take ``cond`` ``(B, F, H, W)``, the features at the latent's place in the flow, and ``log_level`` ``(B,)``,
    the log of each image's noise level over the pile's median (:class:`PileLevels`; None: no level); both may be
    ignored.
    """

    #: Standard normal channels that :meth:`remove` and :meth:`draw_clean` need beyond C.
    extra_draws = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 1, 1))

    @abstractmethod
    def log_prob_noisy(self, z: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``log N(z; mu, I + S)``, ``(B, C, H, W)`` -> ``(B,)`` in nats."""

    @abstractmethod
    def shift(self, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """u from standard normal ``eps``, both ``(B, C, H, W)``."""

    @abstractmethod
    def remove(self, z: Tensor, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """A draw of ``z_x | z_y = z``, ``(B, C, H, W)``; standard normal ``eps`` has ``extra_draws`` channels more."""

    @abstractmethod
    def norm(self) -> float:
        """Root mean square standard deviation of u per channel, where it does not depend on cond."""

    def log_prob_clean(self, z: Tensor, cond: Tensor) -> Tensor:
        """``log N(z; 0, I)``, ``(B, C, H, W)`` -> ``(B,)`` in nats."""
        return standard_normal_log_prob(z)

    def draw_clean(self, eps: Tensor, cond: Tensor) -> Tensor:
        """z_clean ``(B, C, H, W)`` from standard normal ``eps`` of ``extra_draws`` more channels."""
        return eps

    def log_prob(self, z: Tensor, domain: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """Per sample, the density of its own domain (``domain`` ``(B,)``, 0 clean, 1 noisy); ``(B,)`` in nats."""
        return torch.where(domain == 0, self.log_prob_clean(z, cond), self.log_prob_noisy(z, cond, log_level))

    def draws_like(self, z: Tensor) -> Tensor:
        """Something ``(B, C + extra_draws, H, W)`` of the shape of the draws for the latent ``z`` ``(B, C, H, W)``."""
        return z.new_empty(len(z), z.shape[1] + self.extra_draws, *z.shape[2:])


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

    def log_prob_noisy(self, z: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``log N(z; mu, I + A A^T)``, ``(B, C, H, W)`` -> ``(B,)`` in nats, at full precision under autocast too."""
        with torch.autocast(z.device.type, enabled=False):
            factor = self.factor.to(z.dtype)
            covariance = _identity(factor) + factor @ factor.T
            centred = (z - self.mean.to(z.dtype)).flatten(2)  # (B, C, HW)
            if z.device.type != "cpu":
                return _log_prob_by_elimination(centred, covariance)
            # Positive definite unless it holds NaN, which the result then shows.
            cholesky = torch.linalg.cholesky_ex(covariance).L
            white: Tensor = torch.linalg.solve_triangular(cholesky.expand(len(z), -1, -1), centred, upper=False)
            log_det: Tensor = cholesky.diagonal().log().sum() * centred.shape[2]
        return standard_normal_log_prob(white) - log_det

    def shift(self, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``A eps + mu``, both ``(B, C, H, W)``."""
        with torch.autocast(eps.device.type, enabled=False):
            return torch.einsum("ij,bjhw->bihw", self.factor.to(eps.dtype), eps) + self.mean.to(eps.dtype)

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``gain (z - mu) + root eps`` with the posterior's matrices, ``(B, C, H, W)``."""
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
        """Root mean square, over channels, of the standard deviations ``sqrt(diag(A A^T))``; in latent units."""
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

    def variance(self, cond: Tensor, dtype: torch.dtype, log_level: Tensor | None = None) -> Tensor:
        """Variance of u: ``(C, 1, 1)``, or ``(B, C, H, W)`` where it depends on the features."""
        return F.softplus(self.raw.to(dtype))

    def log_prob_noisy(self, z: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``log N(z; mu, I + S)``, channel by channel: ``(B, C, H, W)`` -> ``(B,)`` in nats."""
        log_prob = _normal_log_prob(z - self.mean.to(z.dtype), 1 + self.variance(cond, z.dtype, log_level))
        return log_prob.flatten(1).sum(1)

    def shift(self, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``sqrt(S) eps + mu``, both ``(B, C, H, W)``."""
        return eps * self.variance(cond, eps.dtype, log_level).sqrt() + self.mean.to(eps.dtype)

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``(z - mu) / (1 + S) + sqrt(S / (1 + S)) eps``, ``(B, C, H, W)``."""
        variance = self.variance(cond, z.dtype, log_level)
        return (z - self.mean.to(z.dtype)) / (1 + variance) + eps * (variance / (1 + variance)).sqrt()

    def norm(self) -> float:
        """Root mean square, over channels, of the standard deviations without what follows cond; in latent units."""
        return float(F.softplus(self.raw.detach()).mean().sqrt())


class ColourShift(DiagonalShift):
    """Clean spread that follows the features, noise that follows the colour: ``S = diag(softplus(raw + net(colour)))``.

    At each position ``z_clean ~ sum_k p_k(h) N(0, V_k(h))`` and ``z_noisy ~ sum_k p_k(h) N(mu, V_k(h) + S)``, with p
    and V from all features and S from the colour of the reduced image alone.  The published model has one component
    with V = I, so its flow must scale its latents by the texture, and the same u then comes out weak on flat areas and
    strong on textured ones.  Here V takes the texture, components tell detail from flat areas that look alike in the
    reduced image, and flat areas tell how strong the noise is for a colour.  Meant for additive couplings.  Ours, not
    in the paper.

    Args:
        channels: C.
        cond_channels: 3 + F; the first three channels are the colour.
        hidden: width of the net that gives p and V.
        init: standard deviation of u at the start, above 0.
        components: K; they start with standard deviations spaced by factors of 4 below 1.
        with_level: S follows the noise level, too: ``diag(level^2 softplus(raw + net(colour, log level)))``, the level
            being that of the image over the pile's median.
    """

    extra_draws = 1  # picks the component

    #: log V stays within this of its start.
    _LIMIT = 6.0
    #: Log-levels beyond this, a factor of 4 from the median, are followed in proportion alone.
    _WIDEST = 1.4

    def __init__(
        self,
        channels: int,
        cond_channels: int,
        hidden: int = 32,
        init: float = 1.0,
        components: int = 3,
        with_level: bool = False,
    ) -> None:
        super().__init__(channels, init)
        self.components = components
        self.clean_net = nn.Sequential(
            nn.Conv2d(cond_channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, components * (channels + 1), 1),
        )
        nn.init.zeros_(self.clean_net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.clean_net[2].bias)  # type: ignore[arg-type]
        self.with_level = with_level
        self.colour_net = ColourNet(channels, beside=int(with_level))

    def variance(self, cond: Tensor, dtype: torch.dtype, log_level: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)``, above 0, by the colour: the first three channels of ``cond`` ``(B, 3 + F, H, W)``.

        Raises:
            ShapeError: no ``log_level`` where it follows the level.
        """
        if not self.with_level:
            return F.softplus(self.raw.to(dtype) + self.colour_net(cond).to(dtype))
        if log_level is None:
            raise ShapeError("ColourShift: this shift follows the noise level, got none")
        # Between the levels of a pile, and beyond them, the net only corrects what proportion gives.
        followed = log_level.clamp(-self._WIDEST, self._WIDEST)[:, None]
        square = (2 * log_level.to(dtype)).exp()[:, None, None, None]
        return square * F.softplus(self.raw.to(dtype) + self.colour_net(cond, followed).to(dtype))

    def log_prob_clean(self, z: Tensor, cond: Tensor) -> Tensor:
        """``log sum_k p_k N(z; 0, V_k)`` over all positions: ``(B, C, H, W)`` -> ``(B,)`` in nats."""
        weights, clean = self._mixture(cond, z.dtype)
        return torch.logsumexp(weights + self._by_component(z, clean), dim=1).flatten(1).sum(1)

    def log_prob_noisy(self, z: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``log sum_k p_k N(z; mu, V_k + S)`` over all positions: ``(B, C, H, W)`` -> ``(B,)`` in nats."""
        weights, clean = self._mixture(cond, z.dtype)
        total = clean + self.variance(cond, z.dtype, log_level)[:, None]
        return torch.logsumexp(weights + self._by_component(z - self.mean.to(z.dtype), total), dim=1).flatten(1).sum(1)

    def draw_clean(self, eps: Tensor, cond: Tensor) -> Tensor:
        """``(B, C, H, W)`` from ``eps`` ``(B, C + 1, H, W)``, whose last channel picks the component."""
        weights, clean = self._mixture(cond, eps.dtype)
        return eps[:, :-1] * _pick(clean, weights, eps[:, -1:]).sqrt()

    def remove(self, z: Tensor, eps: Tensor, cond: Tensor, log_level: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)``; the last channel of ``eps`` ``(B, C + 1, H, W)`` picks from the components' posterior."""
        weights, clean = self._mixture(cond, z.dtype)
        centred, variance = z - self.mean.to(z.dtype), self.variance(cond, z.dtype, log_level)
        posterior = torch.log_softmax(weights + self._by_component(centred, clean + variance[:, None]), dim=1)
        chosen = _pick(clean, posterior, eps[:, -1:])
        kept = chosen / (chosen + variance)
        return centred * kept + eps[:, :-1] * (variance * kept).sqrt()

    def _mixture(self, cond: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Log-weights ``(B, K, H, W)`` and variances ``(B, K, C, H, W)`` of the clean latents."""
        out = self.clean_net(cond).to(dtype).unflatten(1, (self.components, -1))
        start = -math.log(16) * torch.arange(self.components, dtype=dtype, device=cond.device)
        log_variance = self._LIMIT * torch.tanh(out[:, :, 1:] / self._LIMIT) + start[:, None, None, None]
        return torch.log_softmax(out[:, :, 0], dim=1), log_variance.exp()

    @staticmethod
    def _by_component(z: Tensor, variance: Tensor) -> Tensor:
        """Log-density of each component, summed over channels: ``(B, C, H, W)`` -> ``(B, K, H, W)``."""
        return _normal_log_prob(z[:, None].expand_as(variance), variance).sum(2)


def build_shift(covariance: str, channels: int, cond: int, init: float, with_level: bool = False) -> DomainShift:
    """The shift of a latent of ``channels`` with ``cond`` channels of features, by the name of its covariance.

    Raises:
        ShapeError: an unknown name, or a level where the covariance cannot follow it.
    """
    if with_level and covariance != "colour":
        raise ShapeError(f"DeFlow: level needs covariance 'colour', which alone can follow it, got {covariance!r}")
    if covariance == "full":
        return FullShift(channels, init)
    if covariance == "diagonal":
        return DiagonalShift(channels, init)
    if covariance == "colour":
        return ColourShift(channels, cond, init=init, with_level=with_level)
    raise ShapeError(f"DeFlow: covariance must be 'full', 'diagonal' or 'colour', got {covariance!r}")


def _pick(variance: Tensor, log_weights: Tensor, normal: Tensor) -> Tensor:
    """One component's variance ``(B, C, H, W)`` at each position, drawn by its weight from a standard normal."""
    uniform = 0.5 * (1 + torch.erf(normal / math.sqrt(2)))  # (B, 1, H, W)
    index = (uniform > log_weights.exp().cumsum(1)[:, :-1]).sum(1)  # (B, H, W)
    index = index[:, None, None].expand(-1, 1, variance.shape[2], -1, -1)
    return variance.gather(1, index)[:, 0]


def _normal_log_prob(z: Tensor, variance: Tensor) -> Tensor:
    """``log N(z; 0, variance)`` of each element."""
    return -0.5 * (z.square() / variance + variance.log() + _LOG_2PI)


def _log_prob_by_elimination(centred: Tensor, covariance: Tensor) -> Tensor:
    """``log N(centred; 0, covariance)``, ``(B, C, N)`` -> ``(B,)``, in operations that a CUDA graph can hold.

    The libraries' factorisations wait for the device.  Inverse and determinant are computed without a gradient; the
    first terms of their series around ``covariance`` have their values and their first derivatives.
    """
    with torch.no_grad():
        inverse, log_det = inverse_and_log_det(covariance)
    precision = 2 * inverse - inverse @ covariance @ inverse
    log_det = log_det + (inverse * (covariance - covariance.detach())).sum()
    square = (centred * (precision @ centred)).flatten(1).sum(1)
    return -0.5 * (square + centred.shape[2] * (log_det + len(covariance) * _LOG_2PI))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)
