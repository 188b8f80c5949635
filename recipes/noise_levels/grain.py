"""Fit what tells a photograph's own grain from noise of cameras, for ``estimate_noise``: ``grain.npz``.

    python recipes/noise_levels/grain.py --data ../shared/data --cache /tmp/noise_samples --out grain.npz

Both are weak and both are shared by neighbours, so that level and certainty do not part them; the spectra of the
channels and of their differences do.  A logistic regression on the same features as :mod:`fit`'s.  Grain: photographs
of ``clean_train`` as they are, halved, and cut; references of the pairs that settings are chosen on.  Noise: those
pairs with all or a part of their noise, and noise on their references and on photographs: uneven and coded, or as a
camera's demosaicing leaves it, one half coded.  Every 8th photograph is left out, and says with how much of the noise
how much of the grain is believed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from own_noise import Case, case_of, fit_from_command_line
from samples import HELD_OUT, read
from simulate import camera_field, jpeg, simulate_uneven
from torch import Tensor

from synthpipe.files.image_files import list_images

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen

#: Shares of a pair's noise; sides of what is cut.
SHARES, SIDES = (0.35, 0.5, 0.7, 1.0), (256, 320, 384)
#: Numbers of the simulated images, on references and, where odd, on photographs: 700 of uneven noise and 350 as
#: demosaicing leaves it.  The second were added to a fit of the first, whose numbers they do not share.
UNEVEN, DEMOSAICED = range(700), [at for at in range(700, 1400) if at % 4 >= 2]
#: Levels of 255 and correlations of neighbours of which the question arises.
LEVELS, LEAST_LAG = (0.3, 6.0), 0.36


def main() -> None:
    """Gather what the cache lacks, fit, write."""
    fit_from_command_line(
        "grain", __doc__, cases, lambda case: LEVELS[0] < case.level < LEVELS[1] and case.lag > LEAST_LAG
    )


def cases(data: Path) -> Iterator[Case]:
    """All images."""
    photographs = [(read(path), at % HELD_OUT == 0) for at, path in enumerate(list_images(data / "clean_train"))]
    for image, held_out in photographs:
        top, left = ((side - 256) // 2 for side in image.shape[1:])
        for view in (image, halved(image), image[:, top : top + 256, left : left + 256]):
            yield from case_of(view, False, held_out)
    references = []
    for noisy, reference in pieces(data):
        yield from case_of(reference, False, False)
        references.append(reference)
        for share in SHARES:
            mixed = torch.lerp(reference.float(), noisy.float(), share).round().byte()
            yield from case_of(mixed if share == 1 else jpeg(mixed, 75, 2), True, False)
    for at in [*UNEVEN, *DEMOSAICED]:
        rng = np.random.default_rng([7, at])
        image, held_out = (references[int(rng.integers(len(references)))], False)
        if at % 2:
            image, held_out = photographs[int(rng.integers(len(photographs)))]
        image = image.float() / 255
        side = min(int(rng.choice(SIDES)), *image.shape[1:])
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[1:])
        image = image[:, top : top + side, left : left + side]
        if at in UNEVEN:
            sample = simulate_uneven(image, rng)
            if 1.2 < float(sample.sigma.square().mean().sqrt()) < 5:
                yield from case_of(sample.image, True, held_out)
            continue
        noise = float(rng.uniform(1.5, 5)) / 255 * camera_field(image.shape[1:], rng)
        final = ((image + noise) * 255).round().clamp(0, 255).byte()
        yield from case_of(jpeg(final, int(rng.integers(75, 99)), 1) if at % 8 < 4 else final, True, held_out)


def pieces(data: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the pairs that settings are chosen on: crops whole, six pieces of each frame."""
    crops, frames = (
        [path for path in list_images(data / folder / "noisy") if is_chosen(path.name)]
        for folder in ("real_noise", "real_noise_full")
    )
    for path in crops:
        yield read(path), read(data / "real_noise" / "clean" / path.name)
    for path in frames:
        both = [read(next((data / "real_noise_full" / side).glob(path.stem + ".*"))) for side in ("noisy", "clean")]
        height, width = both[0].shape[1:]
        for row in range(2):
            for column in range(3):
                top, left = int((row + 0.5) * height / 2) - 256, int((column + 0.5) * width / 3) - 256
                top, left = top // 8 * 8, left // 8 * 8
                noisy, clean = (x[:, top : top + 512, left : left + 512] for x in both)
                yield noisy, clean


def halved(image: Tensor) -> Tensor:
    """At half the size."""
    x = F.interpolate(image[None].float(), scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)
    return x[0].round().clamp(0, 255).byte()


if __name__ == "__main__":
    main()
