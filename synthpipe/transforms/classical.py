"""The hand-made degradation: bicubic reduction, blur, noise, JPEG.  The baseline that a learned one has to beat."""

from __future__ import annotations

import math
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe import images
from synthpipe.config.degrade import (
    BlurOptions,
    ClassicalDegradeOptions,
    GaussianNoiseOptions,
    PoissonGaussianNoiseOptions,
)
from synthpipe.errors import ShapeError
from synthpipe.flows.draws import SeededNoise
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.jpeg import JpegRoundTrip

__all__ = ["ClassicalDegrade"]

# What numbers are for.
_SETTINGS, _EPS = range(2)


class ClassicalDegrade(DeviceTransform):
    """Adds ``lq``: ``gt`` reduced by ``scale``, then blurred, made noisy and JPEG-compressed as the options say.

    Noise is ``N(0, sigma^2)``, or ``N(0, C)`` over R, G, B at each pixel, or ``N(0, a x + b)`` at brightness x, where
    neighbours and channels may be correlated.

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
        self._noise = None if options.noise is None else _Noise(options.noise)
        self._jpeg = JpegRoundTrip()

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """Draws for each sample: blur ``sigma``, ``ratio``, ``angle``; ``noise_sigma``, ``eps``; JPEG ``quality``."""
        gt, seeds = batch["gt"], batch["seed"]
        if len(seeds) != len(gt):
            raise ShapeError(f"ClassicalDegrade: {len(gt)} images but {len(seeds)} seeds")
        height, width = gt.shape[-2] // self.scale, gt.shape[-1] // self.scale
        return self._draws(seeds.to(gt.device), gt.new_empty(len(gt), 3, height, width))

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Add ``lq``; see the class for shapes and range."""
        images.check_images(batch["gt"], "ClassicalDegrade: gt")
        return {**batch, "lq": self._degraded(batch["gt"], params)}

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add ``lq``, as drawing and applying do."""
        return {**batch, "lq": self._degraded(batch["gt"], self.sample_params(batch))}

    def to(self, device: torch.device | str) -> ClassicalDegrade:
        """Move the constants."""
        self._jpeg.to(device)
        if self._noise is not None:
            self._noise.to(device)
        return self

    def _draws(self, seeds: Tensor, like: Tensor) -> dict[str, Tensor]:
        noise = SeededNoise(seeds, self.salt)
        # Five numbers for every sample, needed or not: switching one step off leaves the draws of the others alone.
        u = noise.uniform(like.new_empty(len(seeds), 5), _SETTINGS).double()
        params: dict[str, Tensor] = {}
        if self.options.blur is not None:
            params["blur_sigma"] = _between(self.options.blur.sigma, u[:, 0])
            params["blur_ratio"] = _between(self.options.blur.ratio, u[:, 1])
            params["blur_angle"] = u[:, 2] * math.pi
        if self.options.noise is not None:
            if isinstance(self.options.noise, GaussianNoiseOptions) and self.options.noise.sigma is not None:
                params["noise_sigma"] = _between(self.options.noise.sigma, u[:, 3])
            params["eps"] = noise.normal(like, _EPS)
        if self.options.jpeg_quality is not None:
            low, high = self.options.jpeg_quality
            params["quality"] = (low + u[:, 4] * (high - low + 1)).floor().to(torch.int64).clamp(max=high)
        return params

    def steps(self, gt: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Images ``(B, 3, H / scale, W / scale)`` behind each step that the options have, by its name, in order."""
        x = images.downscale_bicubic(gt, self.scale)
        made = {"reduced": x}
        if self.options.blur is not None:
            made["blur"] = x = _blur(x, _kernels(params, _radius(self.options.blur)))
        if self._noise is not None:
            made["noise"] = x = x + self._noise(x, params)
        if self.options.jpeg_quality is not None:
            made["jpeg"] = self._jpeg(x, params["quality"])
        return made

    def _degraded(self, gt: Tensor, params: dict[str, Tensor]) -> Tensor:
        return list(self.steps(gt, params).values())[-1]


class _Noise(nn.Module):
    """What is added to an image, with the constants of its law where the image is."""

    root: Tensor
    kernel: Tensor
    a: Tensor
    b: Tensor

    def __init__(self, options: GaussianNoiseOptions | PoissonGaussianNoiseOptions) -> None:
        super().__init__()
        self.options = options
        constants: dict[str, Tensor] = {}
        match options:
            case GaussianNoiseOptions() if options.covariance is not None:
                constants["root"] = _square_root(options.covariance)
            case GaussianNoiseOptions():
                pass
            case PoissonGaussianNoiseOptions():
                constants = {name: torch.tensor(getattr(options, name))[:, None, None] for name in ("a", "b")}
                if options.correlation is not None:
                    constants["root"] = _square_root(options.correlation)
                if options.kernel is not None:
                    kernel = torch.tensor(options.kernel, dtype=torch.float64)
                    constants["kernel"] = kernel / kernel.square().sum().sqrt()
            case _:
                assert_never(options)
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """For ``x`` ``(B, 3, H, W)``, of its shape."""
        eps = params["eps"].to(x)
        if isinstance(self.options, PoissonGaussianNoiseOptions):
            if self.options.kernel is not None:
                eps = _coloured(eps, self.kernel.to(x))
            if self.options.correlation is not None:
                eps = torch.einsum("ij,bjhw->bihw", self.root.to(x), eps)
            return (self.a.to(x) * x.clamp(0, 1) + self.b.to(x)).clamp(min=0).sqrt() * eps
        if self.options.covariance is not None:
            return torch.einsum("ij,bjhw->bihw", self.root.to(x), eps)
        return params["noise_sigma"].to(x)[:, None, None, None] * eps


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return u * (limits[1] - limits[0]) + limits[0]


def _coloured(eps: Tensor, kernel: Tensor) -> Tensor:
    """White noise ``(B, C, H, W)`` convolved as if it went on around the image: borders keep their variance."""
    radius = kernel.shape[-1] // 2
    height, width = eps.shape[-2:]
    # By place and not by padding, which refuses a kernel wider than the image.
    rows = torch.arange(-radius, height + radius, device=eps.device) % height
    columns = torch.arange(-radius, width + radius, device=eps.device) % width
    padded = eps.index_select(2, rows).index_select(3, columns)
    # conv2d correlates; turned about, the kernel convolves.
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel.flip(0, 1)[None, None]).view(eps.shape)


def _square_root(covariance: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Symmetric square root; unlike Cholesky's it exists for singular matrices."""
    values, vectors = torch.linalg.eigh(torch.tensor(covariance, dtype=torch.float64))
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def _radius(options: BlurOptions) -> int:
    return math.ceil(3 * options.sigma[1])


def _kernels(params: dict[str, Tensor], radius: int) -> Tensor:
    """Rotated Gaussians that sum to 1, ``(B, 2 radius + 1, 2 radius + 1)``; angle 0 lays the wide axis along x."""
    wide = params["blur_sigma"][:, None, None]
    narrow = wide * params["blur_ratio"][:, None, None]
    angle = params["blur_angle"][:, None, None]
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64, device=wide.device)
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
