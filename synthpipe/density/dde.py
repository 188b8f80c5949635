"""The denoising density estimator of images, in the potential form ``S = -||R||^2 / 2``.

arXiv 2001.02728 for the loss; the potential form is close to gradient-step denoisers (Hurault et al. 2022): the small
convolutional network ``R`` plays the part of the normalised residual, and ``S`` is a sum over pixels, so tiles of any
size are scored.  One network serves several domains (clean, degraded) by one head each: everything but the last
convolution is shared, so the ratio of two domains' densities costs one pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.density.base import LEVEL_TERMS, DensityEstimator, level_place, level_terms
from synthpipe.density.folded import Convolutions, energy_score, mean_energies
from synthpipe.errors import ShapeError
from synthpipe.images import luma

__all__ = ["DDE"]

#: Standard deviation of fine detail in photographs, about; keeps ``R`` of order 1 at every level.
_DETAIL = 0.02


class DDE(DensityEstimator):
    """A fully convolutional density of images ``(B, 3, H, W)`` or ``(B, 1, H, W)`` in [0, 1].

    ``R = (A y + g(y, sigma)) / sqrt(sigma^2 + c^2)`` with a linear 3x3 filter ``A``, a constant ``c``, and ``g`` of
    ``depth`` 3x3 convolutions with SiLU between them, whose channels are scaled and shifted by polynomials in
    ``log sigma``.

    Args:
        channels: 1 (grey; RGB images are turned into luma) or 3.
        width: channels inside.
        depth: convolutions in ``g``; a pixel of ``R`` sees ``2 * depth + 1`` pixels across.
        outputs: channels of ``R`` for each domain.
        domains: names; the first is the clean one.
        sigma_range: lowest and highest noise level that it is trained for.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        depth: int = 4,
        outputs: int = 8,
        domains: Sequence[str] = ("clean",),
        sigma_range: Sequence[float] = (0.01, 0.25),
    ) -> None:
        super().__init__()
        low, high = sigma_range
        if channels not in (1, 3) or min(width, outputs) < 1 or depth < 2 or not domains or not 0 < low < high:
            raise ShapeError(
                "DDE: expected channels 1 or 3, width and outputs of at least 1, depth of at least 2, domains and "
                f"0 < low < high in sigma_range; got channels={channels}, width={width}, depth={depth}, "
                f"outputs={outputs}, domains={list(domains)}, sigma_range={list(sigma_range)}"
            )
        self.config = {
            "channels": channels,
            "width": width,
            "depth": depth,
            "outputs": outputs,
            "domains": list(domains),
            "sigma_range": [float(low), float(high)],
        }
        self.channels, self.outputs = channels, outputs
        self.domains, self.sigma_range = tuple(domains), (float(low), float(high))
        heads = outputs * len(self.domains)
        self.linear = nn.Conv2d(channels, heads, 3, bias=False)
        sizes = [channels] + [width] * (depth - 1)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3) for i, o in itertools.pairwise(sizes))
        self.levels = nn.ModuleList(nn.Linear(LEVEL_TERMS, 2 * width, bias=False) for _ in self.convs)
        self.head = nn.Conv2d(width, heads, 3)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Begin as a linear high-pass residual: a white one times a level's gain, so that J starts near 1."""
        for level in self.levels:
            assert isinstance(level, nn.Linear)
            level.weight.zero_()
        filters = _high_pass_filters().repeat(-(-self.outputs // 8), 1, 1)[: self.outputs]  # (outputs, 3, 3)
        filters = filters / math.sqrt(self.channels * max(self.outputs / 8, 1))
        self.linear.weight.copy_(filters[:, None].repeat(len(self.domains), self.channels, 1, 1))
        self.head.weight.mul_(0.1)

    @property
    def border(self) -> int:
        """Pixels on each side that :meth:`energies` without padding leaves out."""
        return len(self.convs) + 1

    def residual(self, y: Tensor, sigma: Tensor, *, pad: bool = True) -> Tensor:
        """``R`` of every domain.

        Args:
            y: ``(B, 1, H, W)`` or ``(B, 3, H, W)``; may leave [0, 1] (noise).
            sigma: ``(B,)``.
            pad: False leaves out the pixels near the border, where padding with zeros would be seen.

        Returns:
            ``(B, domains, outputs, H, W)``; without ``pad`` smaller by :attr:`border` on each side.

        Raises:
            ShapeError: wrong channels, or an image too small to leave a pixel.
        """
        y = self.as_trained(y)
        if not pad:
            self._check_room(y)
        terms = level_terms(sigma, self.sigma_range)
        padding = 1 if pad else 0
        h = y - 0.5
        for conv, level in zip(self.convs, self.levels, strict=True):
            assert isinstance(conv, nn.Conv2d)
            h = F.conv2d(h, conv.weight, conv.bias, padding=padding)
            scale, shift = level(terms)[:, :, None, None].chunk(2, 1)
            h = F.silu(h * (1 + scale) + shift)
        skip = y if pad else self._without_border(y)
        r = F.conv2d(h, self.head.weight, self.head.bias, padding=padding)
        r = r + F.conv2d(skip - 0.5, self.linear.weight, padding=padding)
        r = r * (sigma.square() + _DETAIL**2).rsqrt()[:, None, None, None]
        return torch.unflatten(r, 1, (len(self.domains), self.outputs))

    def energies(self, y: Tensor, sigma: Tensor, *, pad: bool = False) -> Tensor:
        """``||R||^2 / 2`` of every pixel and domain, ``(B, domains, H, W)``; arguments as in :meth:`residual`."""
        return 0.5 * self.residual(y, sigma, pad=pad).square().sum(2)

    @torch.no_grad()
    def mean_energies(self, y: Tensor, level: float) -> Tensor:
        """The mean of :meth:`energies` over the pixels at one noise level, ``(B, domains)``: the fast way to score.

        Args:
            y: as in :meth:`residual`.
            level: the noise level of every image.

        Raises:
            ShapeError: as :meth:`residual`.
        """
        y = self.as_trained(y)
        self._check_room(y)
        return mean_energies(self.folded(level), y, len(self.domains))

    def clean_score(self, y: Tensor, level: float) -> Tensor:
        """:meth:`score` of the first domain at one noise level, the fast way; ``(B, channels, H, W)``.

        Args:
            y: ``(B, channels, H, W)``, as many channels as the density has.
            level: the noise level of every image.
        """
        # Through weights that were folded in inference mode no gradient would go.
        with torch.inference_mode(False):
            return energy_score(self.folded(level, 1), y)

    @torch.no_grad()
    def folded(self, level: float, domains: int | None = None) -> Convolutions:
        """The convolutions of ``R`` at one noise level, its modulation folded into them; see :mod:`.folded`.

        Args:
            level: the noise level.
            domains: how many, from the first on; None: all.
        """
        t = level_place(math.log(level), self.sigma_range)
        # Powers of Python's numbers, each filled in: a tensor made of them all would come from the host.
        terms = torch.stack([self.head.weight.new_full((), t**power) for power in range(LEVEL_TERMS)])
        gain = (level**2 + _DETAIL**2) ** -0.5
        convolutions = []
        for conv, level_of in zip(self.convs, self.levels, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            assert isinstance(level_of, nn.Linear)
            scale, shift = (level_of.weight @ terms).chunk(2)
            weight, bias = conv.weight * (1 + scale)[:, None, None, None], conv.bias * (1 + scale)
            convolutions.append((weight, bias + shift))
        heads = (len(self.domains) if domains is None else domains) * self.outputs
        assert self.head.bias is not None
        # One convolution of both: the linear filter by itself, of one or three channels, would cost as much again.
        weight = torch.cat([self.head.weight[:heads], self.linear.weight[:heads]], 1) * gain
        return [*convolutions, (weight, self.head.bias[:heads] * gain)]

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        """``S`` of the images in nats, up to a constant, ``(B,)``; see :class:`DensityEstimator`."""
        total = -self.energies(y, sigma, pad=True).sum((2, 3))  # (B, domains)
        if domain is None:
            return total[:, 0]
        return total.gather(1, domain[:, None])[:, 0]

    def _without_border(self, y: Tensor) -> Tensor:
        """What the last convolution sees of ``y`` where none is padded."""
        cut = self.border - 1
        return y[:, :, cut:-cut, cut:-cut]

    def _check_room(self, y: Tensor) -> None:
        if min(y.shape[2:]) <= 2 * self.border:
            raise ShapeError(f"DDE: an image must exceed {2 * self.border} pixels on each side, got {tuple(y.shape)}")

    def as_trained(self, y: Tensor) -> Tensor:
        """``(B, 1 or 3, H, W)`` with the channels of the density, ``(B, channels, H, W)``.

        Raises:
            ShapeError: other images.
        """
        if y.ndim != 4 or y.shape[1] not in (1, 3):
            raise ShapeError(f"DDE: expected images (B, 1, H, W) or (B, 3, H, W), got {tuple(y.shape)}")
        return luma(y) if self.channels == 1 else y.expand(-1, 3, -1, -1)


def _high_pass_filters() -> Tensor:
    """The 3x3 cosine basis without its constant, ``(8, 3, 3)``: together they pass all but the local mean."""
    u = torch.arange(3.0)[:, None]
    i = torch.arange(3.0)[None]
    basis = torch.cos((2 * i + 1) * u * math.pi / 6) * math.sqrt(2 / 3)
    basis[0] = math.sqrt(1 / 3)
    return torch.einsum("ui,vj->uvij", basis, basis).reshape(9, 3, 3)[1:] / 3
