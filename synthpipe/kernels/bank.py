"""A bank of blur kernels: what a degraded pile lost against the reduced clean one, one kernel for each image of it.

The bank of estimated kernels is an idea of Ji et al., "Real-World Super-Resolution via Kernel Estimation and Noise
Injection", CVPR workshops 2020, section 3.1.  Here a sample gets one of them at a strength of its own, because a kernel
that blurs too much costs more than one that blurs too little.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import CheckpointError, ShapeError

__all__ = ["KernelBank", "at_strength"]

#: Kernels, and pixels of a side, at most.
_MOST, _LARGEST = 4096, 101
#: How far the sum of a kernel may be off 1: float32 rounds.
_ROUNDING = 1e-3


class KernelBank(nn.Module):
    """Kernels with the sum 1, and how often each is drawn.

    A new bank holds points, which change no image, all alike often.

    Args:
        number: N, of the kernels.
        side: S, of each, pixels, odd.
        chroma: whether each has a partner for the differences of colour; without, it is for all of R, G, B.

    Attributes:
        kernels: ``(N, S, S)`` float32; applied as a correlation, as a chain's filters are.
        weights: ``(N,)`` float32, at least 0: how often each is drawn, in proportion to their sum.
        chroma: ``(N, S, S)`` float32, for Cb and Cr of Rec. 601 where ``kernels`` are for luma; None: there are none.

    Raises:
        ShapeError: no kernel, too many, an even side or one that is too large.
    """

    #: Images of any size.
    size_multiple = 1

    kernels: Tensor
    weights: Tensor
    chroma: Tensor | None

    def __init__(self, number: int, side: int, chroma: bool = False) -> None:
        super().__init__()
        if not 1 <= number <= _MOST or not 1 <= side <= _LARGEST or side % 2 == 0:
            raise ShapeError(
                f"KernelBank: expected 1 to {_MOST} kernels of an odd side up to {_LARGEST}, got {number} of {side}"
            )
        # Banks without chroma are described as they were before there was any.
        self.config: dict[str, Any] = {"number": number, "side": side} | ({"chroma": True} if chroma else {})
        points = torch.zeros(number, side, side)
        points[:, side // 2, side // 2] = 1
        self.register_buffer("kernels", points)
        self.register_buffer("weights", torch.ones(number))
        self.register_buffer("chroma", points.clone() if chroma else None)

    @classmethod
    def of(cls, kernels: Tensor, weights: Tensor | None = None, chroma: Tensor | None = None) -> KernelBank:
        """The bank of these kernels, each scaled to the sum 1.

        Args:
            kernels: ``(N, S, S)``, each with a sum above 0.
            weights: ``(N,)``, at least 0; None: all alike.
            chroma: ``(N, S, S)``, likewise; None: kernels are for all channels.

        Raises:
            ShapeError: other shapes.
            CheckpointError: see :meth:`check`.
        """
        if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2]:
            raise ShapeError(f"KernelBank: expected kernels (N, S, S), got {tuple(kernels.shape)}")
        bank = cls(len(kernels), kernels.shape[1], chroma is not None)
        bank.kernels.copy_(kernels / kernels.sum((1, 2), keepdim=True))
        if chroma is not None and bank.chroma is not None:
            if chroma.shape != kernels.shape:
                raise ShapeError(f"KernelBank: expected chroma {tuple(kernels.shape)}, got {tuple(chroma.shape)}")
            bank.chroma.copy_(chroma / chroma.sum((1, 2), keepdim=True))
        if weights is not None:
            if weights.shape != bank.weights.shape:
                raise ShapeError(f"KernelBank: expected {len(kernels)} weights, got {tuple(weights.shape)}")
            bank.weights.copy_(weights)
        bank.check()
        return bank

    def check(self) -> None:
        """Refuse numbers that no estimate gives: what a file holds may come from anywhere.

        Raises:
            CheckpointError: a kernel that is not finite or whose sum is not 1; weights below 0, or all 0.
        """
        for name, kernels in (("kernel", self.kernels), ("chroma kernel", self.chroma)):
            if kernels is None:
                continue
            sums = kernels.double().sum((1, 2))
            bad = ((sums - 1).abs() <= _ROUNDING).logical_not().nonzero().flatten().tolist()
            if bad:
                raise CheckpointError(f"kernels: expected sums of 1, {name} {bad[0]} has {float(sums[bad[0]]):g}")
        total = float(self.weights.double().sum())
        if not 0 < total < math.inf or bool((self.weights < 0).any()):
            raise CheckpointError(f"kernels: expected weights of at least 0 with a sum above 0, got the sum {total:g}")

    def shares(self) -> Tensor:
        """``(N,)`` float64 with the sum 1: how often each kernel is drawn."""
        weights = self.weights.double()
        return weights / weights.sum()

    def mean(self) -> Tensor:
        """``(S, S)`` float64: the kernel of the average of an image's copies, one by each kernel."""
        return torch.einsum("n,nyx->yx", self.shares(), self.kernels.double())


def at_strength(kernels: Tensor, strength: Tensor) -> Tensor:
    """``(B, S, S)`` float64: of the image and its blur, so much of the difference: x + t (k * x - x) for t of each.

    Args:
        kernels: ``(B, S, S)``, odd.
        strength: ``(B,)``; 0 leaves an image as it is, 1 is the kernel, more goes beyond it.
    """
    share, half = strength.double()[:, None, None], kernels.shape[-1] // 2
    # The rest of the image, as a kernel that is a point; padded, because nothing here may come from the host.
    return share * kernels.double() + F.pad(1 - share, (half, half, half, half))
