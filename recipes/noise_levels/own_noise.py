"""Fits of what tells a photograph's own structure from noise: what ``grain.py`` and ``grey_texture.py`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.flat_noise.block_features import block_features
from synthpipe.flat_noise.regression import FLOOR, load_coefficients, regress, standardised, transposition

PENALTY, STEPS = 0.01, 100


class Case(NamedTuple):
    """One image: whether it is noise; what is told of it; ``(FEATURES,)`` standardised features, mean of channels."""

    noisy: bool
    held_out: bool
    level: float
    lag: float
    features: Tensor


def fit_from_command_line(
    name: str, about: str | None, cases: Callable[[Path], Iterable[Case]], is_asked: Callable[[Case], bool]
) -> None:
    """Gather what the cache lacks, fit, say how well, write.

    Args:
        name: of the file in the cache.
        about: of the command.
        cases: all images, from the folder of the data.
        is_asked: whether the question arises.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train and what else is read")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the features")
    parser.add_argument("--out", type=Path, required=True, help="coefficients, .npz")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.cache / f"{name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([tuple(case) for case in cases(arguments.data)], path)
    asked = [case for case in (Case(*values) for values in torch.load(path)) if is_asked(case)]
    weight, bias = fit([case for case in asked if not case.held_out])
    for held_out in (False, True):
        part = [case for case in asked if case.held_out == held_out]
        scores = [torch.tensor([float(c.features @ weight + bias) for c in part if c.noisy == n]) for n in (0, 1)]
        above = float((scores[1][:, None] > scores[0]).float().mean())
        shares = [float((s > 0).float().mean()) for s in scores]
        print(f"{'held out' if held_out else 'learned from'}: {len(scores[0])} of {name}, {len(scores[1])} of noise; "
              f"AUROC {above:.3f}; taken for noise {shares[0]:.1%} and {shares[1]:.1%}")  # fmt: skip
    np.savez_compressed(arguments.out, weight=weight.numpy().astype(np.float32), bias=np.float32(bias))


def case_of(image: Tensor, noisy: bool, held_out: bool, grey: bool = False) -> Iterator[Case]:
    """One case of uint8 ``(3, H, W)``; none where nearly all is clipped."""
    by = load_coefficients(grey)
    features = block_features(image.float() / 255)
    if features is not None:
        x = standardised(features, by)
        told = regress(x[None], by)
        level = float((told.log_sigma.exp() - FLOOR).clamp(min=0).square().mean().sqrt())
        lag = told.lags[0].mean(0)
        yield Case(noisy, held_out, level, float(lag[0, 1] + lag[1, 0]) / 2, x.mean(0))


def fit(cases: list[Case]) -> tuple[Tensor, Tensor]:
    """Logistic regression, both classes with equal weight, each image turned, too; ``(FEATURES,)`` and one number."""
    x, y = torch.stack([case.features for case in cases]), torch.tensor([float(case.noisy) for case in cases])
    x, y = torch.cat([x, x[:, transposition()]]), torch.cat([y, y])
    mean, spread = x.mean(0), x.std(0) + 1e-3
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    balance = torch.where(y > 0, len(y) / (2 * y.sum()), len(y) / (2 * (1 - y).sum()))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS)

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = (x - mean) / spread @ weight + bias
        value = F.binary_cross_entropy_with_logits(scores, y, balance) + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    with torch.no_grad():
        scaled = weight / spread
        either = (scaled + scaled[transposition()]) / 2
        return either, bias - mean @ scaled
