"""The regression from block features to noise; ``recipes/noise_levels/fit.py`` fits its coefficients.

A linear map plus two hidden layers, the same for R, G and B as the channel that is asked about.  An image and its
transpose get the same answer, transposed: both are computed and averaged.

Legend: B images, F features, H hidden units, K = 27 outputs of a channel.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["FLOOR", "QUADRANT", "Coefficients", "Told", "load_coefficients", "regress", "standardised", "transposition"]

#: Lags that are told: 0..4 rows and columns.
QUADRANT = 5
#: What is regressed is ``log(sigma + FLOOR)``, scale of 255.
FLOOR = 0.4
#: Standardised features beyond this are cut off.
_FARTHEST = 4.0
_FILES = {grey: Path(__file__).with_name(f"coefficients{'_grey' if grey else ''}.npz") for grey in (False, True)}


class Coefficients(NamedTuple):
    """Tensors by name; also what training holds as parameters."""

    #: ``(F,)`` each.
    mean: Tensor
    spread: Tensor
    #: ``(H, F)``, ``(H,)``, ``(H, H)``, ``(H,)``, ``(K, H)``, ``(K,)``, ``(K, F)``.
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    last_bias: Tensor
    direct: Tensor


class Told(NamedTuple):
    """What is told of each channel."""

    #: ``(B, 3)``: ``log(sigma + FLOOR)``.
    log_sigma: Tensor
    #: ``(B, 3)``: correlation of the two other channels.
    others: Tensor
    #: ``(B, 3)``: log of the error to be expected of the logarithm of the level.
    log_error: Tensor
    #: ``(B, 3, 5, 5)``: autocorrelation by rows and columns of displacement; 1 at no displacement.
    lags: Tensor


@functools.cache
def load_coefficients(grey: bool = False) -> Coefficients:
    """Those that ship; ``grey``: of images whose three channels are equal."""
    with np.load(_FILES[grey], allow_pickle=False) as file:
        return Coefficients(*(torch.from_numpy(file[name].astype(np.float32)) for name in Coefficients._fields))


def standardised(features: Tensor, by: Coefficients) -> Tensor:
    """Features ``(..., F)`` in units of their spread."""
    return ((features - by.mean) / by.spread).clamp(-_FARTHEST, _FARTHEST)


def regress(x: Tensor, by: Coefficients, drop: float = 0.0) -> Told:
    """Of standardised features ``(B, 3, F)``; ``drop`` is the share of hidden units left out, in training."""
    straight = _split(_network(x, by, drop))
    turned = _split(_network(x[..., transposition()], by, drop))
    turned = turned._replace(lags=turned.lags.mT)
    return Told(*((a + b) / 2 for a, b in zip(straight, turned, strict=True)))


def _network(x: Tensor, by: Coefficients, drop: float) -> Tensor:
    hidden = torch.relu(x @ by.first.T + by.first_bias)
    hidden = torch.dropout(hidden, drop, train=drop > 0)
    hidden = torch.relu(hidden @ by.second.T + by.second_bias)
    hidden = torch.dropout(hidden, drop, train=drop > 0)
    return hidden @ by.last.T + by.last_bias + x @ by.direct.T


def _split(outputs: Tensor) -> Told:
    lags = torch.cat([torch.ones_like(outputs[..., :1]), outputs[..., 3:]], -1)
    lags = lags.reshape(*lags.shape[:-1], QUADRANT, QUADRANT)
    return Told(outputs[..., 0], outputs[..., 1], outputs[..., 2], lags)


@functools.cache
def transposition() -> Tensor:
    """Where each feature of the transposed image stands; see ``block_features``."""
    band = torch.arange(24) + 1  # of 5x5 groups of frequencies, without the first
    small = torch.arange(4)  # of 2x2
    bands = torch.cat([band % 5 * 5 + band // 5 - 1, 24 + small % 2 * 2 + small // 2, 28 + small % 2 * 2 + small // 2])
    lines = torch.arange(3 * 4)[:, None] * 32 + bands  # planes and shares
    return torch.cat([lines.flatten(), torch.arange(lines.numel(), lines.numel() + 16)])
