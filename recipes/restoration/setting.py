"""What the scripts of this recipe share: pictures, kernels, networks, classical baselines."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import Denoiser
from synthpipe.denoisers.blur_kernels import gaussian_kernel, motion_kernel
from synthpipe.denoisers.blur_operators import CircularBlur
from synthpipe.denoisers.plug_and_play import psnr
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import luma, to_float

SIGMA = 2.55 / 255
SIDE = 128


def kernels() -> dict[str, Tensor]:
    """Of 35x25 pixels, the size of Levin's first; and a round one."""
    return {
        "motion 35x25": motion_kernel(35, 25, torch.Generator().manual_seed(0)),
        "Gaussian 2": gaussian_kernel(2.0),
    }


def load(weights: str) -> Denoiser:
    """A denoiser in the layout that is fastest on a CPU."""
    model = checkpoints.load(weights)
    assert isinstance(model, Denoiser), f"{weights} holds no denoiser"
    return model.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def middles(data: Path, count: int, channels: int, height: int = SIDE, width: int = SIDE) -> Tensor:
    """The middles of pictures of Set14, else of all pictures of the folder, ``(count, channels, height, width)``.

    The page's experiments are on Set12, of which several pictures are in Set14.
    """
    paths = list_images(data)
    paths = [path for path in paths if path.name.startswith("set14_")] or paths
    crops = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        x = to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        crops.append(x[..., top : top + height, left : left + width])
    x = torch.cat(crops)
    return luma(x) if channels == 1 else x


def noisy(x: Tensor, seed: int, sigma: float = SIGMA) -> Tensor:
    """With white noise, neither clipped nor rounded."""
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def best_wiener(kernel: Tensor, y: Tensor, truth: Tensor, gradient: bool) -> tuple[float, float, Tensor]:
    """Mean PSNR, weight and result of the best Wiener filter over weights, all knowing the truth.

    ``conj(K) Y / (|K|^2 + weight * P)``, P = 1, or the power of the gradient's transfer function.
    """
    height, width = y.shape[2:]
    unit = torch.zeros(1, 1, height, width)
    unit[..., 0, 0] = 1
    transfer = torch.fft.rfft2(CircularBlur(kernel)(unit))
    penalty = torch.ones(height, width // 2 + 1)
    if gradient:
        rows = 2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(height))
        columns = 2 - 2 * torch.cos(2 * torch.pi * torch.fft.rfftfreq(width))
        penalty = rows[:, None] + columns[None] + 1e-6
    found = []
    for exponent in torch.arange(-4, 0.01, 0.125):
        weight = float(10**exponent)
        spectrum = transfer.conj() * torch.fft.rfft2(y) / (transfer.abs().square() + weight * penalty)
        x = torch.fft.irfft2(spectrum, s=(height, width))
        found.append((float(psnr(x, truth).mean()), weight, x))
    return max(found, key=lambda row: row[0])
