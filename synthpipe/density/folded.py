"""The potential form's residual at one noise level, whose modulation is folded into its convolutions.

With one level for all images, scaling and shifting channels by it is a matter of the weights.  Channels lie last in
memory, which a few channels need to be fast on a CPU.

Legend: B batch, C channels, H, W size; the last convolution sees the features and, beside them, the image itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Convolutions", "FoldedResidual", "energy_score", "mean_energies"]

#: Weight and bias of each 3x3 convolution, the head's last.
Convolutions = list[tuple[Tensor, Tensor]]


def residual(convolutions: Convolutions, centred: Tensor, padding: int) -> Tensor:
    """``R`` of the image around 0, ``(B, C, H, W)`` -> ``(B, heads, H, W)``, without padding smaller by a border."""
    *inner, (weight, bias) = convolutions
    h = centred
    for weight_of, bias_of in inner:
        h = F.silu(F.conv2d(h, weight_of, bias_of, padding=padding), inplace=not centred.requires_grad)
    cut = 0 if padding else len(inner)
    skip = centred[:, :, cut : centred.shape[2] - cut, cut : centred.shape[3] - cut]
    return F.conv2d(torch.cat([h, skip], 1), weight, bias, padding=padding)


def mean_energies(convolutions: Convolutions, y: Tensor, domains: int) -> Tensor:
    """The mean of ``||R||^2 / 2`` over pixels off the border, ``(B, C, H, W)`` -> ``(B, domains)``."""
    energies = residual(convolutions, _centred(y), padding=0).square_().mean((2, 3))  # (B, heads)
    return 0.5 * torch.unflatten(energies, 1, (domains, -1)).sum(2)


def energy_score(convolutions: Convolutions, y: Tensor) -> Tensor:
    """Minus the gradient of the summed ``||R||^2 / 2``, padded by zeros, of the shape of ``y`` ``(B, C, H, W)``."""
    # A gradient is needed whatever the caller has turned off.
    with torch.inference_mode(False), torch.enable_grad():
        centred = _centred(y.detach().clone()).requires_grad_(True)
        energy = 0.5 * residual(convolutions, centred, padding=1).square().sum()
        (gradient,) = torch.autograd.grad(energy, centred)
    return -gradient


class FoldedResidual(nn.Module):
    """Convolutions as buffers, so that they move with a model.

    Args:
        convolutions: copied.
    """

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self._count = len(convolutions)
        with torch.inference_mode(False):  # else no gradient would go through them
            for place, (weight, bias) in enumerate(convolutions):
                self.register_buffer(f"weight{place}", weight.detach().clone(), persistent=False)
                self.register_buffer(f"bias{place}", bias.detach().clone(), persistent=False)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        *_, error_msgs = args
        error_msgs.append(f"{prefix} is made of a density's weights: load them into that, and fold or freeze it again")

    @property
    def convolutions(self) -> Convolutions:
        """Where they are now."""
        return [(self.get_buffer(f"weight{place}"), self.get_buffer(f"bias{place}")) for place in range(self._count)]


def _centred(y: Tensor) -> Tensor:
    """``y`` around 0, its channels last in memory."""
    # Of one channel, a tensor counts as laid out either way, and convolutions would take the slow one: say it outright.
    return torch.sub(y, 0.5, out=torch.empty_like(y, memory_format=torch.channels_last))
