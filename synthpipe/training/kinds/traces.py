"""What one kind of degradation does to an image: the parts of mixtures.

Images are ``(1, 3, H, W)`` float32 in [0, 1] and may leave the range in between; every draw is from a CPU generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.files.codecs.webp import webp_round_trip
from synthpipe.images import quantize_8bit, to_uint8
from synthpipe.transforms.jpeg import jpeg_round_trip

__all__ = [
    "Draw",
    "combed",
    "convolved",
    "correlated_noise",
    "defocus",
    "eight_bits",
    "gaussian",
    "jpeg",
    "motion",
    "resized",
    "screened",
    "sharpened",
    "shifted",
    "striped",
    "webp",
]

_WEBP_METHOD = 4


class Draw:
    """Numbers from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Between the two."""
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def log_uniform(self, low: float, high: float) -> float:
        """Between the two, small ones as likely as large ones."""
        return float(low * (high / low) ** self.uniform())

    def whole(self, low: int, high: int) -> int:
        """From ``low`` to ``high``."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.uniform() < share

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)


def gaussian(across: float, down: float | None = None) -> Tensor:
    """Kernel ``(h, w)`` of a Gaussian by its standard deviations in pixels."""
    sides = []
    for sigma in (across if down is None else down, across):
        place = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1, dtype=torch.float32)
        weight = torch.exp(-0.5 * (place / sigma) ** 2)
        sides.append(weight / weight.sum())
    return torch.outer(sides[0], sides[1])


def motion(length: float, angle: float) -> Tensor:
    """Kernel of a straight move by ``length`` pixels."""
    reach = math.ceil(length / 2) + 1
    place = torch.arange(-reach, reach + 1, dtype=torch.float32)
    along = place * math.cos(angle) + place[:, None] * math.sin(angle)
    beside = -place * math.sin(angle) + place[:, None] * math.cos(angle)
    weight = (1 - beside.abs()).clamp_min(0) * ((length / 2 + 0.5) - along.abs()).clamp(0, 1)
    return weight / weight.sum()


def defocus(radius: float) -> Tensor:
    """Kernel of a lens out of focus: a disc."""
    reach = math.ceil(radius) + 1
    place = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weight = (radius + 0.5 - torch.hypot(place[:, None], place)).clamp(0, 1)
    return weight / weight.sum()


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """With replicated borders."""
    height, width = kernel.shape
    padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2), mode="replicate")
    return F.conv2d(padded, kernel.expand(x.shape[1], 1, -1, -1).to(x), groups=x.shape[1])


def sharpened(x: Tensor, sigma: float, amount: float) -> Tensor:
    """Unsharp mask."""
    return x + amount * (x - convolved(x, gaussian(sigma)))


def resized(x: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """To ``size``; reductions are averaged, enlargements interpolated by ``mode``."""
    if mode == "nearest":
        return F.interpolate(x, size=size, mode=mode)
    smaller = size[0] < x.shape[2]
    return F.interpolate(x, size=size, mode=mode, antialias=smaller, align_corners=False).clamp(0, 1)


def correlated_noise(x: Tensor, sigma: float, spread: float, shared: float, by_light: float, draw: Draw) -> Tensor:
    """With normal noise.

    Args:
        x: the image.
        sigma: mean standard deviation on the 0..255 scale.
        spread: standard deviation in pixels of what correlates neighbours; 0: white.
        shared: share of the variance that all channels have in common.
        by_light: how much more noise dark places have than bright ones, -1 to 1.
        draw: of the noise.
    """
    noise = math.sqrt(shared) * draw.normal(1, 1, *x.shape[2:]) + math.sqrt(1 - shared) * draw.normal(*x.shape)
    if spread:
        noise = convolved(noise, gaussian(spread))
    noise = noise / noise.std().clamp_min(1e-6)
    strength = 1 + by_light * (0.5 - x.mean(1, keepdim=True).clamp(0, 1))
    return x + sigma / 255 * strength * noise


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Through JPEG, 4:2:0."""
    return jpeg_round_trip(x.clamp(0, 1), torch.tensor([quality]))


def webp(x: Tensor, quality: int) -> Tensor:
    """Through lossy WebP."""
    levels = to_uint8(x.clamp(0, 1))[0].permute(1, 2, 0).numpy()
    coded = torch.from_numpy(webp_round_trip(levels, quality, _WEBP_METHOD))
    return coded.permute(2, 0, 1)[None].to(x) / 255


def shifted(x: Tensor, down: int, across: int) -> Tensor:
    """Cut at the top and left, so that what was done on a grid of blocks is on another one."""
    return x[..., down:, across:]


def combed(x: Tensor, across: int, down: int) -> Tensor:
    """Every other row from an image that has moved by so many pixels, as two fields of a moving scene."""
    other = torch.roll(x, (2 * down, across), (2, 3))
    rows = (torch.arange(x.shape[2]) % 2 == 1)[:, None]
    return torch.where(rows, other, x)


def striped(x: Tensor, strength: float) -> Tensor:
    """Every other row darker by that share: the lines of a screen."""
    rows = (torch.arange(x.shape[2]) % 2 == 1)[:, None]
    return torch.where(rows, (1 - strength) * x, x)


def screened(x: Tensor, period: float, share: float, soft: float, draw: Draw) -> Tensor:
    """Printed: each channel by dots of a size that follows its light, on a grid of its own angle.

    Args:
        x: the image.
        period: of the dots, pixels.
        share: of the print in what is returned; the rest is the image.
        soft: blur of the dots, pixels.
        draw: of the angles and phases.
    """
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in x.shape[2:])
    channels = []
    for channel in range(3):
        angle = draw.uniform(0, math.pi / 2)
        u = (columns * math.cos(angle) + rows[:, None] * math.sin(angle)) * 2 * math.pi / period + draw.uniform(0, 6.3)
        v = (rows[:, None] * math.cos(angle) - columns * math.sin(angle)) * 2 * math.pi / period + draw.uniform(0, 6.3)
        # Rank of the value among all of the screen makes the mean light right.
        level = 0.5 + 0.25 * (torch.cos(u) + torch.cos(v))
        channels.append(torch.sigmoid((x[:, channel] - level) * 12))
    dots = torch.stack(channels, 1)
    return (1 - share) * x + share * (convolved(dots, gaussian(soft)) if soft else dots)


def eight_bits(x: Tensor) -> Tensor:
    """As a file would hold it."""
    return quantize_8bit(x.clamp(0, 1))
