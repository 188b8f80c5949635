"""The network of DeFlow: encoder, conditional levels, split and domain shifts (Wolf et al. 2021, section 3).

Legend: B batch, H, W image size, L levels.  Images are RGB on the [0, 1] scale; the domain is 0 (clean) or 1 (noisy).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.base import check_levels
from synthpipe.flows.encoder import build_encoder, resized_colour
from synthpipe.flows.flat_correction import FlatCorrection
from synthpipe.flows.initialization import DataInitialized
from synthpipe.flows.levels import conditional_level
from synthpipe.flows.normalization import DomainNormalization
from synthpipe.flows.pile_levels import PileLevels
from synthpipe.flows.prior import DomainShift, build_shift
from synthpipe.flows.reshape import SplitPrior

__all__ = ["DeFlowNetwork"]


class DeFlowNetwork(DataInitialized):
    """The conditional flow, its encoder and the domain shift: latents of images, and densities of latents.

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
        level: the shift follows each image's noise level, too (covariance ``"colour"``); ours.
        correction: sizes of a :class:`FlatCorrection` of what :meth:`degrade` adds; None for none; ours.

    Raises:
        ShapeError: arguments that do not fit together.
    """

    correction: FlatCorrection | None

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
        level: bool = False,
        correction: Mapping[str, int] | None = None,
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
        # Left out where they are off: fingerprints of older weights stay.
        self.config |= {"level": True} if level else {}
        if coupling not in ("affine", "additive"):
            raise ShapeError(f"DeFlow: coupling must be 'affine' or 'additive', got {coupling!r}")
        self.scale = scale
        self.size_multiple = math.lcm(2**levels, scale)
        self.encoder = build_encoder(encoder, scale, levels)
        # Scales and noise that follow the colour find it in the first three channels of the features.
        self.with_colour = coupling == "additive" or covariance == "colour"
        cond_channels = [count + 3 * self.with_colour for count in self.encoder.out_channels]
        widths = _channels(levels)
        self.levels = nn.ModuleList(
            conditional_level(width, cond, steps, transition_steps, hidden, scale_eps, coupling == "additive")
            for width, cond in zip(widths, cond_channels, strict=True)
        )
        self.split = SplitPrior(widths[0], coupling == "additive")
        of_latents = (widths[0] - self.split.kept, cond_channels[0]), (widths[-1], cond_channels[-1])
        self.shifts = nn.ModuleList(build_shift(covariance, *sizes, covariance_init, level) for sizes in of_latents)
        self.normalization = None if normalization is None else DomainNormalization(**normalization)
        self.pile = PileLevels() if level else None
        self.correct(None if correction is None else FlatCorrection(**correction))

    def correct(self, correction: FlatCorrection | None) -> None:
        """From now on :meth:`degrade` corrects what it adds; None: no longer."""
        self.correction = correction
        self.config.pop("correction", None)
        self.config |= {} if correction is None else {"correction": correction.config}

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

    def log_prob(
        self, x: Tensor, domain: Tensor, features: Sequence[Tensor], log_level: Tensor | None = None
    ) -> Tensor:
        """Log-density of (dequantised, normalised) images in their own domains: ``(B,)`` in nats.

        Equation 2.1 of the model: ``log N(f(x); 0, I)`` or ``log N(f(x); mu, I + S)``, plus ``log|det df/dx|``.
        """
        latents, total = self.encode(x, features)
        for z, shift, cond in zip(latents, self._shifts(), (features[0], features[-1]), strict=True):
            total = total + shift.log_prob(z, domain, cond, log_level)
        return total

    # --- parts -----------------------------------------------------------------------------------------------------

    def _shifts(self) -> list[DomainShift]:
        return list(self.shifts)  # type: ignore[arg-type]

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
