"""Tables of the README: how near the samples of a trained generator are to what it imitates.

python recipes/dde_generator/evaluate.py points runs/dde_generator/eight_gaussians
python recipes/dde_generator/evaluate.py digits runs/dde_generator/digits --file runs/dde_generator/digits.npy
python recipes/dde_generator/evaluate.py patches runs/dde_generator/patches --held-out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.dde_generator import ImageData, PointData, TrainDDEGeneratorOptions
from synthpipe.config.training import read_train_options
from synthpipe.density import DDEGenerator
from synthpipe.density.point_sets import EightGaussians, PointSet, point_set
from synthpipe.density.sample_quality import histogram_divergence, mode_shares
from synthpipe.files.decode import encode_png
from synthpipe.images import to_float, to_uint8
from synthpipe.training.data.generator_data import ImageSource, read_array
from synthpipe.training.dde_generator import build_objective

SEED = 0
#: Points; two exact sets of this size differ by 0.0004 to 0.0007 nats in 50x50 cells.
POINTS = 2_000_000
#: Grid for the slope of the estimators against the exact log density.
SIDE = 121


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("points", "digits", "patches"))
    parser.add_argument("run", type=Path, help="run_dir of a training")
    parser.add_argument("--file", help="digits: the .npy that prepare_digits.py wrote")
    parser.add_argument("--held-out", help="patches: folder of images that the training did not see")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    options = cast(TrainDDEGeneratorOptions, read_train_options(args.run / "options.yml"))
    model = cast(DDEGenerator, checkpoints.load(args.run / "final.safetensors", "dde_generator"))
    if args.what == "points":
        points(model, options, args.run)
    elif args.what == "digits":
        digits(model, args.run, args.file)
    else:
        patches(model, options, args.run, args.held_out)


def points(model: DDEGenerator, options: TrainDDEGeneratorOptions, run: Path) -> None:
    """Histogram divergences, shares of modes, slope of both estimators on the exact log density."""
    assert isinstance(options.data, PointData)
    law = point_set(options.data.name)
    generator = torch.Generator().manual_seed(SEED)
    real, again = law.sample(POINTS, generator), law.sample(POINTS, generator)
    samples = torch.cat([model.sample(100_000, generator) for _ in range(POINTS // 100_000)])
    print(f"{law.name}: KL(q||p) {_pair(histogram_divergence(samples, real))}")
    print(f"two exact sets: {_pair(histogram_divergence(again, real))}")
    if isinstance(law, EightGaussians):
        shares = mode_shares(samples, law.centres(samples))
        print("shares of the modes: " + " ".join(f"{100 * share:.1f}%" for share in shares.tolist()))
    _slopes(law, options, run)


def _pair(divergences: tuple[float, float]) -> str:
    return f"{divergences[0]:.4f} / {divergences[1]:.4f}"


def _slopes(law: PointSet, options: TrainDDEGeneratorOptions, run: Path) -> None:
    """Regression of each estimator on exact log p, weighted by p, at the lowest level."""
    objective = build_objective(options)
    newest = sorted((run / "checkpoints").glob("step_*.pt"))[-1]
    saved = torch.load(newest, weights_only=True)
    objective.load_companions(saved["companions"])
    axis = torch.linspace(-5, 5, SIDE)
    grid = torch.cartesian_prod(axis, axis)
    sigma = torch.full((len(grid),), options.sigma[0])
    exact = law.log_smoothed_density(grid, sigma)
    weight = exact.exp() / exact.exp().sum()
    for name, density in (("data", objective.data_density), ("samples", objective.sample_density)):
        estimate = density.log_density(grid, sigma)
        log_z = torch.logsumexp(estimate, 0) + 2 * torch.log(axis[1] - axis[0])
        divergence = float((weight * (exact - estimate + log_z)).sum())
        centred = exact - (weight * exact).sum()
        found = float((weight * centred * estimate).sum() / (weight * centred.square()).sum())
        print(f"estimator of the {name} at {options.sigma[0]}: slope {found:.3f}, KL(p||exp S / Z) {divergence:.4f}")


def digits(model: DDEGenerator, run: Path, file: str) -> None:
    """Labels by a classifier that never saw a sample, and the nearest training image of each sample."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    images, labels = data.images.reshape(len(data.images), -1) / 16, data.target
    held_out = np.arange(len(images)) % 5 == 0
    classifier = LogisticRegression(max_iter=2000).fit(images[~held_out], labels[~held_out])
    training = read_array(file).flatten(1)
    samples = model.sample(10_000, torch.Generator().manual_seed(SEED))
    flat = samples.flatten(1)
    rows = {"held-out digits": torch.from_numpy(images[held_out]).float(), "samples": flat}
    print(f"classifier: accuracy {classifier.score(images[held_out], labels[held_out]):.3f} on held-out digits")
    truth = np.bincount(classifier.predict(images), minlength=10) / len(images)
    print("| | modes | KL(label histogram || data's) | mean top probability | nearest training image (rms) |")
    print("| --- | --- | --- | --- | --- |")
    for name, x in rows.items():
        chances = classifier.predict_proba(x.numpy())
        shares = np.bincount(chances.argmax(1), minlength=10) / len(x)
        used = shares > 0
        divergence = float((shares[used] * np.log(shares[used] / truth[used])).sum())
        near = torch.cdist(x, training).amin(1) / x.shape[1] ** 0.5
        print(
            f"| {name} | {int((shares > 0.01).sum())} of 10 | {divergence:.4f} | {chances.max(1).mean():.3f} | "
            f"{float(near.mean()):.3f} |"
        )
    back = torch.cdist(rows["held-out digits"], flat).amin(1) / flat.shape[1] ** 0.5
    print(f"nearest sample of a held-out digit (rms): {float(back.mean()):.3f}")
    real = torch.from_numpy(images[held_out]).float().reshape(-1, 1, 8, 8)
    save_grid(run / "samples.png", real[:80], samples[:80], columns=20, enlarge=4)


def patches(model: DDEGenerator, options: TrainDDEGeneratorOptions, run: Path, held_out: str) -> None:
    """Statistics of real patches (trained on, and held out) and of samples."""
    assert isinstance(options.data, ImageData)
    count = 2048
    channels = model.shape[0]
    seen = options.data.model_copy(update={"batch_size": count, "workers": 0})
    unseen = seen.model_copy(update={"source": options.data.source.model_copy(update={"folder": held_out})})
    rows = {"training patches": _crops(seen, channels, 1), "again": _crops(seen, channels, 2)}
    rows |= {"held-out patches": _crops(unseen, channels, 1)}
    rows["samples"] = model.sample(count, torch.Generator().manual_seed(SEED))
    white = rows["training patches"]
    generator = torch.Generator().manual_seed(SEED)
    rows["white noise of the patches' moments"] = white.mean() + white.std() * torch.randn(
        white.shape, generator=generator
    )
    print(
        "| | mean | std of means | contrast 10 / 50 / 90 % | Laplacian std | kurtosis of differences | "
        "power in 8 rings, over training patches' |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    base = _spectrum(rows["training patches"])
    for name, x in rows.items():
        print(f"| {name} | " + " | ".join([*_moments(x), _ratios(_spectrum(x) / base)]) + " |")
    save_grid(run / "samples.png", rows["training patches"][:48], rows["samples"][:48], columns=12, enlarge=2)


def _crops(options: ImageData, channels: int, seed: int) -> Tensor:
    source = ImageSource(options, seed)
    x = to_float(source.next_batch()["x"])
    source.close()
    return x if channels == 3 else (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def _moments(x: Tensor) -> list[str]:
    contrast = x.flatten(2).std(2).mean(1).quantile(torch.tensor([0.1, 0.5, 0.9]))
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(x.shape[1], 1, 3, 3)
    laplacian = F.conv2d(x, kernel, groups=x.shape[1])
    steps = (x[..., 1:] - x[..., :-1]).flatten()
    kurtosis = (steps**4).mean() / (steps**2).mean() ** 2
    return [
        f"{float(x.mean()):.3f}",
        f"{float(x.mean((1, 2, 3)).std()):.3f}",
        " / ".join(f"{float(value):.3f}" for value in contrast),
        f"{float(laplacian.std()):.3f}",
        f"{float(kurtosis):.1f}",
    ]


def _spectrum(x: Tensor) -> Tensor:
    """Mean power in eight rings of spatial frequency, the mean of each patch removed."""
    side = x.shape[-1]
    power = torch.fft.fft2(x - x.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    axis = torch.fft.fftfreq(side)
    ring = ((axis[:, None] ** 2 + axis[None] ** 2).sqrt() * 16).long().clamp(max=7)
    return torch.stack([power[ring == i].mean() for i in range(8)])


def _ratios(ratios: Tensor) -> str:
    return " ".join(f"{float(ratio):.2f}" for ratio in ratios)


def save_grid(path: Path, real: Tensor, samples: Tensor, columns: int, enlarge: int) -> None:
    """Real images above, samples below, as PNG."""
    blocks: Sequence[Tensor] = [_grid(x, columns) for x in (real, samples)]
    gap = torch.ones(blocks[0].shape[0], 4, blocks[0].shape[2])
    picture = torch.cat([blocks[0], gap, blocks[1]], 1)
    picture = picture.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2).expand(3, -1, -1)
    path.write_bytes(encode_png(to_uint8(picture).permute(1, 2, 0).numpy()))
    print(path)


def _grid(x: Tensor, columns: int) -> Tensor:
    rows = [torch.cat(list(F.pad(row, (1, 1, 1, 1), value=1.0)), 2) for row in x.split(columns)]
    return torch.cat(rows, 1)


if __name__ == "__main__":
    main()
