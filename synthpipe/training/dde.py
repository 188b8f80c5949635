"""The objective of the denoising density estimator of images: the scale-free loss J, averaged over domains.

Bigdeli et al., arXiv 2001.02728; ``J`` as in :func:`synthpipe.density.dde_loss`.  The gradient of a gradient costs
three to four times a step of regression; weights lie channels last, which is several times faster on CPUs at the small
widths of these networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from synthpipe.config.dde import TrainDDEOptions
from synthpipe.density.base import dde_loss
from synthpipe.density.dde import DDE
from synthpipe.images import luma, quantize_8bit, to_float
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective, RunParts, channels_last, generators_of
from synthpipe.training.data.domains import Degrader, DomainData, build_degraders
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["DDEObjective", "build_objective", "build_run"]

#: Thirds of the (logarithmic) range of noise levels, for the log.
_BANDS = ("low", "mid", "high")


class DDEObjective(Objective[DDE]):
    """Mean ``J`` of a batch with as many crops of each domain, each at a noise level of its own.

    Logged: ``J_<domain>``; ``J_low``, ``J_mid``, ``J_high`` over thirds of the range of noise levels, and
    ``gain_db_*``, by how much denoising raises the PSNR of clean crops, in the same thirds (both over this process's
    crops since the last line).

    Args:
        model: the estimator.
        degraders: what makes clean images into those of a domain, by its number; the others are taken as they come.
        crop: side of the crops, pixels.
        crops_per_context: crops from each image of a batch.
        grey: share of images that lose their colour before all else.
    """

    def __init__(
        self, model: DDE, degraders: Mapping[int, Degrader], crop: int, crops_per_context: int, grey: float = 0.0
    ) -> None:
        super().__init__(channels_last(model))
        self._degraders, self._crop, self._crops, self._grey = dict(degraders), crop, crops_per_context, grey
        self._domains, self._sigma_range = model.domains, model.sigma_range
        self._sums: Tensor | None = None  # (3 bands, [crops, J, clean crops, gain])

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean ``J`` over crops of ``batch["x"]``, ``(B, 3, context, context)`` uint8, of ``batch["domain"]``."""
        generators = generators_of(seeds)
        x, domain = self.crops(batch, generators)  # (B * crops, C, crop, crop)
        sigma, noise = self._noise(x, generators)
        j = dde_loss(self.model, x, sigma, noise, domain)
        detached = j.detach()
        self._count(detached, sigma, noise, domain)
        sums = torch.zeros(len(self._domains), 2, device=x.device)
        sums.index_add_(0, domain, torch.stack([detached, torch.ones_like(detached)], 1))
        means = (sums[:, 0] / sums[:, 1]).unbind()
        return j.mean(), {f"J_{name}": mean for name, mean in zip(self._domains, means, strict=True)}

    def crops(self, batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """What the loss sees: each image degraded as its domain asks, then cut.

        Returns:
            ``(B * crops_per_context, channels, crop, crop)`` float32 in [0, 1], and their domains.
        """
        x, domain = self._degraded(batch, generators), batch["domain"]
        cuts = []
        for image, generator in zip(x, generators, strict=True):
            rows, columns = (side - self._crop + 1 for side in image.shape[1:])
            for _ in range(self._crops):
                top = int(torch.randint(rows, (1,), generator=generator))
                left = int(torch.randint(columns, (1,), generator=generator))
                cuts.append(image[:, top : top + self._crop, left : left + self._crop])
        return torch.stack(cuts), domain.repeat_interleave(self._crops)

    def numbers(self) -> dict[str, float]:
        """``J`` and the denoising gain by thirds of the noise levels, of the steps since the last line of the log.

        Empty thirds are left out.
        """
        if self._sums is None:
            return {}
        rows = self._sums.tolist()
        numbers = {f"J_{band}": row[1] / row[0] for band, row in zip(_BANDS, rows, strict=True) if row[0]}
        gains = {f"gain_db_{band}": row[3] / row[2] for band, row in zip(_BANDS, rows, strict=True) if row[2]}
        return numbers | gains

    def forget_numbers(self) -> None:
        """The next ones are of the steps from here."""
        self._sums = None

    def pictures(self, model: DDE, batch: Batch, seed: int) -> Tensor:
        """A row for each image: as its domain has it | with noise of the middle level | denoised."""
        generators = picture_generators(seed, len(batch["x"]))
        x = self._degraded(batch, generators)
        low, high = self._sigma_range
        sigma = x.new_full((len(x),), math.sqrt(low * high))
        noise = torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators])
        noisy = x + sigma[:, None, None, None] * noise.to(x)
        return picture_grid(torch.stack([x, noisy, model.denoise(noisy, sigma, batch["domain"])], 1))

    @torch.no_grad()
    def _degraded(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """``(B, channels, context, context)`` float32 in [0, 1]; never in half precision, whatever the run's is."""
        domain = batch["domain"].tolist()
        with torch.autocast(batch["x"].device.type, enabled=False):
            x = to_float(batch["x"])
            if self._grey:
                chosen = [float(torch.rand((), generator=generator)) < self._grey for generator in generators]
                x[chosen] = quantize_8bit(luma(x[chosen])).expand(-1, 3, -1, -1)
            for number, degrade in self._degraders.items():
                places = [place for place, found in enumerate(domain) if found == number]
                x[places] = degrade(x[places], [generators[place] for place in places])
            return luma(x) if self.model.channels == 1 else x

    def _noise(self, x: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Log-uniform levels ``(B * crops,)`` and standard normal noise of the shape of ``x``."""
        low, high = self._sigma_range
        draws, noises = [], []
        for generator in generators:
            draws.append(torch.rand(self._crops, generator=generator))
            noises.append(torch.randn(self._crops, *x.shape[1:], generator=generator))
        sigma = low * (high / low) ** torch.cat(draws)
        return sigma.to(x.device), torch.cat(noises).to(x)

    @torch.no_grad()
    def _count(self, j: Tensor, sigma: Tensor, noise: Tensor, domain: Tensor) -> None:
        low, high = self._sigma_range
        place = (sigma / low).log() / math.log(high / low)
        band = (place * len(_BANDS)).long().clamp(0, len(_BANDS) - 1)
        # The denoised crop is off by sigma (e + sigma grad S): J takes the place of the noise's mean square.
        gain = 10 * (noise.flatten(1).square().mean(1) / j).log10()
        clean = (domain == 0).to(gain)
        rows = torch.stack([torch.ones_like(j), j, clean, clean * gain], 1)
        sums = torch.zeros(len(_BANDS), 4, device=j.device).index_add_(0, band, rows)
        self._sums = sums if self._sums is None else self._sums + sums


def build_objective(options: TrainDDEOptions) -> DDEObjective:
    """The objective that ``options`` describe.

    Raises:
        CheckpointError: DeFlow weights of a domain that are missing, damaged or of another kind.
        OptionError: a context that a DeFlow cannot take.
    """
    data = options.data
    model = DDE(**options.model.arguments(data.domains))
    return DDEObjective(model, build_degraders(data), data.crop, data.crops_per_context, data.grey)


def build_run(options: TrainDDEOptions) -> RunParts:
    """A density, and images of all its domains."""
    return RunParts(partial(build_objective, options), partial(DomainData, options.data, options.seed))
