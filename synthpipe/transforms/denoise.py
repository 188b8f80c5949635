"""Any denoiser as preprocessing: what a model learns from the clean side should be the scene and not its noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.errors import CheckpointError, ShapeError
from synthpipe.images import check_images, quantize_8bit
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.tiling import apply_tiled

__all__ = ["Denoise", "finished", "load_denoiser", "tiled_result"]

#: Pixels in one call of the network, unless a single tile has more: memory stays bounded whatever the batch.  On a CPU
#: the features of few pixels take memory that was used just before, which is faster; a GPU wants many at once.
_CPU_PIXELS, _GPU_PIXELS = 1 << 16, 1 << 20


def load_denoiser(weights: str | Path) -> Denoiser:
    """The denoiser of any kind that a file or a name of shipped weights holds, on the CPU.

    Raises:
        CheckpointError: weights that are missing, damaged, or of no denoiser.
    """
    model = checkpoints.load(weights)
    if not isinstance(model, Denoiser):
        kind = checkpoints.read_header(weights)["kind"]
        raise CheckpointError(f"{weights}: holds a {kind!r} model, expected a denoiser")
    return model


class Denoise(DeviceTransform):
    """Replaces ``gt`` by its denoised version.

    The result is clipped and rounded to 8 bits, as if it had been saved and read again: degradations and scorers were
    trained on such images, and a stream that denoises gives what a stream of denoised files gives, where these are
    8-bit RGB (the command keeps files of one channel, with alpha or of 16 bits what they are).  An image that the
    network turns into NaN or infinity leaves as NaN, for the stream to drop and count.

    :meth:`apply` and :meth:`clean` spare the network what stays as it is, for which they ask the device;
    :meth:`compute` gives the same and asks nothing.

    Args:
        model: ``checkpoints.load(path)`` of any denoiser.
        sigma: standard deviation of the noise on the [0, 1] scale; None estimates it for each image.
        min_sigma: images whose estimated level is below this stay as they are, bit for bit.
        max_sigma: estimates above this are taken for this.
        hole: for blind-spot networks, pixels on each side that they must not look at; None keeps the model's own.
        strength: 1 is the model's result, 0 the image; between them a mixture.
        tile: longest side denoised at once.
        overlap: pixels that tiles overlap on each side; None for the model's reach, which makes tiles exact, but at
            most a quarter of ``tile``.  Where the reach is larger, tiles are blended.

    Raises:
        ShapeError: ``model`` is no denoiser, a hole for one that has none, or settings out of range.

    >>> import torch
    >>> from synthpipe import checkpoints
    >>> from synthpipe.transforms import Denoise
    >>> denoise = Denoise(checkpoints.load("map_small"), sigma=0.1)
    >>> noisy = 0.5 + 0.1 * torch.randn(1, 3, 48, 64)
    >>> bool(denoise.clean(noisy).std() < noisy.std() / 2)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        sigma: float | None = None,
        *,
        min_sigma: float = 0.0,
        max_sigma: float = 1.0,
        hole: int | None = None,
        strength: float = 1.0,
        tile: int = 512,
        overlap: int | None = None,
    ) -> None:
        if not isinstance(model, Denoiser):
            raise ShapeError(f"Denoise: expected a denoiser, got {type(model).__name__}")
        if (sigma is not None and sigma < 0) or not 0 <= min_sigma <= max_sigma or not 0 < strength <= 1:
            raise ShapeError(
                "Denoise: expected sigma of at least 0, 0 <= min_sigma <= max_sigma and 0 < strength <= 1, got "
                f"sigma={sigma}, min_sigma={min_sigma}, max_sigma={max_sigma}, strength={strength}"
            )
        if hole is not None:
            _set_hole(model, hole)
        # On a CPU this order of memory makes 3x3 convolutions 2 to 4 times as fast.
        self.model: Denoiser = model.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sigma, self.min_sigma, self.max_sigma = sigma, min_sigma, max_sigma
        self.strength = strength
        self.tile = tile
        self.overlap = min(model.reach, tile // 4) if overlap is None else overlap

    def check(self, batch: Batch) -> None:
        """Refuse a ``gt`` that is no RGB image or holds NaN."""
        check_images(batch["gt"], "Denoise")

    @torch.no_grad()
    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace ``gt``; images under ``min_sigma`` go through the network too, and what they were is taken again."""
        x = batch["gt"]
        levels, noisy = self._levels(x)
        at_once = self._at_once(x)
        parts = zip(torch.split(x, at_once), torch.split(levels, at_once), strict=True)
        y = torch.cat([self._clean_some(few, some, rounded=True) for few, some in parts])
        return {**batch, "gt": y if noisy is None else torch.where(noisy[:, None, None, None], y, x)}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Replace ``gt`` by a new tensor of the same shape, dtype and device.

        Raises:
            ShapeError: ``gt`` is no RGB image or holds NaN.
        """
        return {**batch, "gt": self.clean(batch["gt"])}

    @torch.no_grad()
    def clean(self, x: Tensor, *, rounded: bool = True) -> Tensor:
        """Noisy images ``(B, 3, H, W)`` in [0, 1] -> clean ones of the same shape, or untouched.

        Args:
            x: the images.
            rounded: to multiples of 1/255; else results are clipped alone, for files of more bits.

        Raises:
            ShapeError: no RGB images, or NaN.
        """
        check_images(x, "Denoise")
        levels, noisy = self._levels(x)
        out = x.clone()
        places = torch.arange(len(x), device=x.device) if noisy is None else noisy.nonzero()[:, 0]
        for rows in torch.split(places, self._at_once(x)):
            if len(rows):
                out[rows] = self._clean_some(x[rows], levels[rows], rounded)
        return out

    def to(self, device: torch.device | str) -> Denoise:
        """Move the network."""
        self.model.to(device)
        return self

    def _at_once(self, x: Tensor) -> int:
        """Images in one call of the network."""
        pixels = _CPU_PIXELS if x.device.type == "cpu" else _GPU_PIXELS
        return max(1, pixels // min(x.shape[2] * x.shape[3], self.tile**2))

    def _levels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Noise levels ``(B,)``, and which images are to be denoised; None: all."""
        if self.sigma is not None and not self.min_sigma:
            return x.new_full((len(x),), self.sigma), None
        estimate = estimate_sigma(x)
        levels = estimate.clamp(max=self.max_sigma) if self.sigma is None else torch.full_like(estimate, self.sigma)
        return levels, estimate >= self.min_sigma

    def _clean_some(self, x: Tensor, levels: Tensor, rounded: bool) -> Tensor:
        y = tiled_result(self.model, x, levels, self.tile, self.overlap)
        return finished(x + self.strength * (y - x), rounded)


def tiled_result(model: Denoiser, x: Tensor, levels: Tensor, tile: int, overlap: int | None) -> Tensor:
    """Images ``(B, 3, H, W)`` with noise of ``levels`` ``(B,)`` through a network, tile by tile; not clipped.

    Args:
        model: the network.
        x: the images.
        levels: standard deviations on the [0, 1] scale.
        tile: longest side of a tile.
        overlap: pixels that tiles overlap; None: the reach of the network, at most a quarter of ``tile``.
    """
    overlap = min(model.reach, tile // 4) if overlap is None else overlap

    def run(part: Tensor, index: int) -> Tensor:
        """One tile ``(B, 3, h, w)``, not clipped."""
        return model.compute(part.contiguous(memory_format=torch.channels_last), levels)

    return apply_tiled(run, x, tile, overlap, model.grid, blend=overlap < model.reach)


def finished(y: Tensor, rounded: bool) -> Tensor:
    """``(B, 3, H, W)`` clipped to [0, 1], and rounded to 8 bits or not; an image that is not finite is NaN."""
    # Clipping would hide infinity from the stream.
    finite = torch.isfinite(y).flatten(1).all(1)[:, None, None, None]
    return torch.where(finite, quantize_8bit(y) if rounded else y.clamp(0, 1), torch.nan)


def _set_hole(model: Denoiser, hole: int) -> None:
    if not hasattr(model, "hole"):
        raise ShapeError(f"Denoise: hole is for blind-spot networks, {type(model).__name__} has none; leave it out")
    if hole < 0:
        raise ShapeError(f"Denoise: expected a hole of at least 0 pixels, got {hole}")
    setattr(model, "hole", hole)  # noqa: B010 - an attribute that only some denoisers have
