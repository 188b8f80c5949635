"""Denoising as an edit of stored images: any size and depth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from synthpipe import checkpoints
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.corpus.threads import one_thread
from synthpipe.errors import CheckpointError, ImageError
from synthpipe.files.original import Original
from synthpipe.transforms.build import build_denoise
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from synthpipe.transforms.page_images import page_arrays, page_image

__all__ = ["DenoiseEdit"]


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
        return cls(options, _digest(options), device)

    def identity(self) -> dict[str, Any]:
        """All that decides about a pixel; not where the weights lie, nor the device."""
        settings = self.options.model_dump(mode="json", exclude={"weights"})
        # Earlier versions ignored profiles, alpha and depth: one corpus must not be half of each.
        return {"denoise": {"weights": self.digest[:16], "colors": "srgb", **settings}}

    def open(self) -> Callable[[Original], tuple[NDArray[Any], NDArray[Any] | None]]:
        """The network, loaded.

        Raises:
            CheckpointError: the weights are not those of the beginning.
        """
        found = _digest(self.options)
        if found != self.digest:
            raise CheckpointError(
                f"{self.options.weights}: not the weights that this run was begun with (SHA-256 {found[:16]}, expected "
                f"{self.digest[:16]}); all machines need the same file"
            )
        transform = build_denoise(self.options).to(self.device)

        def edit(page: Original) -> tuple[NDArray[Any], NDArray[Any] | None]:
            """Colours and alpha, denoised."""
            with one_thread():
                return _denoised(transform, page, self.device)

        return edit


def _denoised(
    transform: Denoise | DenoiseByImage, page: Original, device: str
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """ImageError with the reason ``not_finite`` where the network gave NaN or infinity."""
    given = page_image(page)
    y = transform.clean(given.x.to(device), rounded=False)
    if not bool(torch.isfinite(y).all()):
        raise ImageError("the denoiser gave NaN or infinity", reason="not_finite")
    return page_arrays(y.cpu(), page, given)


def _digest(options: DenoiseOptions) -> str:
    return hashlib.sha256(b"".join(checkpoints.resolve(name).read_bytes() for name in options.networks)).hexdigest()
