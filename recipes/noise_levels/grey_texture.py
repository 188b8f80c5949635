"""Fit what tells texture from strong noise in grey pictures, for ``estimate_noise``: ``grey_texture.npz``.

    python recipes/noise_levels/grey_texture.py --data ../shared/data --cache /tmp/noise_samples --out grey_texture.npz

Grey pictures say nothing by their channels, and the level alone does not part texture from noise.  A logistic
regression on the features of :mod:`fit` does, as :mod:`grain` does for weak noise.  Texture: pieces of ``clean_train``
turned grey, smaller and larger than they are, of which a level is told as if they had strong noise.  Noise: white,
coloured, blurred and enlarged noise on such pieces, on blurred ones and on one grey, a third of it coded as JPEG, and
simulated noise of cameras.  Every 8th photograph is left out and says how much of both is believed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from grain import Case, fit
from run import coloured
from samples import HELD_OUT, luma, read
from simulate import blurred, jpeg, simulate, simulate_coloured, simulate_uneven
from torch import Tensor

from synthpipe.files.image_files import list_images
from synthpipe.flat_noise.block_features import block_features
from synthpipe.flat_noise.regression import FLOOR, load_coefficients, regress, standardised

#: Pieces of each photograph; noisy images.
PIECES, NOISY = 10, 1200
MAKERS = (simulate, simulate_uneven, simulate_coloured)
#: Sides of a piece; factors of size.
SIDES, FACTORS = (80, 480), (0.5, 2.2)
#: Levels told of 255 and correlation of neighbours of which the question arises; sigma that is added.
LEAST_LEVEL, MOST_LAG, SIGMAS = 4.0, 0.9, (4.5, 25)


def main() -> None:
    """Gather what the cache lacks, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the features")
    parser.add_argument("--out", type=Path, required=True, help="coefficients, .npz")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.cache / "grey_texture.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([tuple(case) for case in cases(arguments.data)], path)
    found = [Case(*values) for values in torch.load(path)]
    asked = [case for case in found if case.level >= LEAST_LEVEL and case.lag < MOST_LAG]
    weight, bias = fit([case for case in asked if not case.held_out])
    for held_out in (False, True):
        part = [case for case in asked if case.held_out == held_out]
        scores = [torch.tensor([float(c.features @ weight + bias) for c in part if c.noisy == n]) for n in (0, 1)]
        above = float((scores[1][:, None] > scores[0]).float().mean())
        shares = [float((s > 0).float().mean()) for s in scores]
        print(f"{'held out' if held_out else 'learned from'}: {len(scores[0])} of texture, {len(scores[1])} of noise; "
              f"AUROC {above:.3f}; taken for noise {shares[0]:.1%} and {shares[1]:.1%}")  # fmt: skip
    np.savez_compressed(arguments.out, weight=weight.numpy().astype(np.float32), bias=np.float32(bias))


def cases(data: Path) -> Iterator[Case]:
    """All images."""
    photographs = [luma(read(path)) for path in list_images(data / "clean_train")]
    for at, image in enumerate(photographs):
        rng = np.random.default_rng([11, at])
        for _ in range(PIECES):
            yield from case_of(piece(image, rng), False, at % HELD_OUT == 0)
    for at in range(NOISY):
        rng = np.random.default_rng([12, at])
        which = int(rng.integers(len(photographs)))
        held_out = which % HELD_OUT == 0
        if at % 6 == 5:
            sample = MAKERS[at // 6 % 3](photographs[which].float() / 255, rng, True)
            if float(sample.sigma.mean()) >= SIGMAS[0]:
                yield from case_of(luma(sample.image), True, held_out)
            continue
        clean = piece(photographs[which], rng).float()
        if at % 6 > 2:  # little or nothing of what texture leaves
            clean = blurred(clean, 8.0) if at % 6 == 3 else clean.mean().expand_as(clean)
        noise = math.exp(rng.uniform(*map(math.log, SIGMAS))) * plain_noise(clean.shape[1:], rng, at)
        noisy = (clean + noise).round().clamp(0, 255).byte()
        yield from case_of(luma(jpeg(noisy, int(rng.integers(72, 98)), 0)) if at % 3 == 2 else noisy, True, held_out)


def plain_noise(size: torch.Size, rng: np.random.Generator, seed: int) -> Tensor:
    """One plane of unit variance whose correlation falls exponentially, or blurred or enlarged white noise."""
    kind = rng.random()
    if kind < 0.5:
        return coloured(size, float(rng.uniform(0, 0.85)), seed)[:1]
    factor = float(rng.uniform(1.1, 2.2)) if kind > 0.8 else 1.0
    x = torch.from_numpy(rng.standard_normal((1, *(math.ceil(side / factor) for side in size)), dtype=np.float32))
    if factor > 1:
        mode = str(rng.choice(["bilinear", "bicubic"]))
        x = F.interpolate(x[None], size=tuple(size), mode=mode, align_corners=False)[0]
    else:
        x = blurred(x, float(rng.uniform(0.3, 1.1)))
    return x / x.std()


def piece(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A piece of uint8 ``(3, H, W)``, of another size half the time."""
    x = image.float()[None]
    if rng.random() < 0.5:
        factor = math.exp(rng.uniform(*map(math.log, FACTORS)))
        size = [max(SIDES[0], round(side * factor)) for side in image.shape[1:]]
        x = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False).round().clamp(0, 255)
    sides = [min(side, round(math.exp(rng.uniform(*map(math.log, SIDES))))) for side in x.shape[2:]]
    top, left = (int(rng.integers(0, side - taken + 1)) for side, taken in zip(x.shape[2:], sides, strict=True))
    return x[0, :, top : top + sides[0], left : left + sides[1]].byte()


def case_of(image: Tensor, noisy: bool, held_out: bool) -> Iterator[Case]:
    """One case; none where nearly all is clipped."""
    by = load_coefficients(grey=True)
    features = block_features(image.float() / 255)
    if features is not None:
        x = standardised(features, by)
        told = regress(x[None], by)
        level = float((told.log_sigma.exp() - FLOOR).clamp(min=0).square().mean().sqrt())
        lag = told.lags[0].mean(0)
        yield Case(noisy, held_out, level, float(lag[0, 1] + lag[1, 0]) / 2, x.mean(0))


if __name__ == "__main__":
    main()
