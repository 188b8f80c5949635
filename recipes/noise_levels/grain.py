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

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from samples import HELD_OUT, read
from simulate import camera_field, jpeg, simulate_uneven
from torch import Tensor

from synthpipe.files.image_files import list_images
from synthpipe.flat_noise.block_features import block_features
from synthpipe.flat_noise.regression import FLOOR, load_coefficients, regress, standardised, transposition

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
PENALTY, STEPS = 0.01, 100


class Case(NamedTuple):
    """One image: whether its noise is a camera's; ``(FEATURES,)`` standardised features, mean of channels."""

    noisy: bool
    held_out: bool
    level: float
    lag: float
    features: Tensor


def main() -> None:
    """Gather what the cache lacks, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train, real_noise and the others")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the features")
    parser.add_argument("--out", type=Path, required=True, help="coefficients, .npz")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.cache / "grain.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([tuple(case) for case in cases(arguments.data)], path)
    found = [Case(*values) for values in torch.load(path)]
    asked = [c for c in found if LEVELS[0] < c.level < LEVELS[1] and c.lag > LEAST_LAG]
    weight, bias = fit([case for case in asked if not case.held_out])
    for held_out in (False, True):
        part = [case for case in asked if case.held_out == held_out]
        scores = [torch.tensor([float(c.features @ weight + bias) for c in part if c.noisy == n]) for n in (0, 1)]
        above = float((scores[1][:, None] > scores[0]).float().mean())
        shares = [float((s > 0).float().mean()) for s in scores]
        print(f"{'held out' if held_out else 'learned from'}: {len(scores[0])} of grain, {len(scores[1])} of noise; "
              f"AUROC {above:.3f}; taken for noise {shares[0]:.1%} and {shares[1]:.1%}")  # fmt: skip
    np.savez_compressed(arguments.out, weight=weight.numpy().astype(np.float32), bias=np.float32(bias))


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


def case_of(image: Tensor, noisy: bool, held_out: bool) -> Iterator[Case]:
    """One case; none where nearly all is clipped."""
    by = load_coefficients()
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


if __name__ == "__main__":
    main()
