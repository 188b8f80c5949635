"""Image tensors: float32 or float64, RGB, ``(B, 3, H, W)``, values in [0, 1].

The one place that converts to and from 8 bits, resizes bicubically, and crops or pads to a multiple.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = [
    "check_images",
    "check_values",
    "crop_to_multiple",
    "divide_by_255",
    "downscale_bicubic",
    "luma",
    "pad_to_multiple",
    "quantize_8bit",
    "to_float",
    "to_uint8",
]

_LUMA = (0.299, 0.587, 0.114)


#: Means of an image beyond these are of another scale than [0, 1]: noise and overshoot hardly move a mean.
_LEAST_MEAN, _MOST_MEAN = -0.5, 1.5


def check_images(x: Tensor, name: str, values: bool = True) -> None:
    """Refuse anything but a floating-point ``(B, 3, H, W)`` batch in [0, 1]; without ``values``, of any values.

    To look at the values waits for the device.

    Raises:
        ShapeError: wrong rank, channels or dtype, a side of 0, or as :func:`check_values`.
    """
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        raise ShapeError(f"{name}: expected RGB images (B, 3, H, W), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ShapeError(f"{name}: expected floating-point images in [0, 1], got {x.dtype}; call images.to_float first")
    if values:
        check_values(x, name)


def check_values(x: Tensor, name: str, what: str = "images") -> None:
    """Refuse ``(B, ...)`` floating-point images of another scale than [0, 1], and what is not finite.

    Values may leave [0, 1], as unclipped noise does; a whole image may not: levels of 0 to 255 would pass for white.
    To look at the values waits for the device.

    Raises:
        ShapeError: NaN or infinity, or an image whose mean is below -0.5 or above 1.5.
    """
    if not x.numel():
        return
    means = x.detach().mean(tuple(range(1, x.ndim)))  # not finite where one value is not: the device is asked once
    inside = (means >= _LEAST_MEAN) & (means <= _MOST_MEAN)
    if bool(inside.all()):
        return
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise ShapeError(f"{name}: {bad} of {len(x)} {what} hold NaN or infinity; expected finite values in [0, 1]")
    raise ShapeError(
        f"{name}: expected {what} in [0, 1], got a mean of {float(means[~inside][0]):g} in {int((~inside).sum())} of "
        f"{len(x)}; divide levels by their white, 255 of 8 bits"
    )


def divide_by_255(levels: Tensor) -> Tensor:
    """Grey levels on the 0..255 scale, floating point, to [0, 1]: the same bits on every device.

    With a Python number as divisor CUDA multiplies by its reciprocal, which is one bit off for 126 of the 256 levels.
    """
    return levels / levels.new_full((), 255)


def to_float(x: Tensor) -> Tensor:
    """uint8 images (any shape, 0..255) to float32 in [0, 1].

    Raises:
        ShapeError: ``x`` is not uint8.

    >>> import torch
    >>> from synthpipe.images import to_float
    >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if x.dtype != torch.uint8:
        raise ShapeError(f"to_float: expected uint8 images, got {x.dtype}")
    return divide_by_255(x.to(torch.float32))


def to_uint8(x: Tensor) -> Tensor:
    """Images in [0, 1] to uint8, clipped and rounded to the nearest level.

    >>> import torch
    >>> from synthpipe.images import to_uint8
    >>> to_uint8(torch.tensor([-0.1, 0.2, 1.5]))
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def quantize_8bit(x: Tensor) -> Tensor:
    """Clip to [0, 1] and round to multiples of 1/255, keeping the dtype: what saving as PNG would do."""
    return divide_by_255((x.clamp(0, 1) * 255).round())


def luma(x: Tensor) -> Tensor:
    """``(B, 1, H, W)`` or ``(B, 3, H, W)`` -> grey ``(B, 1, H, W)``, Rec. 601 as in image formats and SR metrics."""
    if x.shape[1] == 1:
        return x
    red, green, blue = _LUMA
    return red * x[:, 0:1] + green * x[:, 1:2] + blue * x[:, 2:3]


def crop_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Cut rows from the bottom and columns from the right so that both sizes divide by ``multiple``.

    Raises:
        ShapeError: a side is shorter than ``multiple``.

    >>> import torch
    >>> from synthpipe.images import crop_to_multiple
    >>> crop_to_multiple(torch.rand(1, 3, 97, 130), 8).shape
    torch.Size([1, 3, 96, 128])
    """
    height, width = x.shape[-2] // multiple * multiple, x.shape[-1] // multiple * multiple
    if height == 0 or width == 0:
        raise ShapeError(f"crop_to_multiple: {x.shape[-2]}x{x.shape[-1]} is smaller than the multiple {multiple}")
    return x[..., :height, :width]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend at the bottom and right by mirrored content so that both sizes divide by ``multiple``."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return _pad_mirrored(x, 0, bottom, 0, right)


def downscale_bicubic(x: Tensor, scale: int) -> Tensor:
    """Antialiased bicubic reduction by an integer, as MATLAB's ``imresize`` does it.

    Keys' cubic with a = -0.5, stretched by ``scale``, mirrored edges. Values may leave [0, 1] slightly.

    Shapes: ``(B, C, H, W)`` -> ``(B, C, H / scale, W / scale)``, float.

    Raises:
        ShapeError: H or W is no multiple of ``scale``.

    >>> import torch
    >>> from synthpipe.images import downscale_bicubic
    >>> downscale_bicubic(torch.rand(2, 3, 96, 128), 4).shape
    torch.Size([2, 3, 24, 32])
    """
    if x.shape[-2] % scale or x.shape[-1] % scale:
        raise ShapeError(
            f"downscale_bicubic: height and width must be multiples of {scale}, got {x.shape[-2]}x{x.shape[-1]}; "
            f"call images.crop_to_multiple(x, {scale}) first"
        )
    if scale == 1:
        return x
    # The library call cuts the kernel off at the border; mirrored edges are had by padding before it.
    # 4 output pixels of padding cover the stretched kernel, whose support is 2 output pixels a side.
    padded = _pad_mirrored(x, 4 * scale, 4 * scale, 4 * scale, 4 * scale)
    small = F.interpolate(
        padded,
        size=(padded.shape[-2] // scale, padded.shape[-1] // scale),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    return small[..., 4:-4, 4:-4]


def _pad_mirrored(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Half-sample symmetric padding (edge pixel repeated), of any width; ``F.pad`` has no such mode."""
    rows = _mirror_index(x.shape[-2], top, bottom, x.device)
    columns = _mirror_index(x.shape[-1], left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _mirror_index(size: int, before: int, after: int, device: torch.device) -> Tensor:
    position = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.where(position < size, position, 2 * size - 1 - position)
