"""Fit the regression of ``synthpipe.flat_noise.estimate_noise`` anew.

    python recipes/noise_levels/fit.py --data ../shared/data --cache /tmp/noise_samples --out coefficients.npz

Simulates 9500 images (about 40 s of processor time per thousand), takes crops of the real pairs that settings are
chosen on, and trains for a minute.  What was simulated is kept in ``--cache``.  With ``--grey``: of 6500 images whose
three channels are equal, for ``coefficients_grey.npz``.
"""

from __future__ import annotations

import argparse
import functools
import math
import operator
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from samples import Samples, from_pairs, on_references, simulated
from torch import Tensor

from synthpipe.flat_noise.regression import FLOOR, Coefficients, regress, standardised, transposition

PART, HELD_OUT = 2000, 500
#: Parts of noise on photographs, on references, of plain coloured noise on photographs; times that real pairs count.
PHOTOGRAPHS, REFERENCES, COLOURED, REAL = 2, 1, 1, 3
#: Images of each part that are grey.
GREY_PART = 1500
#: Images of uneven coded noise, and times that they count.
UNEVEN_PART, UNEVEN = 1500, 2
HIDDEN, EPOCHS, BATCH, RATE, DECAY, DROP, JITTER = 48, 40, 128, 3e-3, 1e-3, 0.05, 0.03
#: Energies below this are as good as none in the features; the logarithms of energies end at this column.
ENERGY_FLOOR, ENERGIES = 0.01, 396
#: Contrast of training images is changed by up to this factor's logarithm.
CONTRAST = 0.5
#: Weights of the parts of the loss: level, certainty, lags, channels.
LEVEL, CERTAINTY, LAGS, CHANNELS = 1.0, 0.1, 1.0, 0.5


def main() -> None:
    """Simulate what the cache lacks, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train, real_noise and the others")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps what was simulated")
    parser.add_argument("--out", type=Path, required=True, help="coefficients, .npz")
    parser.add_argument("--grey", action="store_true", help="fit that of grey images")
    arguments = parser.parse_args()
    data, cache, grey = arguments.data, arguments.cache, arguments.grey
    samples = gather_grey(data, cache) if grey else gather(data, cache)
    name = "held_out_grey.pt" if grey else "held_out.pt"
    held_out = cached(cache / name, lambda: simulated(data, HELD_OUT, 99, held_out=True, grey=grey))
    coefficients = train(samples, held_out)
    with torch.no_grad():
        coefficients = of_either_way(coefficients)
        expect_errors_of(held_out, coefficients)
    np.savez_compressed(
        arguments.out, **{k: v.detach().numpy().astype(np.float16) for k, v in coefficients._asdict().items()}
    )


def gather(data: Path, cache: Path) -> Samples:
    """Simulated images, and crops of real pairs several times."""
    real = cached(cache / "real.pt", lambda: from_pairs(data, 5))
    parts = [real] * REAL
    for part in range(PHOTOGRAPHS):
        parts.append(cached(cache / f"sim{part}.pt", lambda part=part: simulated(data, PART, part)))
    for part in range(REFERENCES):
        parts.append(cached(cache / f"refs{part}.pt", lambda part=part: on_references(data, PART, part)))
    for part in range(COLOURED):
        parts.append(cached(cache / f"col{part}.pt", lambda part=part: simulated(data, PART, 50 + part, coloured=True)))
    uneven = cached(cache / "uneven0.pt", lambda: on_references(data, UNEVEN_PART, 70, uneven=True))
    return functools.reduce(operator.add, parts + [uneven] * UNEVEN)


def gather_grey(data: Path, cache: Path) -> Samples:
    """The same of grey images."""
    parts = [cached(cache / "real_grey.pt", lambda: from_pairs(data, 5, grey=True))] * REAL
    for part in range(PHOTOGRAPHS):
        parts.append(
            cached(cache / f"sim_grey{part}.pt", lambda part=part: simulated(data, GREY_PART, part, grey=True))
        )
    parts.append(cached(cache / "refs_grey.pt", lambda: on_references(data, GREY_PART, 0, grey=True)))
    parts.append(cached(cache / "col_grey.pt", lambda: simulated(data, GREY_PART, 50, coloured=True, grey=True)))
    uneven = cached(cache / "uneven_grey.pt", lambda: on_references(data, GREY_PART // 3, 70, uneven=True, grey=True))
    return functools.reduce(operator.add, [*parts, *[uneven] * UNEVEN])


def cached(path: Path, make: Callable[[], Samples]) -> Samples:
    """Samples from a file, or made and kept there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(make()), path)
    return Samples(**torch.load(path))


def train(samples: Samples, held_out: Samples, seed: int = 0) -> Coefficients:
    """Least absolute errors, by AdamW."""
    torch.manual_seed(seed)
    by = initial(samples.features)
    parameters = [p.requires_grad_() for p in by[2:]]
    count = len(samples.features)
    steps = EPOCHS * (count // BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(count)[: count // BATCH * BATCH].split(BATCH):
            batch = of_other_contrast(Samples(*(value[chosen] for value in vars(samples).values())))
            x = standardised(batch.features, by)
            loss = loss_of(x + JITTER * torch.randn_like(x), batch, by, DROP)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: {float(loss.detach()):.3f}; {on_held_out(held_out, by)}", flush=True)
    return by


def of_either_way(by: Coefficients) -> Coefficients:
    """The same mean and spread for an image and its transpose, so that both get one answer."""
    mean, spread = ((value + value[transposition()]) / 2 for value in (by.mean, by.spread))
    return by._replace(mean=mean, spread=spread)


def expect_errors_of(samples: Samples, by: Coefficients) -> None:
    """Shift the expected errors so that they are right on average for images that were not learned from."""
    told = regress(standardised(samples.features, by), by)
    error = (log_level(told.log_sigma.exp() - FLOOR) - log_level(samples.sigma)).abs()
    shift = (error * (-told.log_error.mean(1)).exp()).mean().log()
    print(f"errors are {float(shift.exp()):.2f} times what was expected")
    by.last_bias[2] += shift


def initial(features: Tensor) -> Coefficients:
    """Random hidden layers, a direct map of zeros."""
    wide, outputs = features.shape[-1], 27

    def layer(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns) / math.sqrt(columns)

    return Coefficients(
        features.mean((0, 1)),
        features.std((0, 1)).clamp(min=0.1),
        layer(HIDDEN, wide),
        torch.zeros(HIDDEN),
        layer(HIDDEN, HIDDEN),
        torch.zeros(HIDDEN),
        layer(outputs, HIDDEN),
        torch.zeros(outputs),
        torch.zeros(outputs, wide),
    )


def of_other_contrast(batch: Samples) -> Samples:
    """Image and noise times the same factor: energies and sigma follow exactly, but for clipping and rounding."""
    count = len(batch.features)
    factor = (torch.empty(count).uniform_(-CONTRAST, CONTRAST) * (torch.rand(count) < 0.7)).exp()
    energies = (batch.features[..., :ENERGIES].exp() - ENERGY_FLOOR).clamp(min=0) * factor.square()[:, None, None]
    features = torch.cat([(energies + ENERGY_FLOOR).log(), batch.features[..., ENERGIES:]], -1)
    return Samples(features, batch.sigma * factor[:, None], batch.lags, batch.correlation)


def loss_of(x: Tensor, batch: Samples, by: Coefficients, drop: float) -> Tensor:
    """Absolute errors of logarithms of sigma and level, and, where there is noise, of lags and correlations."""
    told = regress(x, by, drop)
    sigma = (told.log_sigma - (batch.sigma + FLOOR).log()).abs().mean()
    level = (log_level(told.log_sigma.exp() - FLOOR) - log_level(batch.sigma)).abs()
    expected = told.log_error.mean(1).clamp(-4, 1.5)
    certainty = level.detach() * (-expected).exp() + expected
    noisy = batch.sigma.square() / (batch.sigma.square() + 2)
    place = torch.arange(batch.lags.shape[-1])
    near = 1 / (1 + 0.8 * (place[:, None] + place))
    lags = ((told.lags - batch.lags).abs() * near / near.sum()).sum((2, 3))
    others = batch.correlation[:, [1, 2, 0]]
    return (
        sigma
        + LEVEL * level.mean()
        + CERTAINTY * certainty.mean()
        + LAGS * (noisy * lags).mean()
        + CHANNELS * (noisy * (told.others - others).abs()).mean()
    )


def log_level(sigma: Tensor) -> Tensor:
    """``(B, 3)`` -> ``(B,)``."""
    return (sigma.clamp(min=0.01).square().mean(1).sqrt() + FLOOR).log()


@torch.no_grad()
def on_held_out(samples: Samples, by: Coefficients) -> str:
    """Level over truth, of sigma from 1.5."""
    told = regress(standardised(samples.features, by), by)
    found = log_level(told.log_sigma.exp() - FLOOR).exp() - FLOOR
    true = samples.sigma.square().mean(1).sqrt()
    ratio = (found / true)[true > 1.5]
    lag = (told.lags - samples.lags).mean(1)[true > 1.5]
    lag = torch.stack([lag[:, 0, 1], lag[:, 1, 0]]).abs().amax(0)
    return (
        f"held out: level {float(ratio.median()):.2f}, off by {float((ratio - 1).abs().median()):.1%}, within 15% "
        f"{float(((ratio - 1).abs() < 0.15).float().mean()):.0%}; lag-1 off by {float(lag.median()):.3f}; "
        f"clean {float(found[true < 0.05].median()):.2f}"
    )


if __name__ == "__main__":
    main()
