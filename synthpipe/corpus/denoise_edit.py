"""Denoising as an edit of stored images: any size, 8 bits in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from synthpipe import checkpoints
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.corpus.threads import one_thread
from synthpipe.errors import CheckpointError, ImageError
from synthpipe.images import to_float, to_uint8
from synthpipe.transforms.build import build_denoise
from synthpipe.transforms.denoise import Denoise

__all__ = ["DenoiseEdit", "denoise_pixels"]


@dataclass(frozen=True)
class DenoiseEdit:
    """See :class:`synthpipe.corpus.shard_edit.ImageEdit`.

    Args:
        options: the denoiser and how strongly; checked against ``digest`` where the work is done.
        digest: SHA-256 of the weights.
        device: ``"cpu"`` or ``"cuda"``.
    """

    options: DenoiseOptions
    digest: str
    device: str = "cpu"

    @classmethod
    def of(cls, options: DenoiseOptions, device: str = "cpu") -> DenoiseEdit:
        """The edit with the weights as they are now.

        Raises:
            CheckpointError: no such weights, or of no denoiser.
            OptionError: options that do not fit them.
        """
        build_denoise(options)
        return cls(options, _digest(options.weights), device)

    def identity(self) -> dict[str, Any]:
        """All that decides about a pixel; not where the weights lie, nor the device."""
        settings = self.options.model_dump(mode="json", exclude={"weights"})
        return {"denoise": {"weights": self.digest[:16], **settings}}

    def open(self) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """The network, loaded.

        Raises:
            CheckpointError: the weights are not those of the beginning.
        """
        found = _digest(self.options.weights)
        if found != self.digest:
            raise CheckpointError(
                f"{self.options.weights}: not the weights that this run was begun with (SHA-256 {found[:16]}, expected "
                f"{self.digest[:16]}); all machines need the same file"
            )
        transform = build_denoise(self.options).to(self.device)

        def edit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            """``(H, W, 3)`` uint8, RGB -> the same, denoised."""
            with one_thread():
                return denoise_pixels(transform, pixels, self.device)

        return edit


def denoise_pixels(transform: Denoise, pixels: NDArray[np.uint8], device: str = "cpu") -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8, RGB -> the same, denoised.

    Raises:
        ImageError: the network gave NaN or infinity; the reason is ``not_finite``.
    """
    x = to_float(torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device))
    y = transform.clean(x)
    if not bool(torch.isfinite(y).all()):
        raise ImageError("the denoiser gave NaN or infinity", reason="not_finite")
    return to_uint8(y)[0].permute(1, 2, 0).contiguous().cpu().numpy()


def _digest(weights: str) -> str:
    return hashlib.sha256(checkpoints.resolve(weights).read_bytes()).hexdigest()
