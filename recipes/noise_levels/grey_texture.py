"""Fit what tells texture from strong noise in grey pictures, for ``estimate_noise``: ``grey_texture.npz``.

    python recipes/noise_levels/grey_texture.py --data ../shared/data --cache /tmp/noise_samples --out grey_texture.npz

Grey pictures say nothing by their channels, and the level alone does not part texture from noise.  A logistic
regression on the features of :mod:`fit` does, as :mod:`grain` does for weak noise.  Texture: pieces of ``clean_train``
turned grey, smaller and larger than they are, of which a level is told as if they had strong noise.  Noise: white,
coloured, blurred and enlarged noise on such pieces, on blurred ones and on one grey, a third of it coded as JPEG, and
simulated noise of cameras.  Every 8th photograph is left out and says how much of both is believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from own_noise import Case, case_of, fit_from_command_line
from run import coloured
from samples import HELD_OUT, luma, read
from simulate import blurred, jpeg, simulate, simulate_coloured, simulate_uneven
from torch import Tensor

from synthpipe.files.image_files import list_images

#: Pieces of each photograph; noisy images.
PIECES, NOISY = 10, 1200
MAKERS = (simulate, simulate_uneven, simulate_coloured)
#: Sides of a piece; factors of size.
SIDES, FACTORS = (80, 480), (0.5, 2.2)
#: Levels told of 255 and correlation of neighbours of which the question arises; sigma that is added.
LEAST_LEVEL, MOST_LAG, SIGMAS = 4.0, 0.9, (4.5, 25)


def main() -> None:
    """Gather what the cache lacks, fit, write."""
    fit_from_command_line(
        "grey_texture", __doc__, cases, lambda case: case.level >= LEAST_LEVEL and case.lag < MOST_LAG
    )


def cases(data: Path) -> Iterator[Case]:
    """All images."""
    photographs = [luma(read(path)) for path in list_images(data / "clean_train")]
    for at, image in enumerate(photographs):
        rng = np.random.default_rng([11, at])
        for _ in range(PIECES):
            yield from case_of(piece(image, rng), False, at % HELD_OUT == 0, grey=True)
    for at in range(NOISY):
        rng = np.random.default_rng([12, at])
        which = int(rng.integers(len(photographs)))
        held_out = which % HELD_OUT == 0
        if at % 6 == 5:
            sample = MAKERS[at // 6 % 3](photographs[which].float() / 255, rng, True)
            if float(sample.sigma.mean()) >= SIGMAS[0]:
                yield from case_of(luma(sample.image), True, held_out, grey=True)
            continue
        clean = piece(photographs[which], rng).float()
        if at % 6 > 2:  # little or nothing of what texture leaves
            clean = blurred(clean, 8.0) if at % 6 == 3 else clean.mean().expand_as(clean)
        noise = math.exp(rng.uniform(*map(math.log, SIGMAS))) * plain_noise(clean.shape[1:], rng, at)
        noisy = (clean + noise).round().clamp(0, 255).byte()
        yield from case_of(
            luma(jpeg(noisy, int(rng.integers(72, 98)), 0)) if at % 3 == 2 else noisy, True, held_out, grey=True
        )


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


if __name__ == "__main__":
    main()
