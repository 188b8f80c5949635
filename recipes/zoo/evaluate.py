"""How near members of the zoo come to what they were learned from, on what `prepare.py` held back.

    python recipes/zoo/evaluate.py --data runs/zoo sidd=runs/zoo/sidd/run/final.safetensors film=... web=...

``sidd`` and ``web`` are judged by pairs: the clean side degraded, against the real degraded side.  ``film`` has no
clean partner: the autochrome's other half, smoothed until no grain is left, is degraded, and flat areas are compared.
Each flow is asked for the level that the held-back side is estimated to have.  The seed of an image is its number.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints, images
from synthpipe.config.classical import ClassicalDegradeOptions, GaussianNoiseOptions
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.presets import preset_chain
from synthpipe.config.reader import parse_options
from synthpipe.files.image_files import list_images, read_image
from synthpipe.flat_noise import FlatNoise, measure_flat_noise, noise_level
from synthpipe.noise_fit import fit_gaussian
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, local_mean, measure_noise, residual_of
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

#: Pixels over which grain is averaged away.
SMOOTH = 33
#: Width of a ring of frequencies, cycles per pixel, and the rings' middles.
RING, RINGS = 0.05, (0.2, 0.3, 0.4)
GRID = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="member=FILE, or member=NAME of shipped weights")
    parser.add_argument("--data", type=Path, default=Path("runs/zoo"), help="what prepare.py made")
    args = parser.parse_args()
    for name, _, file in (text.partition("=") for text in args.weights):
        held_back = args.data / name / "held_back"
        print(f"\n**{name}** ({file})\n")
        if name == "film":
            print_flat(file, held_back / "noisy")
        else:
            print_pairs(file, held_back, codec=name == "web")


def print_pairs(file: str, held_back: Path, codec: bool) -> None:
    """A table row for real noise, each flow, and each hand-made degradation that was fitted to these very pairs."""
    clean, real = (read_all(held_back / side) for side in ("clean", "noisy"))
    pairs = list(zip(real, clean, strict=True))
    covariance = fit_gaussian(pairs, LOCAL_MEAN_WINDOW).covariance
    gaussian = ClassicalDegradeOptions(noise=GaussianNoiseOptions(covariance=covariance))
    rows: dict[str, Sequence[Tensor]] = {
        "real": real,
        "DeFlow": degraded(flow(file, level_of(real)), clean),
        "Gaussian, fitted": degraded(ClassicalDegrade(gaussian, 1), clean),
    }
    if codec:
        chain = parse_options({"degrade": preset_chain("web"), "scale": 1}, DegradeFileOptions).degrade
        rows["the codec: `web`"] = degraded(build_degrade(chain, 1), clean)
    theirs = [residual_of(*pair, LOCAL_MEAN_WINDOW) for pair in pairs]
    amplitudes = " / ".join(map(str, RINGS))
    print("| | sigma R / G / B | flat areas | lag-1 h / v | corr. RG / GB / RB | KLD | AKLD ", end="")
    print(f"| amplitude at {amplitudes} | step at the grid |")
    print("| --- " * 9 + "|")
    for name, made in rows.items():
        own = list(zip(made, clean, strict=True))
        whole, flat = measure_noise(own, LOCAL_MEAN_WINDOW), measure_noise(own, LOCAL_MEAN_WINDOW, flat_only=True)
        ours = [residual_of(*pair, LOCAL_MEAN_WINDOW) for pair in own]
        distances = f"{histogram_kld(theirs, ours):.4f} | {akld(theirs, ours):.3f}"
        kept = many([mean([kept_amplitude(*pair, ring) for pair in own]) for ring in RINGS], 1, 2)
        lags = f"{whole.lag1_h:.2f} / {whole.lag1_v:.2f} | {many(whole.channel_correlation, 1, 2)}"
        sigmas = f"{many(whole.sigma, 255, 1)} | {many(flat.sigma, 255, 1)}"
        print(f"| {name} | {sigmas} | {lags} | {distances} | {kept} | {mean([step(x) for x in made]):.2f} |")


def print_flat(file: str, held_back: Path) -> None:
    """Flat areas of what was held back, and of the same without grain, degraded to its level."""
    real = read_all(held_back)
    made = degraded(flow(file, level_of(real)), [local_mean(x.double(), SMOOTH).float() for x in real])
    found = {"real": measure_flat_noise(real), "DeFlow": measure_flat_noise(made)}
    counts = found["real"].counts
    shown = [node for node in range(len(counts)) if counts[node] > 0]
    nodes = " | ".join(f"{found['real'].nodes[node]:.2f}" for node in shown)
    print(f"| sigma R / G / B at brightness | {nodes} | lag-1 h / v | corr. RG / GB / RB |")
    print("| --- " * (len(shown) + 3) + "|")
    for name, noise in found.items():
        sigmas = " | ".join(many(noise.covariance[node].diagonal().sqrt().tolist(), 255, 1) for node in shown)
        print(f"| {name} | {sigmas} | {lag1(noise)} | {correlations(noise, counts)} |")


def flow(file: str, level: float | None) -> DeFlowDegrade:
    """At full size, at a level where the weights know one."""
    model = checkpoints.load(file, kind="deflow")
    knows = getattr(model, "pile", None) is not None
    return DeFlowDegrade(model, 1, level=255 * level if knows and level is not None else None)


def level_of(noisy: Sequence[Tensor]) -> float | None:
    """Median of the images' levels on the [0, 1] scale."""
    levels = [level for level in map(noise_level, noisy) if level is not None]
    return float(torch.tensor(levels).median()) if levels else None


@torch.no_grad()
def degraded(
    transform: BatchTransform | Callable[[dict[str, Tensor]], dict[str, Tensor]], clean: Sequence[Tensor]
) -> list[Tensor]:
    """8-bit results, one at a time; the seed of an image is its number."""
    seen = torch.zeros(1, dtype=torch.int64)
    batches = ({"gt": x[None], "seed": torch.tensor([n]), "seen": seen} for n, x in enumerate(clean))
    return [images.quantize_8bit(transform(batch)["lq"].float())[0] for batch in batches]


def kept_amplitude(made: Tensor, clean: Tensor, ring: float) -> float:
    """Of the grey value's spectrum in a ring of frequencies, against the clean image's."""
    power = []
    for image in (made, clean):
        grey = image.mean(0)
        window = torch.hann_window(grey.shape[0])[:, None] * torch.hann_window(grey.shape[1])
        spectrum = torch.fft.fft2((grey - grey.mean()) * window).abs().square()
        down, across = (torch.fft.fftfreq(side) for side in grey.shape)
        radius = (down[:, None].square() + across.square()).sqrt()
        power.append(spectrum[(radius - ring).abs() < RING / 2].mean())
    return float((power[0] / power[1]).sqrt())


def step(image: Tensor) -> float:
    """Mean difference of neighbours across the lines of a grid of 8 from the corner on, over that within blocks."""
    across = (image[..., 1:] - image[..., :-1]).abs().mean((0, 1))
    lines = torch.arange(len(across)) % GRID == GRID - 1
    return float(across[lines].mean() / across[~lines].mean())


def lag1(noise: FlatNoise) -> str:
    middle = noise.autocorrelation.shape[-1] // 2
    along = noise.autocorrelation.mean(0)
    return f"{along[middle, middle + 1]:.2f} / {along[middle + 1, middle]:.2f}"


def correlations(noise: FlatNoise, weights: Tensor) -> str:
    """Of channels, over the brightnesses as often as they are met in what was held back."""
    covariance = (noise.covariance * weights[:, None, None]).sum(0) / weights.sum()
    sigma = covariance.diagonal().sqrt()
    matrix = covariance / sigma / sigma[:, None]
    return many([float(matrix[0, 1]), float(matrix[1, 2]), float(matrix[0, 2])], 1, 2)


def many(values: Sequence[float], factor: float, digits: int) -> str:
    return " / ".join(f"{factor * value:.{digits}f}" for value in values)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def read_all(folder: Path) -> list[Tensor]:
    return [read(path) for path in list_images(folder)]


def read(path: Path) -> Tensor:
    return images.to_float(torch.from_numpy(read_image(path).copy()).permute(2, 0, 1))


if __name__ == "__main__":
    main()
