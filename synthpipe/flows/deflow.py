"""DeFlow: a conditional flow shared by a clean and a noisy domain, learnt from unpaired images (Wolf et al. 2021).

One invertible network f(.; h) maps both domains to latents; ``z_clean ~ N(0, I)`` and ``z_noisy = z_clean + u``.
Degrading x is ``f^-1(f(x; h(x)) + u; h(x))``, with h the features of the bicubically reduced image plus noise.

Legend: B batch, H, W image size, L levels.  Images are RGB on the [0, 1] scale; the domain is 0 (clean) or 1 (noisy).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.base import bits_per_dim, check_levels
from synthpipe.flows.draws import Generators, Noise, as_noise
from synthpipe.flows.encoder import RRDBEncoder, SmallEncoder
from synthpipe.flows.initialization import DataInitialized
from synthpipe.flows.levels import conditional_level
from synthpipe.flows.normalization import DomainNormalization
from synthpipe.flows.prior import ColourShift, DiagonalShift, DomainShift, FullShift
from synthpipe.flows.reshape import SplitPrior
from synthpipe.images import check_images, downscale_bicubic, pad_to_multiple, quantize_8bit

__all__ = [
    "CLEAN",
    "CONDITION",
    "DEQUANTIZATION",
    "NOISY",
    "SPLIT",
    "TOP",
    "DeFlow",
    "bits_per_dim",
    "resized_colour",
]

CLEAN, NOISY = 0, 1
# What numbers are for, as in flows/frozen/model.py.
CONDITION, SPLIT, TOP, DEQUANTIZATION, CLEAN_SPLIT, CLEAN_TOP = range(6)
_ENCODERS: dict[str, type[RRDBEncoder] | type[SmallEncoder]] = {"rrdb": RRDBEncoder, "small": SmallEncoder}


class DeFlow(DataInitialized):
    """The conditional flow, its encoder and the domain shift.

    Args:
        scale: reduction of the condition: h sees the image bicubically reduced by this.
        levels: L, squeezes; the channels after level l are 12, 24, 96, ... (half leave after level 1).
        steps: flow steps with a coupling, per level.
        transition_steps: steps without a coupling at the start of each level.
        hidden: width of the sub-networks of each coupling.
        encoder: ``{"type": "rrdb" | "small", ...}``, the rest being arguments of that encoder.
        condition_noise: standard deviation of the noise added to the reduced image ("LR_noise_std").
        quant: dequantisation noise is uniform of width 1 / quant. 255 fits 8-bit images exactly, whose levels are
            1 / 255 apart; 32 in the reference, whose 5-bit noise of 2.3 grey levels then stays in every output.
        dequantize_output: keep dequantisation noise on when translating, as the reference does.
        covariance: of the shift u: ``"full"`` (published), ``"diagonal"``, or ``"colour"`` (follows the colour of the
            reduced image, while the spread of clean latents follows its texture: :class:`ColourShift`; ours).
        covariance_init: start of the standard deviation of u. The published 0 never trains (its gradient is 0).
        scale_eps: lower end of the coupling scales (0.001 in the reference); larger is safer against NaN.
        coupling: ``"affine"`` (published), or ``"additive"``: see :class:`ConditionalCoupling`; ours.
        whiten: start the first 1x1 convolution of each level at the whitening of the first batch; ours.
        normalization: per-domain statistics, see :class:`DomainNormalization`; None for none.
        unconditional: zero the reduced image (the paper's ablation).

    Raises:
        ShapeError: arguments that do not fit together.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        levels: int = 3,
        steps: int = 16,
        transition_steps: int = 2,
        hidden: int = 64,
        encoder: Mapping[str, Any] | None = None,
        condition_noise: float = 0.03,
        quant: int = 255,
        dequantize_output: bool = False,
        covariance: Literal["full", "diagonal", "colour"] = "full",
        covariance_init: float = 1.0,
        scale_eps: float = 0.001,
        coupling: Literal["affine", "additive"] = "affine",
        whiten: bool = False,
        normalization: Mapping[str, Any] | None = None,
        unconditional: bool = False,
    ) -> None:
        super().__init__()
        check_levels("DeFlow", levels, 2)  # half of level 1 leaves by the split
        encoder = dict(encoder or {"type": "rrdb"})
        self.config: dict[str, Any] = {
            "scale": scale,
            "levels": levels,
            "steps": steps,
            "transition_steps": transition_steps,
            "hidden": hidden,
            "encoder": dict(encoder),
            "condition_noise": condition_noise,
            "quant": quant,
            "dequantize_output": dequantize_output,
            "covariance": covariance,
            "covariance_init": covariance_init,
            "scale_eps": scale_eps,
            "coupling": coupling,
            "whiten": whiten,
            "normalization": None if normalization is None else dict(normalization),
            "unconditional": unconditional,
        }
        if coupling not in ("affine", "additive"):
            raise ShapeError(f"DeFlow: coupling must be 'affine' or 'additive', got {coupling!r}")
        self.scale = scale
        self.size_multiple = math.lcm(2**levels, scale)
        self.encoder = _build_encoder(encoder, scale, levels)
        # Scales and noise that follow the colour find it in the first three channels of the features.
        self.with_colour = coupling == "additive" or covariance == "colour"
        cond_channels = [count + 3 * self.with_colour for count in self.encoder.out_channels]
        widths = _channels(levels)
        self.levels = nn.ModuleList(
            conditional_level(width, cond, steps, transition_steps, hidden, scale_eps, coupling == "additive")
            for width, cond in zip(widths, cond_channels, strict=True)
        )
        self.split = SplitPrior(widths[0], coupling == "additive")
        split_channels = widths[0] - self.split.kept
        self.shifts = nn.ModuleList(
            [
                _build_shift(covariance, split_channels, cond_channels[0], covariance_init),
                _build_shift(covariance, widths[-1], cond_channels[-1], covariance_init),
            ]
        )
        self.normalization = None if normalization is None else DomainNormalization(**normalization)

    # --- the flow itself -------------------------------------------------------------------------------------------

    def features(self, lr: Tensor) -> list[Tensor]:
        """Conditioning features, one per level, finest first, from ``lr`` ``(B, 3, H / scale, W / scale)``."""
        lr = torch.zeros_like(lr) if self.config["unconditional"] else lr
        features: list[Tensor] = self.encoder(lr)
        if not self.with_colour:
            return features
        return [torch.cat([resized_colour(lr, map_.shape[2:]).to(map_.dtype), map_], dim=1) for map_ in features]

    def encode(self, x: Tensor, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Image to latents.

        Args:
            x: ``(B, 3, H, W)``, dequantised and normalised as the caller wants it.
            features: from :meth:`features`.

        Returns:
            ``[split (B, 6, H/2, W/2), top (B, C, H/2^L, W/2^L)]`` and ``log|det|`` ``(B,)`` in nats.
        """
        split: Tensor | None = None
        total = x.new_zeros(x.shape[0])
        for index, (level, cond) in enumerate(zip(self.levels, features, strict=True)):
            x, logdet = level(x, cond)
            total = total + logdet
            if index == 0:
                x, split, logdet = self.split(x)
                total = total + logdet
        assert split is not None
        return [split, x], total

    def decode(self, latents: Sequence[Tensor], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents of :meth:`encode` to the image, with ``log|det|`` ``(B,)`` of this direction."""
        split, x = latents
        total = x.new_zeros(x.shape[0])
        for index in reversed(range(len(self.levels))):
            if index == 0:
                x, logdet = self.split.inverse(x, split)
                total = total + logdet
            x, logdet = self.levels[index].inverse(x, features[index])  # type: ignore[operator]
            total = total + logdet
        return x, total

    def log_prob(self, x: Tensor, domain: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Log-density of (dequantised, normalised) images in their own domains: ``(B,)`` in nats.

        Equation 2.1 of the model: ``log N(f(x); 0, I)`` or ``log N(f(x); mu, I + S)``, plus ``log|det df/dx|``.
        """
        latents, total = self.encode(x, features)
        for z, shift, cond in zip(latents, self._shifts(), (features[0], features[-1]), strict=True):
            total = total + shift.log_prob(z, domain, cond)
        return total

    # --- training --------------------------------------------------------------------------------------------------

    def nll(
        self, x: Tensor, domain: Tensor, generator: Generators | Noise | None = None, check_values: bool = True
    ) -> Tensor:
        """Negative log-density of dequantised images given their own reduced versions.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], 8-bit levels; sides multiples of ``size_multiple``.
            domain: ``(B,)`` int64, 0 clean, 1 noisy.
            generator: draws dequantisation and condition noise; one per image, one for all, or noise of any origin.
            check_values: look at the values of ``x`` and ``domain``, which waits for the device.

        Returns:
            ``(B,)`` in nats, a density on the [0, 1] scale; :func:`bits_per_dim` converts it.

        Raises:
            ShapeError: wrong shape or size; with ``check_values`` also NaN and other domains.
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
        return -(self.log_prob(dequantised, domain, features) + logdet)

    def bits_per_dim(self, nll: Tensor, shape: Sequence[int]) -> Tensor:
        """:func:`bits_per_dim`, ``(B,)``, with this model's quantisation."""
        return bits_per_dim(nll, shape, self.config["quant"])

    @torch.no_grad()
    def initialize(self, x: Tensor, domain: Tensor, generator: Generators | Noise | None = None) -> None:
        """Set every ActNorm from one batch of both domains; layers that are initialised stay as they are.

        Arguments as of :meth:`nll`.  With ``whiten``, the first 1x1 convolution of each level starts from ``x``
        ``(B, 3, H, W)``, too, in a new network.
        """
        with self._starting(self.config["whiten"]):
            self.nll(x, domain, generator)

    def shift_norms(self) -> dict[str, float]:
        """Root mean square standard deviation of u at the split and the top latent, in latent units."""
        split, top = self._shifts()
        return {"shift_split": split.norm(), "shift_top": top.norm()}

    # --- use -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def degrade(
        self, x: Tensor, generators: Generators | Noise, strength: float = 1.0, refuse_nonfinite: bool = True
    ) -> Tensor:
        """Clean images to noisy ones of the same content.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], any size: padded by mirroring to ``size_multiple`` and cut back.
            generators: one per image, so that an image's noise does not depend on its neighbours; one for all; or
                noise of any origin.
            strength: latents move by ``strength * u``; 1 is the trained domain, 0 gives x back (on the
                noisy domain's colour statistics, with ``normalization``).
            refuse_nonfinite: raise where an image comes out with NaN or infinity, instead of leaving it to the caller.

        Returns:
            ``(B, 3, H, W)``, not clipped: slightly below 0 or above 1 is normal.

        Raises:
            ShapeError: wrong shape or NaN, coming in or going out.

        >>> import torch
        >>> from synthpipe import checkpoints
        >>> flow = checkpoints.load("deflow_small", kind="deflow")
        >>> clean = torch.rand(2, 3, 50, 62)
        >>> noisy = flow.degrade(clean, [torch.Generator().manual_seed(number) for number in (7, 8)])
        >>> noisy.shape
        torch.Size([2, 3, 50, 62])
        """

        noise = as_noise(generators)

        def move(z: Tensor, shift: DomainShift, cond: Tensor, purpose: int) -> Tensor:
            """A latent ``(B, C, h, w)`` and its draw of u."""
            return z + strength * shift.shift(noise.normal(z, purpose), cond)

        y = self._translate(x, CLEAN, noise, move, "DeFlow.degrade")
        if refuse_nonfinite:
            self._refuse_nonfinite(y, "DeFlow.degrade")
        return y

    @torch.no_grad()
    def clean(self, y: Tensor, generators: Generators | Noise, temperature: float = 1.0) -> Tensor:
        """Noisy images ``(B, 3, H, W)`` to clean ones: a draw from the posterior of z_clean given z_noisy.

        Arguments, result and errors as of :meth:`degrade`; ``temperature`` scales the posterior's spread, 0 gives its
        mean.
        """

        noise = as_noise(generators)

        def move(z: Tensor, shift: DomainShift, cond: Tensor, purpose: int) -> Tensor:
            """A latent ``(B, C, h, w)`` without its part of u."""
            return shift.remove(z, temperature * noise.normal(_with_extra(z, shift), purpose), cond)

        x = self._translate(y, NOISY, noise, move, "DeFlow.clean")
        self._refuse_nonfinite(x, "DeFlow.clean")
        return x

    @torch.no_grad()
    def sample(self, lr: Tensor, domain: int, generators: Generators | Noise, temperature: float = 1.0) -> Tensor:
        """Images of a domain given a reduced image.

        Args:
            lr: ``(B, 3, h, w)`` in [0, 1], sides such that h * scale and w * scale are multiples of ``size_multiple``.
            domain: 0 clean, 1 noisy.
            generators: one per image, one for all, or noise of any origin.
            temperature: of the latents' standard normal part.

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
        features = self.features(self._with_condition_noise(lr, noise))
        latents = []
        parts = zip(self._latent_shapes(height, width), self._shifts(), (features[0], features[-1]), strict=True)
        for (shape, shift, cond), clean, noisy in zip(parts, (CLEAN_SPLIT, CLEAN_TOP), (SPLIT, TOP), strict=True):
            like = lr.new_empty(len(lr), *shape)
            z = shift.draw_clean(temperature * noise.normal(_with_extra(like, shift), clean), cond)
            latents.append(z + shift.shift(noise.normal(z, noisy), cond) if domain == NOISY else z)
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

    def _shifts(self) -> list[DomainShift]:
        return list(self.shifts)  # type: ignore[arg-type]

    def _reduce(self, x: Tensor) -> Tensor:
        return quantize_8bit(downscale_bicubic(x, self.scale))

    def _with_condition_noise(self, lr: Tensor, noise: Noise) -> Tensor:
        return lr + float(self.config["condition_noise"]) * noise.normal(lr, CONDITION)

    def _check_size(self, x: Tensor, name: str) -> None:
        height, width = x.shape[2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ShapeError(
                f"{name}: height and width must be multiples of {self.size_multiple} (lcm of 2 ** levels and scale), "
                f"got {height}x{width}; call images.crop_to_multiple(x, {self.size_multiple}) first"
            )

    def _latent_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        widths, side = _channels(len(self.levels)), 2 ** len(self.levels)
        return [(widths[0] - self.split.kept, height // 2, width // 2), (widths[-1], height // side, width // side)]


def _channels(levels: int) -> list[int]:
    """Channels inside each level: all of the squeezed image at level 1, half of it further on."""
    return [12] + [6 * 4**level for level in range(1, levels)]


def _build_encoder(options: dict[str, Any], scale: int, levels: int) -> RRDBEncoder | SmallEncoder:
    kind = options.pop("type", None)
    if kind not in _ENCODERS:
        raise ShapeError(f"DeFlow: encoder type must be one of {sorted(_ENCODERS)}, got {kind!r}")
    return _ENCODERS[kind](scale=scale, levels=levels, **options)


def _build_shift(covariance: str, channels: int, cond: int, init: float) -> DomainShift:
    if covariance == "full":
        return FullShift(channels, init)
    if covariance == "diagonal":
        return DiagonalShift(channels, init)
    if covariance == "colour":
        return ColourShift(channels, cond, init=init)
    raise ShapeError(f"DeFlow: covariance must be 'full', 'diagonal' or 'colour', got {covariance!r}")


def _with_extra(z: Tensor, shift: DomainShift) -> Tensor:
    """Something of the shape of the draws that the shift's posterior and clean law need."""
    return z.new_empty(len(z), z.shape[1] + shift.extra_draws, *z.shape[2:])


def resized_colour(lr: Tensor, size: Sequence[int]) -> Tensor:
    """``lr`` at a level's size: bilinear above its own, averaged below."""
    if lr.shape[2] >= size[0]:
        return F.adaptive_avg_pool2d(lr, (size[0], size[1]))
    return F.interpolate(lr, size=tuple(size), mode="bilinear", align_corners=False)
