"""Real noise against generated noise on aligned pairs: rows, figures and tables that several recipes print.

Every row degrades the same clean references and is measured in the same way, after rounding to 8 bits.  Baselines are
*fitted to these very pairs*, which no unpaired method may do; ``recipes/deflow_small/README.md`` says how each figure
is to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from synthpipe import images
from synthpipe.config.degrade import ClassicalDegradeOptions, GaussianNoiseOptions, PoissonGaussianNoiseOptions
from synthpipe.noise_fit import fit_gaussian, fit_poisson_gaussian
from synthpipe.noise_statistics import (
    LOCAL_MEAN_WINDOW,
    akld,
    flat_mask,
    histogram_kld,
    measure_noise,
    residual_of,
)
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade

Generator = Callable[[Tensor, Sequence[int]], Tensor]

BLOCK = 32
CANDIDATES = 8
VIEWS = {
    "as they are": (None, False),
    "local mean removed": (LOCAL_MEAN_WINDOW, False),
    "flat pixels, local mean removed": (LOCAL_MEAN_WINDOW, True),
}


def load_pairs(folder: Path, limit: int | None) -> tuple[Tensor, Tensor, list[str]]:
    """``clean`` and ``noisy`` ``(N, 3, H, W)`` float32 in [0, 1], and names."""
    names = sorted(path.name for path in (folder / "clean").iterdir())
    if limit is not None and limit < len(names):
        names = [names[i * len(names) // limit] for i in range(limit)]
    sides = [torch.stack([read(folder / side / name) for name in names]) for side in ("clean", "noisy")]
    return sides[0], sides[1], names


def read(path: Path) -> Tensor:
    return images.to_float(torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1))


def generate(generator: Generator, clean: Tensor, seeds: Sequence[int], batch: int) -> Tensor:
    """Degraded images, 8-bit levels, ``(N, 3, H, W)``."""
    parts = [generator(clean[i : i + batch], seeds[i : i + batch]) for i in range(0, len(clean), batch)]
    return images.quantize_8bit(torch.cat(parts))


def by_transform(transform: BatchTransform, device: str = "cpu") -> Generator:
    def run(clean: Tensor, seeds: Sequence[int]) -> Tensor:
        batch = {"gt": clean.to(device), "key": [str(s) for s in seeds], "seed": torch.tensor(seeds)}
        return transform(batch)["lq"].cpu()

    return run


def baselines(clean: Tensor, noisy: Tensor, window: int | None) -> dict[str, Generator]:
    """Hand-made models fitted to these pairs, and real noise re-drawn."""
    pairs = list(zip(noisy, clean, strict=True))
    gaussian, poisson = fit_gaussian(pairs, window), fit_poisson_gaussian(pairs, window)
    residuals = torch.stack([residual_of(y, x, window) for y, x in pairs])
    a, b = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (poisson.a, poisson.b))

    def deviation(x: Tensor) -> Tensor:
        return (a * x + b).clamp(min=(1 / 255) ** 2).sqrt()

    white = GaussianNoiseOptions(covariance=gaussian.covariance)
    signal = PoissonGaussianNoiseOptions(a=poisson.a, b=poisson.b)
    return {
        "Gaussian, fitted": by_transform(ClassicalDegrade(ClassicalDegradeOptions(noise=white), 1)),
        "Poisson-Gaussian, fitted": by_transform(ClassicalDegrade(ClassicalDegradeOptions(noise=signal), 1)),
        "coloured Gaussian, fitted": coloured(residuals),
        "coloured Poisson-Gaussian, fitted": coloured(residuals / deviation(clean), deviation),
        "real noise, re-drawn": redrawn(clean, residuals),
    }


def coloured(residuals: Tensor, deviation: Callable[[Tensor], Tensor] = torch.ones_like) -> Generator:
    """Gaussian noise with the mean cross-spectrum of ``residuals`` ``(N, 3, H, W)``, times ``deviation(clean)``."""
    spectra = torch.fft.fft2(residuals)
    cross = torch.einsum("nihw,njhw->hwij", spectra, spectra.conj()) / (len(residuals) * residuals[0, 0].numel())
    values, vectors = torch.linalg.eigh(cross)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mH

    def run(clean: Tensor, seeds: Sequence[int]) -> Tensor:
        shape = clean.shape[1:]
        white = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        noise = torch.fft.ifft2(torch.einsum("hwij,njhw->nihw", root, torch.fft.fft2(white.to(torch.float64)))).real
        return clean + (noise * deviation(clean)).to(clean.dtype)

    return run


def redrawn(clean: Tensor, residuals: Tensor) -> Generator:
    """Real residual blocks from other crops, of the nearest brightness (R, G, B) and texture."""

    def blocks(x: Tensor) -> Tensor:
        return x.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).permute(0, 2, 3, 1, 4, 5)

    def describe(x: Tensor) -> Tensor:
        b = blocks(x)
        texture = b.mean(3).flatten(-2).std(-1).clamp(min=1 / 255).log()
        return torch.cat((b.mean((-2, -1)) * 10, texture[..., None]), -1).flatten(0, 2)

    pool = blocks(residuals).flatten(0, 2)
    features = describe(clean)
    per_crop = len(pool) // len(clean)
    crop_of = {clean[i].mean().item(): i for i in range(len(clean))}

    def run(batch: Tensor, seeds: Sequence[int]) -> Tensor:
        out = batch.clone()
        for n, (image, seed) in enumerate(zip(batch, seeds, strict=True)):
            own = crop_of[image.mean().item()]
            distance = torch.cdist(describe(image[None]), features)
            distance[:, own * per_crop : (own + 1) * per_crop] = torch.inf
            nearest = distance.topk(CANDIDATES, largest=False).indices
            pick = torch.randint(CANDIDATES, (len(nearest), 1), generator=torch.Generator().manual_seed(seed))
            chosen = pool[nearest.gather(1, pick)[:, 0]]
            columns = image.shape[2] // BLOCK
            for k, block in enumerate(chosen):
                y, x = k // columns * BLOCK, k % columns * BLOCK
                out[n, :, y : y + BLOCK, x : x + BLOCK] += block.to(out.dtype)
        return out

    return run


def figures(draws: list[Tensor], real: Tensor, clean: Tensor, window: int | None, flat: bool) -> dict[str, Any]:
    """Statistics of one row, from its first draw; distances are from the real noise."""
    ours = [[residual_of(y, x, window) for y, x in zip(draw, clean, strict=True)] for draw in draws]
    theirs = [residual_of(y, x, window) for y, x in zip(real, clean, strict=True)]
    found = measure_noise(zip(draws[0], clean, strict=True), window, flat).as_dict()
    found["low_pass_sigma"] = float(torch.cat([images.downscale_bicubic(r[None], 4) for r in ours[0]]).std())
    if flat:
        masks = [flat_mask(x) for x in clean]
        found["kld"] = histogram_kld(*([r[:, m] for r, m in zip(rs, masks, strict=True)] for rs in (theirs, ours[0])))
        found["akld"] = found["akld_of_two_draws"] = None
    else:
        found["kld"] = histogram_kld(theirs, ours[0])
        found["akld"] = sum(akld(theirs, draw) for draw in ours) / len(ours)
        found["akld_of_two_draws"] = akld(ours[0], ours[1]) if len(ours) > 1 else None
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    head = [
        "noise",
        "sigma R / G / B",
        "sigma by brightness 8-48 / -96 / -160 / -247",
        "lag-1 h / v",
        "lag-2 h / v",
        "corr. RG / GB / RB",
        "low-pass sigma",
        "KLD",
        "AKLD",
        "AKLD of two draws",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for label, f in rows.items():
        cells = [
            label,
            many(f["sigma"], 255, 2),
            many(f["sigma_by_brightness"], 255, 1),
            many([f["lag1_h"], f["lag1_v"]], 1, 2),
            many([f["lag2_h"], f["lag2_v"]], 1, 2),
            many(f["channel_correlation"], 1, 2),
            f"{255 * f['low_pass_sigma']:.2f}",
            f"{f['kld']:.4f}",
            many([f["akld"]], 1, 3),
            many([f["akld_of_two_draws"]], 1, 3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def many(values: Sequence[float | None], factor: float, digits: int) -> str:
    return " / ".join("-" if v is None else f"{factor * v:.{digits}f}" for v in values)
