"""Pictures that are sharp to the pixel: shapes drawn at four times the size and reduced, with texture inside."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.images import downscale_bicubic, quantize_8bit

__all__ = ["blurred", "sharp_pictures"]


def sharp_pictures(count: int, seed: int, side: int = 96) -> list[Tensor]:
    """``(3, side, side)`` each: half planes and discs at random, as photographs have edges in all directions."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(4 * side) / (4 * side)
    pictures = []
    for _ in range(count):
        large = torch.full((3, 4 * side, 4 * side), 0.5)
        for _ in range(6):
            y, x, turn, radius, shade = torch.rand(5, generator=generator).tolist()
            if shade < 0.5:
                inside = (place[:, None] - y) ** 2 + (place - x) ** 2 < (0.1 + 0.3 * radius) ** 2
            else:
                way = torch.tensor(6.28 * turn)
                inside = (place[:, None] - y) * way.sin() + (place - x) * way.cos() > 0
            large = torch.where(inside, 0.1 + 0.8 * torch.rand(3, 1, 1, generator=generator), large)
        small = downscale_bicubic(large[None], 4)[0]
        pictures.append(quantize_8bit(small + 0.004 * torch.randn(small.shape, generator=generator)))
    return pictures


def blurred(pictures: list[Tensor], kernel: Tensor, sigma: float, seed: int) -> list[Tensor]:
    """The pictures behind a kernel, with white noise of ``sigma`` of 255, in 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    half = kernel.shape[-1] // 2
    made = []
    for picture in pictures:
        padded = torch.nn.functional.pad(picture[:, None], (half, half, half, half), mode="reflect")
        soft = torch.nn.functional.conv2d(padded, kernel[None, None].float())[:, 0]
        made.append(quantize_8bit(soft + sigma / 255 * torch.randn(soft.shape, generator=generator)))
    return made
