"""The chain of Real-ESRGAN: blur, resize, noise and JPEG twice over, then ringing.

Wang, Xie, Dong and Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW
2021, section 3; the numbers are those of the option file ``train_realesrgan_x4plus.yml``, by which its models were
trained.  As there, the image is sharpened before it is degraded.

Every sample draws all of it for itself.  BasicSR's ``RealESRGANModel`` shares over a batch what its tensors of one size
cannot differ in: factor and filter of each resize, the kind of noise, whether the second blur is applied, the order of
the last two; a pool of pairs (``queue_size``) hides it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FIRST", "SECOND", "OrderSettings", "RealEsrganSettings", "real_esrgan_chain"]

_Range = tuple[float, float]
_Stage = dict[str, Any]

#: How often each kind of kernel is drawn where it is no sinc.
_KERNELS: Mapping[str, float] = {
    "isotropic": 0.45,
    "anisotropic": 0.25,
    "generalized_isotropic": 0.12,
    "generalized_anisotropic": 0.03,
    "plateau_isotropic": 0.12,
    "plateau_anisotropic": 0.03,
}
_KERNEL_SIZES = [7, 21]
_FILTERS = ("area", "bilinear", "bicubic")
#: Cutoff of the last sinc filter, radians for each pixel.
_FINAL_CUTOFF = [math.pi / 3, math.pi]
#: BasicSR's ``USMSharp``: a kernel of 51 pixels, of OpenCV's standard deviation for that size, 0.3 (25 - 1) + 0.8.
_SHARPEN: _Stage = {"type": "halo", "amount": 0.5, "sigma": 8, "threshold": 10}


@dataclass(frozen=True)
class OrderSettings:
    """One of the two orders of degradations.

    Args:
        sigma: of the blur, pixels.
        resize: weights of enlarging, reducing and keeping the size.
        resize_range: lowest and highest factor; of the first order, of the size at hand, else of the LR size.
        noise_sigma: of Gaussian noise, of 255.
        poisson_scale: factor of Poisson noise.
        blur: how often the image is blurred at all.
        kernels: weight of each kind of kernel.
        sinc: how often a sinc kernel takes the place of these.
        beta_generalized, beta_plateau: exponents of the kernels of these kinds.
        gaussian: how often the noise is Gaussian; else it is Poisson noise.
        grey: how often the noise is the same in R, G and B.
        jpeg: lowest and highest quality.
    """

    sigma: _Range
    resize: tuple[float, float, float]
    resize_range: _Range
    noise_sigma: _Range
    poisson_scale: _Range
    blur: float = 1.0
    kernels: Mapping[str, float] = field(default_factory=lambda: _KERNELS)
    sinc: float = 0.1
    beta_generalized: _Range = (0.5, 4)
    beta_plateau: _Range = (1, 2)
    gaussian: float = 0.5
    grey: float = 0.4
    jpeg: _Range = (30, 95)


FIRST = OrderSettings(
    sigma=(0.2, 3),
    resize=(0.2, 0.7, 0.1),
    resize_range=(0.15, 1.5),
    noise_sigma=(1, 30),
    poisson_scale=(0.05, 3),
)
SECOND = OrderSettings(
    sigma=(0.2, 1.5),
    resize=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    noise_sigma=(1, 25),
    poisson_scale=(0.05, 2.5),
    blur=0.8,
)


@dataclass(frozen=True)
class RealEsrganSettings:
    """All that the chain depends on; by default as published.

    Args:
        first, second: the two orders.
        final_sinc: how often the last resize is followed by a sinc filter.
        sharpen: whether the image is sharpened at first.
    """

    first: OrderSettings = FIRST
    second: OrderSettings = SECOND
    final_sinc: float = 0.8
    sharpen: bool = True


def real_esrgan_chain(settings: RealEsrganSettings | None = None) -> list[_Stage]:
    """The stages, as they stand in an option file."""
    settings = settings or RealEsrganSettings()
    first, second = settings.first, settings.second
    back: list[_Stage] = [{"type": "resize", "to": "lr", "filter": _equally(_FILTERS), "antialias": False}]
    sinc: _Stage = {"type": "blur", "kinds": {"sinc": 1}, "size": _KERNEL_SIZES, "cutoff": _FINAL_CUTOFF}
    back += _sometimes(sinc, settings.final_sinc)
    orders = [
        {"weight": 0.5, "name": "jpeg_last", "chain": [*back, _jpeg(second)]},
        {"weight": 0.5, "name": "jpeg_first", "chain": [_jpeg(second), *back]},
    ]
    return [
        *([_SHARPEN] if settings.sharpen else []),
        *_sometimes(_blur(first), first.blur),
        *_resize(first, {}),
        _noise(first),
        _jpeg(first),
        *_sometimes(_blur(second), second.blur),
        *_resize(second, {"to": "lr"}),
        _noise(second),
        {"type": "choice", "of": orders},
    ]


def _sometimes(stage: _Stage, probability: float) -> list[_Stage]:
    if probability == 0:
        return []
    return [stage if probability == 1 else {**stage, "probability": probability}]


def _equally(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1)


def _drawn(weights: Mapping[str, float]) -> dict[str, float]:
    """Without those that are never drawn."""
    return {name: weight for name, weight in weights.items() if weight > 0}


def _blur(order: OrderSettings) -> _Stage:
    total = sum(order.kernels.values())
    share = 0.0 if total == 0 else (1 - order.sinc) / total
    # Rounded where a decimal fraction was meant.
    kinds = {name: round(weight * share, 12) for name, weight in order.kernels.items()}
    return {
        "type": "blur",
        "kinds": _drawn({**kinds, "sinc": order.sinc}),
        "size": _KERNEL_SIZES,
        "sigma": list(order.sigma),
        "beta_generalized": list(order.beta_generalized),
        "beta_plateau": list(order.beta_plateau),
    }


def _resize(order: OrderSettings, to: Mapping[str, str]) -> list[_Stage]:
    """Nothing where it would keep the size that the image has."""
    stage: _Stage = {"type": "resize", **to, "filter": _equally(_FILTERS), "antialias": False}
    weights = _drawn(dict(zip(("up", "down", "keep"), order.resize, strict=True)))
    if set(weights) == {"keep"}:
        return [stage] if to else []
    return [{**stage, "factor": list(order.resize_range), "direction": weights}]


def _noise(order: OrderSettings) -> _Stage:
    return {
        "type": "noise",
        "kinds": _drawn({"gaussian": order.gaussian, "poisson": round(1 - order.gaussian, 12)}),
        "channels": _drawn({"independent": round(1 - order.grey, 12), "grey": order.grey}),
        "sigma": [level / 255 for level in order.noise_sigma],
        "scale": list(order.poisson_scale),
    }


def _jpeg(order: OrderSettings) -> _Stage:
    # DiffJPEG takes real qualities; libjpeg whole ones.
    return {"type": "jpeg", "quality": [round(quality) for quality in order.jpeg], "law": "real"}
