"""What a generator of noise adds, corrected to the statistics that flat areas of its pile show.

The residual ``r = y - x`` of a clean image x becomes ``x + sum_k w_k(b) M_k (g_k * r)``: at each node k of brightness a
3x3 matrix M and a small filter g for each channel, both following the noise level, between which the local brightness
b of x interpolates.  Flat areas are where noise can be
measured without its clean partner; a likelihood weighs all of an image, and most of it is no flat area.  Ours, not in
the paper.

Legend: B batch, H, W image size, K nodes of brightness, L nodes of the level, S side of the filter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["BRIGHTNESS_WINDOW", "FlatCorrection", "covariance_map", "filtered", "local_brightness", "node_weights"]

#: Side of the box over which brightness is averaged, as in :mod:`synthpipe.noise_statistics`.
BRIGHTNESS_WINDOW = 9


class FlatCorrection(nn.Module):
    """The correction of residuals; without effect as it is made.

    Args:
        brightness: K, at least 2.
        levels: L; 1 where there is one level.
        side: S, odd; 1 for no filter.

    Raises:
        ShapeError: an argument out of range.
    """

    brightness: Tensor
    levels: Tensor
    maps: Tensor
    filters: Tensor

    def __init__(self, brightness: int, levels: int = 1, side: int = 1) -> None:
        super().__init__()
        if brightness < 2 or levels < 1 or side < 1 or side % 2 == 0:
            raise ShapeError(
                "FlatCorrection: expected brightness >= 2, levels >= 1 and an odd side, got "
                f"{brightness}, {levels}, {side}"
            )
        self.config = {"brightness": brightness, "levels": levels, "side": side}
        self.register_buffer("brightness", torch.linspace(0, 1, brightness))
        #: On the scale of :meth:`PileLevels.log_ratio`, ascending.
        self.register_buffer("levels", torch.linspace(0, 1, levels))
        self.register_buffer("maps", torch.eye(3).repeat(levels, brightness, 1, 1))
        filters = torch.zeros(levels, brightness, 3, side, side)
        filters[..., side // 2, side // 2] = 1
        self.register_buffer("filters", filters)

    def forward(self, clean: Tensor, degraded: Tensor, log_level: Tensor | None = None) -> Tensor:
        """The degraded images with corrected residuals; a residual of 0 stays 0.

        Args:
            clean: ``(B, 3, H, W)`` in [0, 1].
            degraded: the same images with noise.
            log_level: ``(B,)``; None: that of the first node.

        Nothing is asked of the device; an image's result does not depend on the others.
        """
        maps, filters = self._at(self.maps, log_level, len(clean)), self._at(self.filters, log_level, len(clean))
        residuals = filtered(degraded - clean, filters.to(clean.dtype))
        weights = node_weights(local_brightness(clean), self.brightness.to(clean.dtype))
        # One matrix product for each image: the residuals at all nodes, weighted, to R, G, B.
        count, _, nodes, height, width = residuals.shape
        weighted = (residuals * weights[:, None]).view(count, 3 * nodes, height * width)
        mixing = maps.to(clean.dtype).permute(0, 2, 3, 1).reshape(count, 3, 3 * nodes)
        return clean + torch.bmm(mixing, weighted).view_as(clean)

    def _at(self, values: Tensor, log_level: Tensor | None, count: int) -> Tensor:
        """``(L, ...)`` between its nodes, for each image: ``(B, ...)``."""
        if log_level is None or len(values) == 1:
            return values[:1].expand(count, *values.shape[1:])
        weights = node_weights(log_level.to(values.dtype)[:, None], self.levels)[..., 0]  # (B, L)
        return torch.einsum("bl,l...->b...", weights, values)


def node_weights(x: Tensor, nodes: Tensor) -> Tensor:
    """Weights of linear interpolation between ascending ``nodes`` ``(K,)``; beyond them the outermost counts alone.

    ``x`` ``(B, ...)`` -> ``(B, K, ...)``, of sum 1.
    """
    shape = (1, -1) + (1,) * (x.ndim - 1)
    steps = (nodes[1:] - nodes[:-1]).clamp(min=1e-12)
    # How far x is past the first, the second ... node, on the way to the next.
    past = ((x[:, None] - nodes[:-1].view(shape)) / steps.view(shape)).clamp(0, 1)
    ones = torch.ones_like(x)[:, None]
    return torch.cat([ones, past], 1) - torch.cat([past, torch.zeros_like(ones)], 1)


def local_brightness(x: Tensor) -> Tensor:
    """Mean of R, G, B over a box of :data:`BRIGHTNESS_WINDOW` pixels: ``(B, 3, H, W)`` -> ``(B, H, W)``.

    At the border over what is in the image.
    """
    grey = x.mean(1, keepdim=True)
    half = BRIGHTNESS_WINDOW // 2
    # Along one side, then along the other: 18 additions in place of 81.
    across = F.avg_pool2d(grey, (1, BRIGHTNESS_WINDOW), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(across, (BRIGHTNESS_WINDOW, 1), 1, (half, 0), count_include_pad=False)[:, 0]


def covariance_map(source: Tensor, target: Tensor) -> Tensor:
    """The symmetric M with ``M source M = target`` that moves a Gaussian least: optimal transport.

    ``A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2`` of ``source`` A and ``target`` B, ``(..., 3, 3)``, positive definite (Peyre &
    Cuturi 2019, "Computational optimal transport", remark 2.31).
    """
    root, inverse = _root(source), torch.linalg.inv(_root(source))
    found: Tensor = inverse @ _root(root @ target @ root) @ inverse
    return found


def _root(x: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(x)
    root: Tensor = (vectors * values.clamp(min=1e-30).sqrt()[..., None, :]) @ vectors.mT
    return root


def filtered(residual: Tensor, filters: Tensor) -> Tensor:
    """Each channel of each image ``(B, 3, H, W)`` by the filters of all nodes ``(B, K, 3, S, S)``: ``(B, 3, K, H, W)``.

    Mirrored at the border.
    """
    side = filters.shape[-1]
    count, channels, height, width = residual.shape
    nodes = filters.shape[1]
    half = side // 2
    mirrored = F.pad(residual, (half, half, half, half), mode="reflect" if min(height, width) > half else "replicate")
    planes = mirrored.reshape(1, count * channels, *mirrored.shape[2:])
    kernels = filters.transpose(1, 2).reshape(count * channels * nodes, 1, side, side)
    return F.conv2d(planes, kernels, groups=count * channels).view(count, channels, nodes, height, width)
