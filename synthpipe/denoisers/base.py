"""The contract of denoisers: noisy images and the level of their noise in, clean ones out.

A denoiser MUST

* take images of any size, of one or three channels as :attr:`Denoiser.channels` says, and give the same size back;
* treat each image of a batch by itself, so that a result depends on its own pixels and level alone;
* keep the result at a pixel a function of the pixels within :attr:`Denoiser.reach`, so that tiles that overlap by that
  much, and begin at multiples of :attr:`Denoiser.grid`, give what the whole image would give;
* be deterministic and differentiable, and leave values as they come: clipping is the caller's;
* ask the device for no value in :meth:`Denoiser.forward`, and make no tensor of the host's data there.

Legend: B batch, C channels of the denoiser, H, W size.  Images are on the [0, 1] scale and may leave it (noise);
``sigma`` is the standard deviation of the noise on that scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.errors import ShapeError
from synthpipe.images import check_values

__all__ = ["Denoiser"]


class Denoiser(nn.Module, ABC):
    """A trained map from a noisy image to a clean one; see the module's docstring for what a subclass must keep."""

    #: Keyword arguments that build the same model again.
    config: dict[str, Any]
    #: 1 (grey; RGB images go through it channel by channel) or 3.
    channels: int
    __call__: Callable[..., Tensor]
    #: Sides of images need no multiple.
    size_multiple: int = 1

    @property
    @abstractmethod
    def reach(self) -> int:
        """How far, in pixels, a result looks on each side."""

    @property
    def grid(self) -> int:
        """What tiles must begin at multiples of: the pixels that a network with pooling takes together."""
        return 1

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Noisy images ``(B, C, H, W)`` with noise of ``sigma`` ``(B,)`` -> clean ones ``(B, C, H, W)``."""

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """:meth:`forward` for any images, with the noise level estimated where it is not given.

        Args:
            x: ``(B, 3, H, W)`` or ``(B, 1, H, W)`` in [0, 1], floating-point.  Where a grey denoiser meets colour, its
                channels are denoised one by one; where one of colour meets grey, three equal channels are averaged.
            sigma: ``(B,)``; None: :func:`synthpipe.denoisers.noise_level.estimate_sigma` of each image.

        Returns:
            As ``x``, not clipped.

        Raises:
            ShapeError: no such images, those of another scale, a wrong number of levels, or NaN.

        >>> import torch
        >>> from synthpipe import checkpoints
        >>> model = checkpoints.load("blind_spot_small")
        >>> model.denoise(torch.rand(2, 3, 48, 64)).shape  # each at its estimated level
        torch.Size([2, 3, 48, 64])
        """
        self._check(x, sigma)
        return self.compute(x, estimate_sigma(x) if sigma is None else sigma.to(x))

    @torch.no_grad()
    def compute(self, x: Tensor, sigma: Tensor) -> Tensor:
        """:meth:`denoise` without a look at values: tensor operations alone, as in a CUDA graph.

        Args:
            x: ``(B, 3, H, W)`` or ``(B, 1, H, W)``; NaN that comes in goes out.
            sigma: ``(B,)``, of the dtype of ``x`` and on its device.

        Returns:
            As ``x``, not clipped.
        """
        if not len(x):  # a filter dropped the whole batch
            return x.clone()
        if x.shape[1] == self.channels:
            return self(x, sigma)
        if self.channels == 1:
            planes = self(x.flatten(0, 1)[:, None], sigma.repeat_interleave(x.shape[1]))  # (3 B, 1, H, W)
            return torch.unflatten(planes[:, 0], 0, (len(x), x.shape[1]))
        return self(x.expand(-1, 3, -1, -1), sigma).mean(1, keepdim=True)

    def _check(self, x: Tensor, sigma: Tensor | None) -> None:
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or 0 in x.shape[2:]:
            raise ShapeError(
                f"{name}: expected floating-point images (B, 3, H, W) or (B, 1, H, W) in [0, 1], got {x.dtype} "
                f"{tuple(x.shape)}"
            )
        if sigma is not None and not isinstance(sigma, Tensor):
            raise ShapeError(
                f"{name}: expected noise levels as a tensor (B,), got {sigma!r}; give x.new_full((len(x),), {sigma!r})"
            )
        if sigma is not None and (sigma.shape != (len(x),) or not bool(((sigma >= 0) & sigma.isfinite()).all())):
            raise ShapeError(
                f"{name}: expected one finite noise level of at least 0 for each of {len(x)} images, got "
                f"{tuple(sigma.shape)}: {sigma.flatten()[:4].tolist()}"
            )
        check_values(x, name)
