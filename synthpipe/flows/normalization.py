"""Per-domain colour statistics: noisy images are mapped onto the clean domain's mean and spread (DeFlow, AIM-RWSR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["DomainNormalization"]


_NAMES = ("image_gain", "image_offset", "condition_gain", "condition_offset")


class DomainNormalization(nn.Module):
    """``y' = (y - mean_noisy) / std_noisy * std_clean + mean_clean`` for noisy images; clean ones stay.

    Each argument is three numbers, RGB on the 0..255 scale; ``lr_*`` are those of the reduced images.  They belong to
    the model's configuration and not to its state: weights saved without them load, and none are saved.

    Args:
        clean_mean, clean_std, noisy_mean, noisy_std: statistics of the images.
        lr_clean_mean, lr_clean_std, lr_noisy_mean, lr_noisy_std: statistics of the reduced images.
        clamp: clamp mapped images to [0, 1] as the reference does, which throws over- and undershoot away.

    Raises:
        ShapeError: not three numbers, or a standard deviation that is not above 0.
    """

    image_gain: Tensor
    image_offset: Tensor
    condition_gain: Tensor
    condition_offset: Tensor

    def __init__(
        self,
        clean_mean: Sequence[float],
        clean_std: Sequence[float],
        noisy_mean: Sequence[float],
        noisy_std: Sequence[float],
        lr_clean_mean: Sequence[float],
        lr_clean_std: Sequence[float],
        lr_noisy_mean: Sequence[float],
        lr_noisy_std: Sequence[float],
        clamp: bool = False,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        image = _affine(clean_mean, clean_std, noisy_mean, noisy_std)
        condition = _affine(lr_clean_mean, lr_clean_std, lr_noisy_mean, lr_noisy_std)
        # Buffers, so that they are where the model is: a copy from the host cannot be captured in a CUDA graph.
        for name, value in zip(_NAMES, (*image, *condition), strict=True):
            self.register_buffer(name, value, persistent=False)

    def normalize(self, x: Tensor, domain: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, 3, H, W)`` of both domains onto clean statistics, and ``log|det|`` ``(B,)`` in nats."""
        noisy = domain.bool()
        gain, offset = self.image_gain.to(x.dtype), self.image_offset.to(x.dtype)
        logdet = gain.log().sum() * x.shape[2] * x.shape[3] * noisy.to(x.dtype)
        return self._select(x, gain * x + offset, noisy), logdet

    def normalize_condition(self, lr: Tensor, domain: Tensor) -> Tensor:
        """Reduced images ``(B, 3, h, w)`` of both domains onto clean statistics."""
        gain, offset = self.condition_gain.to(lr.dtype), self.condition_offset.to(lr.dtype)
        return self._select(lr, gain * lr + offset, domain.bool())

    def undo(self, x: Tensor, domain: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` from clean statistics to their domain's: inverts :meth:`normalize` without clamp."""
        gain, offset = self.image_gain.to(x.dtype), self.image_offset.to(x.dtype)
        return torch.where(domain.bool()[:, None, None, None], (x - offset) / gain, x)

    def _select(self, plain: Tensor, mapped: Tensor, noisy: Tensor) -> Tensor:
        if self.clamp:
            mapped = mapped.clamp(0, 1)
        return torch.where(noisy[:, None, None, None], mapped, plain)


def _affine(
    clean_mean: Sequence[float], clean_std: Sequence[float], noisy_mean: Sequence[float], noisy_std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    parts = [torch.tensor(list(part), dtype=torch.float64) for part in (clean_mean, clean_std, noisy_mean, noisy_std)]
    if any(part.shape != (3,) for part in parts) or bool((parts[1] <= 0).any()) or bool((parts[3] <= 0).any()):
        raise ShapeError(
            "DomainNormalization: expected three RGB numbers each and standard deviations above 0, got "
            f"clean {list(clean_mean)} / {list(clean_std)}, noisy {list(noisy_mean)} / {list(noisy_std)}"
        )
    mean_c, std_c, mean_n, std_n = (part[:, None, None] for part in parts)
    gain = std_c / std_n
    return gain, (mean_c - gain * mean_n) / 255
