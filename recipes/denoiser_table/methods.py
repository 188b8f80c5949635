"""The rows of the table: what is trained for each, and how it denoises.

A new row is an option file beside these in ``rows/`` and one line in ``ROWS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers.noise_level import estimate_sigma

__all__ = ["ROWS", "Row"]

#: ``(model, noisy (1, 3, H, W), level (1,) or none, variant) -> (1, 3, H, W)``.
Denoise = Callable[[Any, Tensor, Tensor | None, float], Tensor]


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        name: on the command line and in the results.
        title: in the table.
        denoise: what is measured.
        options: the option file that is trained, ``rows/NAME.yml``; empty: nothing is trained.
        variants: settings to choose from; the best on each test counts, which flatters.
        told: whether the result depends on the level that it is told.
    """

    name: str
    title: str
    denoise: Denoise
    options: str = ""
    variants: tuple[float, ...] = (0.0,)
    told: bool = True

    @property
    def own(self) -> str:
        """The option file that is trained on the noisy files of SIDD themselves."""
        return f"{self.options}_sidd"


def _as_it_is(model: nn.Module, x: Tensor, sigma: Tensor | None, variant: float) -> Tensor:
    return x


def _bm3d(model: nn.Module, x: Tensor, sigma: Tensor | None, variant: float) -> Tensor:
    # Only this row needs the package, whose terms are its own.
    from bm3d import bm3d_rgb

    sigma = estimate_sigma(x) if sigma is None else sigma
    image = x[0].permute(1, 2, 0).double().numpy()
    return torch.from_numpy(bm3d_rgb(image, float(sigma))).permute(2, 0, 1)[None].float()


def _blur(model: nn.Module, x: Tensor, sigma: Tensor | None, std: float) -> Tensor:
    reach = int(4 * std + 1)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / std) ** 2)
    line = (line / line.sum()).view(1, 1, 1, -1)
    padded = F.pad(x, (reach,) * 4, mode="replicate").transpose(0, 1)  # channels as images
    return F.conv2d(F.conv2d(padded, line), line.transpose(2, 3)).transpose(0, 1)


def _denoise(model: Any, x: Tensor, sigma: Tensor | None, variant: float) -> Tensor:
    return model.denoise(x, sigma)


def _prior_mean(model: Any, x: Tensor, sigma: Tensor | None, variant: float) -> Tensor:
    """What a blind-spot network says of a pixel without having seen it."""
    mean, _ = model.predict(x, model.hole)
    return mean


ROWS = (
    Row("noisy", "noisy input", _as_it_is, told=False),
    Row("blur", "best Gaussian blur (oracle)", _blur, variants=tuple(0.3 + 0.1 * i for i in range(28)), told=False),
    Row("bm3d", "BM3D (`bm3d` 4.0.3, RGB)", _bm3d),
    Row("noise2void", "Noise2Void", _denoise, "noise2void", told=False),
    Row("blind_spot_mean", "blind spot, without the pixel", _prior_mean, "blind_spot", told=False),
    Row("blind_spot", "blind spot, posterior mean", _denoise, "blind_spot"),
    Row("flow_prior_blur", "flow prior, published blur", _denoise, "flow_prior_blur"),
    Row("flow_prior_exact", "flow prior, exact MAP weight", _denoise, "flow_prior_exact"),
    Row("flow_prior", "flow prior, automatic weight", _denoise, "flow_prior"),
    Row("flow_prior_stein", "flow prior, Stein term", _denoise, "flow_prior_stein"),
    Row("map_dae", "MAP denoiser, one level (the paper's)", _denoise, "map_dae", told=False),
    Row("map", "MAP denoiser, level-conditional", _denoise, "map"),
    Row("supervised", "supervised twin", _denoise, "supervised"),
)
