"""The hand-made degradation: bicubic reduction, blur, noise, JPEG.  The baseline that a learned one has to beat."""

from __future__ import annotations

import math
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import images
from synthpipe.config.degrade import (
    BlurOptions,
    ClassicalDegradeOptions,
    GaussianNoiseOptions,
    PoissonGaussianNoiseOptions,
)
from synthpipe.errors import ShapeError
from synthpipe.seeds import generator_for
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.jpeg import jpeg_round_trip

__all__ = ["ClassicalDegrade"]


class ClassicalDegrade(BatchTransform):
    """Adds ``lq``: ``gt`` reduced by ``scale``, then blurred, made noisy and JPEG-compressed as the options say.

    Noise is ``N(0, sigma^2)``, or ``N(0, C)`` over R, G, B at each pixel, or ``N(0, a x + b)`` at brightness x.

    Shapes: ``gt`` ``(B, 3, H, W)`` in [0, 1] -> ``lq`` ``(B, 3, H / scale, W / scale)``, not clipped to [0, 1] and
    not rounded to 8 bits unless JPEG is on.

    Raises:
        ShapeError: ``gt`` is no finite RGB batch, its sides are no multiples of ``scale``, or seeds are missing.

    >>> import torch
    >>> from synthpipe.config.degrade import ClassicalDegradeOptions
    >>> from synthpipe.config.reader import parse_options
    >>> from synthpipe.transforms import ClassicalDegrade
    >>> options = parse_options({"type": "classical", "blur": {"sigma": [0.5, 1.5]}}, ClassicalDegradeOptions)
    >>> batch = ClassicalDegrade(options, scale=4)({"gt": torch.rand(1, 3, 64, 64), "seed": torch.tensor([5])})
    >>> batch["lq"].shape
    torch.Size([1, 3, 16, 16])
    """

    salt = "classical"

    def __init__(self, options: ClassicalDegradeOptions, scale: int) -> None:
        self.options = options
        self.scale = scale

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """Draws for each sample: blur ``sigma``, ``ratio``, ``angle``; ``noise_sigma``, ``eps``; JPEG ``quality``."""
        height, width = batch["gt"].shape[-2] // self.scale, batch["gt"].shape[-1] // self.scale
        if len(batch["seed"]) != len(batch["gt"]):
            raise ShapeError(f"ClassicalDegrade: {len(batch['gt'])} images but {len(batch['seed'])} seeds")
        generators = [generator_for(seed, self.salt) for seed in batch["seed"]]
        # Five numbers for every sample, needed or not: switching one step off leaves the draws of the others alone.
        u = torch.stack([torch.rand(5, generator=g, dtype=torch.float64) for g in generators])
        params: dict[str, Any] = {}
        if self.options.blur is not None:
            params["blur_sigma"] = _between(self.options.blur.sigma, u[:, 0])
            params["blur_ratio"] = _between(self.options.blur.ratio, u[:, 1])
            params["blur_angle"] = u[:, 2] * math.pi
        if self.options.noise is not None:
            if isinstance(self.options.noise, GaussianNoiseOptions) and self.options.noise.sigma is not None:
                params["noise_sigma"] = _between(self.options.noise.sigma, u[:, 3])
            params["eps"] = torch.stack([torch.randn(3, height, width, generator=g) for g in generators])
        if self.options.jpeg_quality is not None:
            low, high = self.options.jpeg_quality
            params["quality"] = (low + u[:, 4] * (high - low + 1)).floor().to(torch.int64).clamp(max=high)
        return params

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Add ``lq``; see the class for shapes and range."""
        images.check_images(batch["gt"], "ClassicalDegrade: gt")
        x = images.downscale_bicubic(batch["gt"], self.scale)
        if self.options.blur is not None:
            x = _blur(x, _kernels(params, _radius(self.options.blur)))
        if self.options.noise is not None:
            x = x + _noise(x, self.options.noise, params)
        if self.options.jpeg_quality is not None:
            x = jpeg_round_trip(x, params["quality"])
        return {**batch, "lq": x}


def _noise(x: Tensor, options: GaussianNoiseOptions | PoissonGaussianNoiseOptions, params: dict[str, Any]) -> Tensor:
    """What is added to ``x`` ``(B, 3, H, W)``, of its shape."""
    eps: Tensor = params["eps"].to(x)
    match options:
        case GaussianNoiseOptions() if options.covariance is not None:
            return torch.einsum("ij,bjhw->bihw", _square_root(options.covariance).to(x), eps)
        case GaussianNoiseOptions():
            sigma: Tensor = params["noise_sigma"].to(x)
            return sigma[:, None, None, None] * eps
        case PoissonGaussianNoiseOptions():
            a, b = x.new_tensor(options.a)[:, None, None], x.new_tensor(options.b)[:, None, None]
            return (a * x.clamp(0, 1) + b).clamp(min=0).sqrt() * eps
        case _:
            assert_never(options)


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return u * (limits[1] - limits[0]) + limits[0]


def _square_root(covariance: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Symmetric square root; unlike Cholesky's it exists for singular matrices."""
    values, vectors = torch.linalg.eigh(torch.tensor(covariance, dtype=torch.float64))
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def _radius(options: BlurOptions) -> int:
    return math.ceil(3 * options.sigma[1])


def _kernels(params: dict[str, Any], radius: int) -> Tensor:
    """Rotated Gaussians that sum to 1, ``(B, 2 radius + 1, 2 radius + 1)``; angle 0 lays the wide axis along x."""
    wide = params["blur_sigma"][:, None, None]
    narrow = wide * params["blur_ratio"][:, None, None]
    angle = params["blur_angle"][:, None, None]
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    along = angle.cos() * x + angle.sin() * y
    across = angle.cos() * y - angle.sin() * x
    kernels = torch.exp(-0.5 * ((along / wide) ** 2 + (across / narrow) ** 2))
    return kernels / kernels.sum((1, 2), keepdim=True)


def _blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image with its own kernel; edge pixels repeated."""
    batch, channels, height, width = x.shape
    radius = kernels.shape[-1] // 2
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    padded = padded.reshape(1, batch * channels, height + 2 * radius, width + 2 * radius)
    weight = kernels.to(x).repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weight, groups=batch * channels).reshape(x.shape)
