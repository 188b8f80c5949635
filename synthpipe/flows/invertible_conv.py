"""Invertible 1x1 convolution in LU form (Glow, Kingma & Dhariwal 2018, section 3.2, equation 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synthpipe.flows.base import FlowLayer

__all__ = ["InvertibleConv"]


class InvertibleConv(FlowLayer):
    """``z = W x`` at every position, ``W = P L (U + diag(sign * exp(log_s)))``.

    P and the signs come from the LU factors of a random rotation and stay; L is unit lower, U strictly upper
    triangular.  ``log|det J| = H * W * sum(log_s)``.

    Args:
        channels: number of channels C.
        generator: draws the rotation; torch's default generator where None.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation.float())
        self.register_buffer("sign", diagonal.sign().float())
        self.lower = nn.Parameter(lower.float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_s = nn.Parameter(diagonal.abs().log().float())

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``W x``: ``(B, C, H, W)`` -> the same shape, and ``H W sum(log_s)`` ``(B,)`` in nats."""
        with torch.autocast(x.device.type, enabled=False):
            z = _conv1x1(x, self.weight(x.dtype))
        return z, self._logdet(x)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``W^-1 z``: ``(B, C, H, W)`` -> the same shape, and ``-H W sum(log_s)`` ``(B,)``."""
        # In float64: a long flow multiplies the error of each inverse.
        with torch.autocast(z.device.type, enabled=False):
            lower, upper = self._factors(torch.float64)
            inner = torch.linalg.solve_triangular(lower, self.permutation.double().T, upper=False)
            x = _conv1x1(z, torch.linalg.solve_triangular(upper, inner, upper=True).to(z.dtype))
        return x, -self._logdet(z)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """W ``(C, C)``, multiplied from its factors in ``dtype``."""
        lower, upper = self._factors(dtype)
        return self.permutation.to(dtype) @ lower @ upper

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Start at the inverse square root of the channels' covariance in ``x`` ``(B, C, H, W)`` instead of a rotation.

        Directions that hold little (fine detail, and so noise) then begin at the scale of all others; from a rotation,
        a short training leaves them unfinished, and samples too strong there.
        """
        rows = x.movedim(1, 0).flatten(1).double()
        covariance = rows.cov() + 1e-4 * rows.var(dim=1).mean() * torch.eye(len(rows), device=x.device).double()
        values, vectors = torch.linalg.eigh(covariance)
        self._set(vectors.T / values.sqrt()[:, None])

    @torch.no_grad()
    def _set(self, weight: Tensor) -> None:
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        self.permutation.copy_(permutation)
        self.sign.copy_(diagonal.sign())
        self.lower.copy_(lower)
        self.upper.copy_(upper.triu(1))
        self.log_s.copy_(diagonal.abs().log())

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.log_s), dtype=dtype, device=self.log_s.device)
        lower = self.lower.to(dtype).tril(-1) + identity
        upper = self.upper.to(dtype).triu(1) + torch.diag(self.sign.to(dtype) * self.log_s.to(dtype).exp())
        return lower, upper

    def _logdet(self, x: Tensor) -> Tensor:
        return (self.log_s.to(x.dtype).sum() * x.shape[2] * x.shape[3]).expand(x.shape[0])


def _conv1x1(x: Tensor, weight: Tensor) -> Tensor:
    # A matrix product, no convolution: cuDNN rounds float32 convolutions to TF32 by default, and the round trip
    # would lose three digits.
    return torch.einsum("ij,bjhw->bihw", weight, x)
