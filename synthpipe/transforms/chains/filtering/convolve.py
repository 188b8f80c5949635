"""Images filtered by kernels (correlation, as OpenCV's ``filter2D``): one image by the fastest way, a batch by FFT.

On a CPU a grouped ``conv2d``, which computes one channel at a time, is the slowest way for one image at all sizes.  By
FFT the time does not depend on the kernel's size; small kernels are faster in blocks, and kernels that are a product of
two lines faster still, line by line.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.transforms.chains.canvas import Border, Canvas

__all__ = ["fft_side", "filter_canvas", "filter_image", "filter_lines", "sum_of_shifts"]

#: Kernels up to this side are faster in blocks than by FFT.
_LARGEST_IN_BLOCKS = 11
#: Lines up to this length are faster as a sum of shifted images than in blocks.
_LONGEST_AS_SUM = 25
#: Neighbouring pixels that one product computes.
_BLOCK = 16
#: Images of more pixels are filtered channel by channel, of which each fits into a processor's cache.
_CACHED_PIXELS = 1 << 17
#: Of a kernel's weight, what may be left out at its rim: less than 1/2000 of 1/255.
_NEGLIGIBLE = 1e-6


def filter_canvas(canvas: Canvas, kernels: Tensor, border: Border) -> Canvas:
    """Each image with its own kernel, by FFT in tensor operations alone.

    Args:
        canvas: images.
        kernels: ``(B, side, side)``, odd.
        border: what lies beyond an image.
    """
    half = kernels.shape[-1] // 2
    extended = canvas.extended(half, half, half, half, border)
    return canvas.holding(_by_fft(extended, kernels.to(extended.dtype)[:, None]))


def filter_image(x: Tensor, kernel: Tensor, border: Border) -> Tensor:
    """One image with one kernel; the host looks at both.

    Args:
        x: ``(1, C, h, w)``.
        kernel: ``(side, side)``, odd, with the sum 1.
        border: what lies beyond the image.
    """
    kernel = _without_rim(kernel)
    half = kernel.shape[-1] // 2
    if half == 0:
        return x
    extended = Canvas(x).extended(half, half, half, half, border)
    kernel = kernel.to(x)
    return _in_blocks(extended, kernel) if kernel.shape[-1] <= _LARGEST_IN_BLOCKS else _by_fft(extended, kernel)


def filter_lines(x: Tensor, line: Tensor, border: Border) -> Tensor:
    """One image with the kernel ``line^T line``; the host looks at both.

    Args:
        x: ``(1, C, h, w)``.
        line: ``(side,)``, odd, symmetric, with the sum 1.
        border: what lies beyond the image.
    """
    line = _without_rim(line)
    half = len(line) // 2
    if half == 0:
        return x
    if _better_apart(x):
        return torch.cat([filter_lines(channel, line, border) for channel in torch.split(x, 1, 1)], 1)
    extended = Canvas(x).extended(half, half, half, half, border)
    if len(line) <= _LONGEST_AS_SUM:
        weights = line.tolist()
        return sum_of_shifts(sum_of_shifts(extended, weights, 3), weights, 2)
    row = line.to(x)[None]
    rows = _in_blocks(extended, row).transpose(2, 3)
    return _in_blocks(rows, row).transpose(2, 3).contiguous()


def fft_side(least: int) -> int:
    """The smallest length of at least ``least`` that is quick to transform: a multiple of 4 with factors up to 13."""
    side = -(-least // 4) * 4
    while not _smooth(side):
        side += 4
    return side


def _better_apart(x: Tensor) -> bool:
    """Whether a processor's cache is too small for all channels at once."""
    return x.shape[1] > 1 and x.device.type == "cpu" and x.shape[2] * x.shape[3] > _CACHED_PIXELS


def _smooth(number: int) -> bool:
    for factor in (2, 3, 5, 7, 11, 13):
        while number % factor == 0:
            number //= factor
    return number == 1


def _by_fft(extended: Tensor, kernel: Tensor) -> Tensor:
    """What is inside: ``(B, C, H - side + 1, W - side + 1)``."""
    height, width = extended.shape[2:]
    beyond = kernel.shape[-1] - 1
    sides = (fft_side(height), fft_side(width))
    factor = torch.fft.rfft2(kernel.flip(-2, -1), sides)

    def filtered(some: Tensor) -> Tensor:
        made: Tensor = torch.fft.irfft2(torch.fft.rfft2(some, sides) * factor, sides)
        return made[..., beyond:height, beyond:width]

    if _better_apart(extended):
        return torch.cat([filtered(channel) for channel in torch.split(extended, 1, 1)], 1)
    return filtered(extended)


def _in_blocks(extended: Tensor, kernel: Tensor) -> Tensor:
    """By convolutions of stride 16 whose 16 channels are neighbouring pixels of a row.

    A convolution with one channel of input and one of output leaves most of a processor's vector unused.
    """
    channels = extended.shape[1]
    rows, columns = kernel.shape
    height, width = extended.shape[2] - rows + 1, extended.shape[3] - columns + 1
    blocks = -(-width // _BLOCK)
    weight = kernel.new_zeros(_BLOCK, 1, rows, columns + _BLOCK - 1)
    for shift in range(_BLOCK):
        weight[shift, 0, :, shift : shift + columns] = kernel
    padded = F.pad(extended[0], (0, blocks * _BLOCK + columns - 1 - extended.shape[3]))[:, None]
    last = {"memory_format": torch.channels_last}
    made = F.conv2d(padded.contiguous(**last), weight.contiguous(**last), stride=(1, _BLOCK))
    return made.permute(0, 2, 3, 1).reshape(1, channels, height, blocks * _BLOCK)[..., :width]


def sum_of_shifts(extended: Tensor, weights: list[float], dim: int) -> Tensor:
    """Correlation with a line of weights along ``dim``, which gets shorter by one less than their number."""
    length = extended.shape[dim] - len(weights) + 1
    total = extended.narrow(dim, 0, length) * weights[0]
    for place, weight in enumerate(weights[1:], 1):
        total.add_(extended.narrow(dim, place, length), alpha=weight)
    return total


def _without_rim(kernel: Tensor) -> Tensor:
    """The middle that holds all but a negligible part of the weight, scaled to the sum 1."""
    side = kernel.shape[-1]
    magnitude = kernel.abs()
    limit = _NEGLIGIBLE * float(magnitude.sum())
    rim, left = 0, 0.0
    while rim < side // 2:
        inner = magnitude[(slice(rim, side - rim),) * kernel.dim()]
        core = magnitude[(slice(rim + 1, side - rim - 1),) * kernel.dim()]
        left += float(inner.sum() - core.sum())
        if left > limit:
            break
        rim += 1
    if rim == 0:
        return kernel
    middle = kernel[(slice(rim, side - rim),) * kernel.dim()]
    return middle / middle.sum()
