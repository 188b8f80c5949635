"""DeFlow: a conditional flow shared by a clean and a noisy domain, learnt from unpaired images (Wolf et al. 2021).

One invertible network f(.; h) maps both domains to latents; ``z_clean ~ N(0, I)`` and ``z_noisy = z_clean + u``.
Degrading x is ``f^-1(f(x; h(x)) + u; h(x))``, with h the features of the bicubically reduced image plus noise.

Legend: B batch, H, W image size, L levels.  Images are RGB on the [0, 1] scale; the domain is 0 (clean) or 1 (noisy).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flows.base import bits_per_dim
from synthpipe.flows.deflow_network import DeFlowNetwork
from synthpipe.flows.draws import Generators, Noise, as_noise
from synthpipe.flows.pile_levels import log_level_in_use, log_level_to_train
from synthpipe.flows.prior import DomainShift
from synthpipe.images import check_images, downscale_bicubic, pad_to_multiple, quantize_8bit

__all__ = [
    "CLEAN",
    "CONDITION",
    "DEQUANTIZATION",
    "LEVEL",
    "NOISY",
    "SPLIT",
    "TOP",
    "DeFlow",
    "bits_per_dim",
]

CLEAN, NOISY = 0, 1
# What numbers are for, as in flows/frozen/model.py.
CONDITION, SPLIT, TOP, DEQUANTIZATION, CLEAN_SPLIT, CLEAN_TOP, LEVEL = range(7)


class DeFlow(DeFlowNetwork):
    """The flow trained by likelihood, and used to degrade, clean and sample; arguments: :class:`DeFlowNetwork`."""

    # --- training --------------------------------------------------------------------------------------------------

    def nll(
        self,
        x: Tensor,
        domain: Tensor,
        generator: Generators | Noise | None = None,
        check_values: bool = True,
        level: Tensor | None = None,
    ) -> Tensor:
        """Negative log-density of dequantised images given their own reduced versions.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], 8-bit levels; sides multiples of ``size_multiple``.
            domain: ``(B,)`` int64, 0 clean, 1 noisy.
            generator: draws dequantisation and condition noise; one per image, one for all, or noise of any origin.
            check_values: look at the values of ``x`` and ``domain``, which waits for the device.
            level: ``(B,)`` of the noisy images, of which a model with ``level`` needs one each; those of clean images
                count for nothing.

        Returns:
            ``(B,)`` in nats, a density on the [0, 1] scale; :func:`bits_per_dim` converts it.

        Raises:
            ShapeError: wrong shape or size, no ``level`` where there must be one; with ``check_values`` also NaN and
                other domains.
        """
        check_images(x, "DeFlow.nll", check_values)
        self._check_size(x, "DeFlow.nll")
        if domain.shape != x.shape[:1]:
            raise ShapeError(f"DeFlow.nll: expected one domain per image, ({len(x)},), got {tuple(domain.shape)}")
        if check_values and not bool(((domain == CLEAN) | (domain == NOISY)).all()):
            raise ShapeError(f"DeFlow.nll: domains must be 0 (clean) or 1 (noisy), got {sorted(set(domain.tolist()))}")
        noise, lr = as_noise(generator), self._reduce(x)
        dequantised = x + (noise.uniform(x, DEQUANTIZATION) - 0.5) / self.config["quant"]
        logdet = x.new_zeros(len(x))
        if self.normalization is not None:
            dequantised, logdet = self.normalization.normalize(dequantised, domain)
            lr = self.normalization.normalize_condition(lr, domain)
        features = self.features(self._with_condition_noise(lr, noise))
        return -(self.log_prob(dequantised, domain, features, log_level_to_train(self.pile, level)) + logdet)

    def bits_per_dim(self, nll: Tensor, shape: Sequence[int]) -> Tensor:
        """:func:`bits_per_dim`, ``(B,)``, with this model's quantisation."""
        return bits_per_dim(nll, shape, self.config["quant"])

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        domain: Tensor,
        generator: Generators | Noise | None = None,
        level: Tensor | None = None,
    ) -> None:
        """Set every ActNorm from one batch of both domains; layers that are initialised stay as they are.

        Arguments as of :meth:`nll`.  With ``whiten``, the first 1x1 convolution of each level starts from ``x``
        ``(B, 3, H, W)``, too, in a new network.
        """
        with self._starting(self.config["whiten"]):
            self.nll(x, domain, generator, level=level)

    def shift_norms(self) -> dict[str, float]:
        """Root mean square standard deviation of u at the split and the top latent, in latent units."""
        split, top = self._shifts()
        return {"shift_split": split.norm(), "shift_top": top.norm()}

    # --- use -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def degrade(
        self,
        x: Tensor,
        generators: Generators | Noise,
        strength: float = 1.0,
        refuse_nonfinite: bool = True,
        level: Tensor | float | None = None,
    ) -> Tensor:
        """Clean images to noisy ones of the same content.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], any size: padded by mirroring to ``size_multiple`` and cut back.
            generators: one per image, so that an image's noise does not depend on its neighbours; one for all; or
                noise of any origin.
            strength: latents move by ``strength * u``; 1 is the trained domain, 0 gives x back (on the
                noisy domain's colour statistics, with ``normalization``).
            refuse_nonfinite: raise where an image comes out with NaN or infinity, instead of leaving it to the caller.
            level: of the noise, a standard deviation on the [0, 1] scale, one or ``(B,)``, for a model with ``level``;
                None: drawn for each image from those of the pile.

        Returns:
            ``(B, 3, H, W)``, not clipped: slightly below 0 or above 1 is normal.

        Raises:
            ShapeError: wrong shape or NaN, coming in or going out; a ``level`` for a model without.

        >>> import torch
        >>> from synthpipe import checkpoints
        >>> flow = checkpoints.load("deflow_small", kind="deflow")
        >>> clean = torch.rand(2, 3, 50, 62)
        >>> noisy = flow.degrade(clean, [torch.Generator().manual_seed(number) for number in (7, 8)])
        >>> noisy.shape
        torch.Size([2, 3, 50, 62])
        """

        noise = as_noise(generators)
        log_level = log_level_in_use(self.pile, level, x, noise, LEVEL)

        def move(z: Tensor, shift: DomainShift, cond: Tensor, purpose: int) -> Tensor:
            """A latent ``(B, C, h, w)`` and its draw of u."""
            return z + strength * shift.shift(noise.normal(z, purpose), cond, log_level)

        y = self._translate(x, CLEAN, noise, move, "DeFlow.degrade")
        if self.correction is not None:
            y = self.correction(x, y, log_level)
        if refuse_nonfinite:
            self._refuse_nonfinite(y, "DeFlow.degrade")
        return y

    @torch.no_grad()
    def clean(
        self,
        y: Tensor,
        generators: Generators | Noise,
        temperature: float = 1.0,
        level: Tensor | float | None = None,
    ) -> Tensor:
        """Noisy images ``(B, 3, H, W)`` to clean ones: a draw from the posterior of z_clean given z_noisy.

        Arguments, result and errors as of :meth:`degrade`; ``temperature`` scales the posterior's spread, 0 gives its
        mean.  A correction plays no part in it.
        """

        noise = as_noise(generators)
        log_level = log_level_in_use(self.pile, level, y, noise, LEVEL)

        def move(z: Tensor, shift: DomainShift, cond: Tensor, purpose: int) -> Tensor:
            """A latent ``(B, C, h, w)`` without its part of u."""
            return shift.remove(z, temperature * noise.normal(shift.draws_like(z), purpose), cond, log_level)

        x = self._translate(y, NOISY, noise, move, "DeFlow.clean")
        self._refuse_nonfinite(x, "DeFlow.clean")
        return x

    @torch.no_grad()
    def sample(
        self,
        lr: Tensor,
        domain: int,
        generators: Generators | Noise,
        temperature: float = 1.0,
        level: Tensor | float | None = None,
    ) -> Tensor:
        """Images of a domain given a reduced image.

        Args:
            lr: ``(B, 3, h, w)`` in [0, 1], sides such that h * scale and w * scale are multiples of ``size_multiple``.
            domain: 0 clean, 1 noisy.
            generators: one per image, one for all, or noise of any origin.
            temperature: of the latents' standard normal part.
            level: as of :meth:`degrade`.

        Returns:
            ``(B, 3, h * scale, w * scale)``, not clipped.
        """
        check_images(lr, "DeFlow.sample")
        height, width = lr.shape[2] * self.scale, lr.shape[3] * self.scale
        self._check_size(lr.new_empty(1, 3, height, width), "DeFlow.sample")
        domains = torch.full((len(lr),), domain, device=lr.device)
        if self.normalization is not None:
            lr = self.normalization.normalize_condition(lr, domains)
        noise = as_noise(generators)
        log_level = log_level_in_use(self.pile, level, lr, noise, LEVEL)
        features = self.features(self._with_condition_noise(lr, noise))
        latents = []
        parts = zip(self._latent_shapes(height, width), self._shifts(), (features[0], features[-1]), strict=True)
        for (shape, shift, cond), clean, noisy in zip(parts, (CLEAN_SPLIT, CLEAN_TOP), (SPLIT, TOP), strict=True):
            like = lr.new_empty(len(lr), *shape)
            z = shift.draw_clean(temperature * noise.normal(shift.draws_like(like), clean), cond)
            latents.append(z + shift.shift(noise.normal(z, noisy), cond, log_level) if domain == NOISY else z)
        x = self.decode(latents, features)[0]
        return x if self.normalization is None else self.normalization.undo(x, domains)

    def _translate(self, x: Tensor, domain: int, noise: Noise, move: Any, name: str) -> Tensor:
        check_images(x, name)
        height, width = x.shape[2:]
        padded = pad_to_multiple(x, self.size_multiple)
        source = torch.full((len(x),), domain, device=x.device)
        lr = self._reduce(padded)
        if self.config["dequantize_output"]:
            padded = padded + (noise.uniform(padded, DEQUANTIZATION) - 0.5) / self.config["quant"]
        if self.normalization is not None:
            padded = self.normalization.normalize(padded, source)[0]
            lr = self.normalization.normalize_condition(lr, source)
        # The same features both ways: with fresh noise on h the round trip would be no identity.
        features = self.features(self._with_condition_noise(lr, noise))
        latents, _ = self.encode(padded, features)
        parts = zip(latents, self._shifts(), (features[0], features[-1]), (SPLIT, TOP), strict=True)
        y = self.decode([move(*part) for part in parts], features)[0]
        if self.normalization is not None:
            y = self.normalization.undo(y, 1 - source)
        return y[..., :height, :width]

    # --- parts -----------------------------------------------------------------------------------------------------

    def _refuse_nonfinite(self, x: Tensor, name: str) -> None:
        if not bool(torch.isfinite(x).all()):
            raise ShapeError(
                f"{name}: the flow gave NaN or infinity; the weights amplify this input too much (scale_eps "
                f"{self.config['scale_eps']} bounds it), or they are damaged"
            )

    def _with_condition_noise(self, lr: Tensor, noise: Noise) -> Tensor:
        return lr + float(self.config["condition_noise"]) * noise.normal(lr, CONDITION)

    def _reduce(self, x: Tensor) -> Tensor:
        return quantize_8bit(downscale_bicubic(x, self.scale))
