#!/usr/bin/env python
"""Is it a MAP denoiser?  PSNR beside the least-squares denoiser, the kind of its step, dead units, its objective.

    python recipes/map_small/evaluate.py --weights map_small --teacher mmse_small \
        --prior runs/map_small_prior/final.safetensors
    python recipes/map_small/evaluate.py --weights runs/map_grey/final.safetensors \
        --teacher runs/map_grey_teacher/final.safetensors

The middle 128x128 pixels of each held-out picture, grey where the weights are; white Gaussian noise, neither clipped
nor rounded; PSNR of clipped results over all channels, then the mean over pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.denoisers import MapDenoiser, PlainDenoiser
from synthpipe.denoisers.map_denoiser import dde_map_objective, step_mismatch
from synthpipe.density import DDE
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import luma, to_float
from synthpipe.seeds import generator_for, sample_seed

#: Standard deviations in grey levels.
LEVELS_255 = (2.55, 5.0, 11.0, 15.0, 25.0, 50.0)
SIDE = 128
#: Draws of the inner noise that the prior's gradient is averaged over, twice.
DRAWS = 4


def main() -> None:
    """Measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="weights of kind map_denoiser")
    parser.add_argument(
        "--teacher", required=True, help="weights of kind plain_denoiser: R, the least-squares denoiser"
    )
    parser.add_argument(
        "--prior", help="weights of kind plain_denoiser whose step is the prior's gradient; R's by default"
    )
    parser.add_argument("--density", help="weights of kind dde: compares the objective's values under them too")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS_255, help="in grey levels")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = checkpoints.load(args.weights, kind="map_denoiser")
    teacher, prior = (
        checkpoints.load(path, kind="plain_denoiser") for path in (args.teacher, args.prior or args.teacher)
    )
    assert isinstance(model, MapDenoiser)
    assert isinstance(teacher, PlainDenoiser)
    assert isinstance(prior, PlainDenoiser)
    for network in (model, teacher, prior):
        network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    clean = pictures(args.data, model.channels)[:: args.every]
    low, high = model.sigma_range
    levels = [level for level in args.levels if low * 0.99 <= level / 255 <= high * 1.01]
    sizes = [sum(p.numel() for p in network.parameters()) for network in (model, teacher)]
    print(f"{sizes[0]} and {sizes[1]} parameters; {len(clean)} pictures of {args.data}, seed {args.seed}\n")
    print(
        "| sigma | noisy | D | D twice | R | implicit D | implicit R | explicit D | change of noisy, clean "
        "| fewest active |"
    )
    print("|---" * 10 + "|")
    for level in levels:
        print(row_of(model, teacher, prior, clean, level, args.seed))
    if args.density:
        density = checkpoints.load(args.density, kind="dde").requires_grad_(False)
        assert isinstance(density, DDE)
        print("\n| sigma | D below v | D below R(v) | nats per value gained on v by D | by R |\n" + "|---" * 5 + "|")
        for level in levels:
            if density.sigma_range[0] <= model.smoothing * level / 255 <= density.sigma_range[1]:
                print(objective_row(model, teacher, density, clean, level, args.seed))


def pictures(folder: Path, channels: int) -> Tensor:
    """The middles of all pictures of a folder, ``(N, channels, SIDE, SIDE)`` in [0, 1]."""
    found = []
    for path in list_images(folder):
        picture = to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
        top, left = ((side - SIDE) // 2 for side in picture.shape[2:])
        picture = picture[:, :, top : top + SIDE, left : left + SIDE]
        found.append(luma(picture) if channels == 1 else picture)
    return torch.cat(found)


def row_of(
    model: MapDenoiser, teacher: PlainDenoiser, prior: PlainDenoiser, clean: Tensor, level: float, seed: int
) -> str:
    """One line of the table of a noise level, in grey levels."""
    sigma = clean.new_full((len(clean),), level / 255)
    v = clean + sigma[0] * normal(clean, seed, f"noise {level}")
    shares: list[float] = []
    handles = [conv.register_forward_hook(counter(shares)) for conv in model.net.convs]
    d = model(v, sigma)
    for handle in handles:
        handle.remove()
    r = teacher(v, sigma)
    cells = [psnr(v, clean), psnr(d, clean), psnr(model(d, sigma), clean), psnr(r, clean)]
    few = slice(None, None, max(1, len(clean) // 6))
    s = model.smoothing * sigma[few]
    kinds = []
    for x in (d[few], r[few]):
        scores = [score_of(prior, x, s, DRAWS, seed + half) for half in (0, 1)]
        kinds.append(float(step_mismatch(x, v[few], scores[0], sigma[few], scores[1]).mean()))
    # The input is noisy as it is; the output needed the noise that R has learnt with.
    kinds.append(float(step_mismatch(d[few], v[few], score_of(prior, v[few], s, 0, seed), sigma[few]).mean()))
    changes = [
        255 * float((after - before).square().mean().sqrt()) for after, before in ((d, v), (model(clean, sigma), clean))
    ]
    return (
        f"| {level:g} | "
        + " | ".join(f"{cell:.2f}" for cell in cells + kinds)
        + f" | {changes[0]:.2f}, {changes[1]:.2f} | {100 * min(shares):.0f} % |"
    )


def objective_row(
    model: MapDenoiser, teacher: PlainDenoiser, density: DDE, clean: Tensor, level: float, seed: int
) -> str:
    """One line of the table of the objective's values on 64x64 patches."""
    patches = clean.unfold(2, 64, 64).unfold(3, 64, 64).permute(0, 2, 3, 1, 4, 5).reshape(-1, model.channels, 64, 64)
    sigma = patches.new_full((len(patches),), level / 255)
    v = patches + sigma[0] * normal(patches, seed, f"patches {level}")

    def value(candidate: Tensor) -> Tensor:
        return dde_map_objective(candidate, density.log_density(candidate, model.smoothing * sigma), v, sigma)

    at_v, at_d, at_r = value(v), value(model(v, sigma)), value(teacher(v, sigma))
    shares = [100 * float((at_d < other).float().mean()) for other in (at_v, at_r)]
    gains = [float((at_v - other).mean()) / v[0].numel() for other in (at_d, at_r)]
    return f"| {level:g} | {shares[0]:.1f} % | {shares[1]:.1f} % | {gains[0]:.4f} | {gains[1]:.4f} |"


def score_of(prior: PlainDenoiser, x: Tensor, s: Tensor, draws: int, seed: int) -> Tensor:
    """``E_n[R(x + n) - x] / s^2`` over ``draws`` of the noise, or ``(R(x) - x) / s^2`` for none; of the shape of x."""
    wide = s[:, None, None, None]
    noises = [wide * normal(x, seed, f"inner {draw}") for draw in range(draws)] or [torch.zeros_like(x)]
    return torch.stack([prior(x + noise, s) - x for noise in noises]).mean(0) / wide.square()


def counter(shares: list[float]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A hook that notes the share of a layer's units, over all places and images, that are above 0."""

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shares.append(float((output > 0).float().mean()))

    return count


def psnr(x: Tensor, clean: Tensor) -> float:
    """Mean over pictures, dB."""
    return float((-10 * (x.clamp(0, 1) - clean).square().flatten(1).mean(1).log10()).mean())


def normal(like: Tensor, seed: int, salt: str) -> Tensor:
    """Standard normal numbers of the shape of ``like``."""
    return torch.randn(like.shape, generator=generator_for(sample_seed(seed, 0, "map"), salt))


if __name__ == "__main__":
    main()
