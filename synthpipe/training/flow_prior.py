"""The objective of the flow-prior denoiser: noisy images and a density of clean ones, no pairs.

Maximum a posteriori for ``y = x + e``, e Gaussian of variance s^2, minimises over the output ``D = D(y)`` of each image

    mean((D - y)^2) + kappa * 2 s^2 ln 2 * bits(D),        kappa = 1,

with bits the code length per value under the density (derived; the published objective of Kattakinda & Rajagopalan,
ICIP 2020, blurs both images in the first term).  Divided by s^2, both terms are free of the crop's size, of
the level and of the number of channels.

Legend: B batch, C channels, c side of the crops, w window of the density, n windows along a side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.flow_prior import BlurTermOptions, PlainTermOptions, SteinTermOptions, TrainFlowPriorOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.denoisers.flow_prior import FlowPriorDenoiser
from synthpipe.errors import OptionError
from synthpipe.flows.draws import Noise
from synthpipe.flows.glow import Glow
from synthpipe.flows.windows import cut_windows
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of, noise_of
from synthpipe.training.data.image_data import ImageData, noisy_crops
from synthpipe.training.data.noise_belief import NoiseBelief, believed_noise, binomial_kernel, kernel_of
from synthpipe.training.data.noise_measurement import measured_correlation
from synthpipe.training.pictures import picture_grid
from synthpipe.training.prior_weight import AutomaticWeight, build_weight, residual_moments
from synthpipe.transforms.batch import Batch

__all__ = ["FlowPriorObjective", "build_objective", "build_run", "limit_pull", "soft_clamp"]

#: How far beyond [0, 1] the density is asked; a logit of the reference's form is defined up to 0.055.
_MARGIN = 0.03
#: Of the noise, the step of the finite difference along a draw of it.
_PROBE_STEP = 0.1


class FlowPriorObjective(Objective[FlowPriorDenoiser]):
    """Data term plus weighted code length, in units of the noise's variance times the level in grey levels.

    The last factor lets all levels weigh in: without it the lowest ones take most of the gradient, with its square the
    highest.  All of it is computed in float32: half precision would be lost in differences.  The clean crops of
    synthetic noise serve the number ``psnr`` in the log, and nothing else.

    Args:
        model: the denoiser.
        prior: the density of windows, frozen here; stands beside the model in checkpoints.  Of a Glow, ``window``,
            ``channels`` and ``log_prob`` are used.
        options: of the run.
        correlation: of the noise where it was measured, :func:`~synthpipe.denoisers.noise_level.noise_correlation`;
            None: as the options know it.
    """

    kernel: Tensor
    step: Tensor

    def __init__(
        self,
        model: FlowPriorDenoiser,
        prior: Glow,
        options: TrainFlowPriorOptions,
        correlation: Tensor | None = None,
    ) -> None:
        super().__init__(channels_last(model))
        self.prior = prior.eval().requires_grad_(False)
        self.weight = build_weight(options.weight)
        self._options = options
        self.register_buffer("kernel", _known_kernel(options) if correlation is None else kernel_of(correlation))
        self.register_buffer("step", torch.tensor(0))

    def train(self, mode: bool = True) -> FlowPriorObjective:
        """The density stays in eval mode."""
        super().train(mode)
        self.prior.eval()
        return self

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on ``batch["x"]``, ``(B, 3, c, c)`` uint8, noisy or to be made so."""
        with torch.autocast(batch["x"].device.type, enabled=False):
            return self._loss(batch, generators_of(seeds), noise_of(seeds, batch["x"].device))

    def numbers(self) -> dict[str, float]:
        """With an automatic weight, the level that the residual speaks of over the one it was told."""
        return {"level_ratio": self.weight.level_ratio()} if isinstance(self.weight, AutomaticWeight) else {}

    def pictures(self, model: FlowPriorDenoiser, batch: Batch, seed: int) -> Tensor:
        """A row for each image: noisy | denoised | four times their difference, or clean in place of it where known."""
        generators = picture_generators(seed, len(batch["x"]))
        noisy, clean, truth = self._noisy(batch, generators)
        level = believed_noise(noisy, truth, self._options.noise_model, self.kernel).level
        denoised = model.denoise(noisy, level)
        third = clean if truth else 0.5 + 4 * (noisy - denoised)
        return picture_grid(torch.stack([noisy, denoised, third], 1))

    def _loss(
        self, batch: Batch, generators: Sequence[torch.Generator], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        noisy, clean, truth = self._noisy(batch, generators)
        belief = believed_noise(noisy, truth, self._options.noise_model, self.kernel)
        denoised = self.model(noisy, belief.level)
        corners = self._corners(noisy.shape[2], generators)
        outside = (denoised - denoised.clamp(0, 1)).square() / belief.level.square()[:, None, None, None]
        # Both terms of the loss see the same pixels.
        window = self.prior.window
        data = cut_windows(self._data_term(noisy, denoised, belief, generators) + outside, window, corners)
        kappa = self.weight(belief.level) * self._warmth()
        bits = self._bits(cut_windows(denoised, window, corners), noise)
        loss = ((self._means(data) + 2 * math.log(2) * kappa * bits) * belief.level * 255).mean()
        numbers = {"bits_per_dim": bits, "residual": self._share(noisy - denoised, belief), "kappa": kappa}
        if truth:
            numbers["psnr"] = -10 * (denoised - clean).square().flatten(1).mean(1).log10()
        return loss, {name: value.detach().mean() for name, value in numbers.items()}

    # --- parts of the loss -----------------------------------------------------------------------------------------

    def _noisy(self, batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        return noisy_crops(batch, self.model.channels, self._options.data.noise, generators)

    def _data_term(
        self, noisy: Tensor, denoised: Tensor, belief: NoiseBelief, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """``(B, C, c, c)``: twice minus the log-likelihood of the residual, in its stead a blur or Stein's estimate."""
        chosen, residual = self._options.data_term, noisy - denoised
        variance = belief.level[:, None, None, None].square()
        stein = isinstance(chosen, SteinTermOptions)
        if stein or (self.weight.follows and self.training):
            with torch.set_grad_enabled(stein and torch.is_grad_enabled()):
                probe = belief.draw(denoised.detach(), generators)
                response: Tensor = (self.model(noisy + _PROBE_STEP * probe, belief.level) - denoised) / _PROBE_STEP
            if self.weight.follows and self.training:
                moments = residual_moments(residual.detach(), probe, response.detach(), belief.level)
                self.weight.follow(belief.level, moments)
        match chosen:
            case PlainTermOptions():
                return self._gaussian_term(residual, denoised, belief)
            case BlurTermOptions():
                return _blurred(residual, chosen.std).square() / variance
            case SteinTermOptions():
                return residual.square() / variance + 2 * probe * response / variance
            case _:
                assert_never(chosen)

    def _gaussian_term(self, residual: Tensor, denoised: Tensor, belief: NoiseBelief) -> Tensor:
        """``r^2 / v(D) + log(v(D) / level^2)``, v the variance at the output's brightness."""
        variance = belief.variance(denoised)
        return residual.square() / variance + (variance / belief.level.square()[:, None, None, None]).log()

    def _bits(self, windows: Tensor, noise: Noise) -> Tensor:
        """Bits per value of the windows ``(B, n n, C, w, w)`` of each image, ``(B,)``."""
        count = windows.shape[1]
        shown = soft_clamp(windows.flatten(0, 1))
        if self._options.max_pull is not None and shown.requires_grad:
            # A residual that is the noise gives the data term's gradient this size in each value.
            shown = limit_pull(shown, self._options.max_pull * 2 * 255 / windows.numel())
        nats = -self.prior.log_prob(shown, _NoiseOfWindows(noise, count))
        return self._means(nats.view(-1, count)) / (windows[0, 0].numel() * math.log(2))

    def _warmth(self) -> float:
        """What the prior's weight is multiplied by at this step, which is counted."""
        steps = self._options.prior_warmup
        share = min(1.0, (int(self.step) + 1) / steps) if steps else 1.0
        if self.training:
            self.step += 1
        return share

    def _corners(self, side: int, generators: Sequence[torch.Generator]) -> list[tuple[int, int]]:
        """Of each image, where its grid of windows begins."""
        slack = side % self.prior.window + 1
        places = [torch.randint(slack, (2,), generator=generator).tolist() for generator in generators]
        return [(top, left) for top, left in places]

    @staticmethod
    def _means(x: Tensor) -> Tensor:
        return x.flatten(1).mean(1)

    def _share(self, residual: Tensor, belief: NoiseBelief) -> Tensor:
        """The residual's variance as a share of the noise's, ``(B,)``."""
        return self._means(residual.square()) / belief.level.square()


class _NoiseOfWindows:
    """Noise of windows ``(B n, ...)``: each image's numbers, drawn for its ``n`` windows together."""

    def __init__(self, noise: Noise, count: int) -> None:
        self._noise, self._count = noise, count

    def normal(self, like: Tensor, purpose: int) -> Tensor:
        """Standard normal numbers ``(B n, ...)``."""
        return self._noise.normal(torch.unflatten(like, 0, (-1, self._count)), purpose).flatten(0, 1)

    def uniform(self, like: Tensor, purpose: int) -> Tensor:
        """Numbers ``(B n, ...)`` in [0, 1)."""
        return self._noise.uniform(torch.unflatten(like, 0, (-1, self._count)), purpose).flatten(0, 1)


def soft_clamp(x: Tensor) -> Tensor:
    """``x`` of any shape; beyond [0, 1], values bend and stay within 0.03 of it, where a density can be asked."""
    inside = x.clamp(0, 1)
    return inside + _MARGIN * torch.tanh((x - inside) / _MARGIN)


def limit_pull(x: Tensor, limit: float) -> Tensor:
    """``x`` ``(B, ...)`` itself; of its gradient, the root mean square over each image is cut to ``limit``."""
    y = x.clone()

    def cut(gradient: Tensor) -> Tensor:
        """``(B, ...)``, each image's part made no larger than ``limit``."""
        size = gradient.flatten(1).square().mean(1).sqrt().clamp_min(1e-30)
        return gradient * (limit / size).clamp(max=1.0).view(-1, *[1] * (gradient.ndim - 1))

    if y.requires_grad:
        y.register_hook(cut)  # type: ignore[no-untyped-call]
    return y


def _known_kernel(options: TrainFlowPriorOptions) -> Tensor:
    noise, chosen = options.data.noise, options.correlation_used
    match chosen:
        case "known":
            return binomial_kernel(noise.binomial if isinstance(noise, GaussianTrainingNoise) else 0)
        case "white":
            return binomial_kernel(0)
        case "measured":
            raise OptionError("correlation: measured, but the objective was given no measured correlation")
        case _:
            assert_never(chosen)


def _blurred(x: Tensor, std: float) -> Tensor:
    """Gaussian blur, cut at three standard deviations; mirrored edges as far as they go."""
    reach = min(math.ceil(3 * std), x.shape[-1] - 1)
    line = torch.exp(-torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device).square() / (2 * std**2))
    line = (line / line.sum()).view(1, 1, -1, 1)
    planes = F.pad(x.flatten(0, 1)[:, None], [reach] * 4, mode="reflect")
    return F.conv2d(F.conv2d(planes, line), line.transpose(2, 3)).view_as(x)


def build_objective(options: TrainFlowPriorOptions) -> FlowPriorObjective:
    """The objective that ``options`` describe, with its prior loaded.

    Raises:
        OptionError: a prior of other channels, or of windows larger than the crops.
        CheckpointError: no such weights, or not of kind glow.
    """
    prior = checkpoints.load(options.prior, kind="glow")
    assert isinstance(prior, Glow)
    channels = prior.channels
    if channels != options.model.channels:
        raise OptionError(f"model.channels: expected {channels}, as the prior has, got {options.model.channels}")
    if options.data.crop < prior.window:
        raise OptionError(f"data.crop: expected at least {prior.window}, the prior's window, got {options.data.crop}")
    measured = None
    if options.correlation_used == "measured":
        measured = measured_correlation(options.data, channels, options.seed)
    return FlowPriorObjective(FlowPriorDenoiser(**options.model.arguments()), prior, options, measured)


def build_run(options: TrainFlowPriorOptions) -> RunParts:
    """A denoiser beside a density of clean images, and crops of the images of one domain."""
    return RunParts(partial(build_objective, options), partial(ImageData, options.data, options.seed))
