"""What the proof is made of: photographs, mild noise on them, and a camera whose noise is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.files.decode import encode_png
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_float, to_uint8
from synthpipe.seeds import generator_for, sample_seed

__all__ = ["CORRUPTION_SIGMA", "SCALE", "binomial_noise", "camera", "load", "make_folders", "save_image"]

SCALE = 2
#: What spoils the clean side: noise as a camera with mild processing leaves it.
CORRUPTION_SIGMA = 5 / 255
#: Variance of the camera's noise at brightness x is ``a x + b``; 6 of 255 in the middle.
CAMERA_A, CAMERA_B = 9.2e-4, (3 / 255) ** 2


def binomial_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """White noise behind the 3x3 binomial filter, ``(C, H, W)``, of standard deviation 1: correlated over 2 pixels."""
    channels, height, width = shape
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = taps[:, None] * taps
    white = torch.randn(channels, 1, height + 2, width + 2, generator=generator)
    return F.conv2d(white, kernel[None, None] / kernel.square().sum().sqrt())[:, 0]


def corrupt(x: Tensor, name: str, seed: int) -> Tensor:
    """Photograph ``(1, 3, H, W)`` -> the same with mild correlated noise, in 8 bits."""
    generator = generator_for(sample_seed(seed, 0, name), "corruption")
    return quantize_8bit(x + CORRUPTION_SIGMA * binomial_noise(x.shape[1:], generator))


def camera(x: Tensor, name: str, seed: int) -> Tensor:
    """A camera's picture of the low-resolution scene ``x`` ``(1, 3, h, w)``, in 8 bits."""
    generator = generator_for(sample_seed(seed, 0, name), "camera")
    sigma = (CAMERA_A * x.clamp(0, 1) + CAMERA_B).sqrt()
    return quantize_8bit(x + sigma * binomial_noise(x.shape[1:], generator))


def make_folders(photos: Path, out: Path, seed: int, most: int) -> None:
    """``clean`` and ``corrupted``: half of the photographs; ``camera``: the others, at low resolution and noisy."""
    paths = list_images(photos)
    if len(paths) < 2:
        raise SystemExit(f"{photos}: expected a folder of clean photographs, found {len(paths)}")
    for place, path in enumerate(paths[: 2 * most]):
        name = f"{path.stem}.png"
        x = crop_to_multiple(to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]), 4 * SCALE)
        if place % 2:
            save_image(out / "camera" / name, camera(downscale_bicubic(x, SCALE), path.stem, seed))
        else:
            save_image(out / "clean" / name, x)
            save_image(out / "corrupted" / name, corrupt(x, path.stem, seed))


def save_image(path: Path, x: Tensor) -> None:
    """``(1, 3, H, W)`` in [0, 1] as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(to_uint8(x)[0].permute(1, 2, 0).contiguous().numpy()))


def load(folder: Path, most: int | None = None) -> dict[str, Tensor]:
    """Images of a folder by their names without suffix, ``(1, 3, H, W)`` in [0, 1], evenly spread over it."""
    paths = list_images(folder)
    if most is not None and len(paths) > most:
        paths = [paths[n * len(paths) // most] for n in range(most)]
    return {path.stem: to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]) for path in paths}
