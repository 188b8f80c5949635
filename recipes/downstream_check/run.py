"""Does a learned degradation help what is trained on it?  Small networks, same steps, other pairs, real test images.

    python recipes/deflow_small/prepare.py --data ../shared/data
    python recipes/downstream_check/run.py --weights deflow_small --photos ../shared/data/clean_test

Two tasks (BasicSR's SRVGGNetCompact, L1 loss, Adam): x4 super-resolution and x1 denoising.  Three kinds of training
pairs from the same crops of the same clean photographs: bicubic only; with Gaussian noise whose covariance is fitted
to the *test* pairs (an advantage that ours has not); and through DeFlow.  See README.md for the tests.

Each finished run is kept in ``--out`` and skipped when the command is given again; ``--tiny`` tries the whole in about
a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from synthpipe import checkpoints, images
from synthpipe.basicsr_plugin.compat import prepare as prepare_basicsr
from synthpipe.config.degrade import ClassicalDegradeOptions, GaussianNoiseOptions
from synthpipe.noise_fit import fit_gaussian
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

PAIRS = ("bicubic", "gaussian", "deflow")
SCALES = {"sr_x4": 4, "denoise_x1": 1}
#: Side of the degraded training tiles, LR pixels; BSDS photographs reduced by 4 just hold it.
TILE = {"sr_x4": 80, "denoise_x1": 96}
PATCH = {"sr_x4": 32, "denoise_x1": 48}
BORDER = 4


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    steps: int
    seeds: int
    tiles: int
    batch: int
    features: int
    layers: int
    pairs: int
    photos: int


def main() -> None:
    args = parse_arguments()
    prepare_basicsr()
    size = Size(20, 1, 8, 2, 8, 2, 2, 1) if args.tiny else Size(args.steps, args.seeds, 400, 8, 16, 5, 24, 12)
    args.out.mkdir(parents=True, exist_ok=True)
    # Runs are kept by name: with other weights they have to be made again.
    digest = hashlib.sha256(checkpoints.resolve(args.weights).read_bytes()).hexdigest()[:8]
    real = load_real(args.pairs, size.pairs)
    photos = load_photos(args.photos, size.photos)
    results: dict[str, dict[str, list[float]]] = {"as it comes": {k: [v] for k, v in baseline(real, photos).items()}}
    for kind in args.kinds:
        transforms = {task: make_transform(kind, scale, args, real) for task, scale in SCALES.items()}
        rows: dict[str, list[float]] = {}
        for task, transform in transforms.items():
            tiles = None
            for seed in range(size.seeds):
                path = args.out / f"{task}_{kind}{digest if kind == 'deflow' else ''}_{seed}_{size.steps}.pt"
                net = make_net(task, size)
                if path.is_file():
                    net.load_state_dict(torch.load(path, weights_only=True))
                else:
                    tiles = tiles or make_tiles(args.clean, transform, task, size)
                    train(net, tiles, task, seed, size, label=f"{task} {kind} seed {seed}")
                    torch.save(net.state_dict(), path)
                for name, value in evaluate(net.eval(), task, real, photos).items():
                    rows.setdefault(name, []).append(value)
        results[kind] = rows
        (args.out / "results.json").write_text(json.dumps({"size": size.__dict__, "psnr_db": results}, indent=1))
    text = table(results)
    (args.out / "results.md").write_text(text + "\n")
    print(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="deflow_small", help="DeFlow weights")
    parser.add_argument(
        "--clean", type=Path, default=Path("runs/deflow_small/train/clean"), help="training photographs"
    )
    parser.add_argument("--pairs", type=Path, default=Path("runs/deflow_small/held_back"), help="held-back real pairs")
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/clean_test"), help="held-back photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/downstream_check"))
    parser.add_argument("--kinds", nargs="+", choices=PAIRS, default=PAIRS, help="training pairs to compare")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="try the whole in about a minute; its figures mean nothing")
    return parser.parse_args()


# --- data ---


def load_real(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Held-back pairs ``clean``, ``noisy`` ``(N, 3, 256, 256)``, evenly spread over the scenes."""
    names = sorted(path.name for path in (folder / "clean").iterdir())
    names = [names[i * len(names) // count] for i in range(min(count, len(names)))]
    clean, noisy = (torch.stack([read(folder / side / name) for name in names]) for side in ("clean", "noisy"))
    return clean, noisy


def load_photos(folder: Path, count: int) -> list[Tensor]:
    """Held-back clean photographs, Kodak's where they are."""
    paths = sorted(folder.glob("kodim*")) or sorted(folder.glob("*.png")) or sorted(folder.glob("*.jpg"))
    if not paths:
        raise SystemExit(f"{folder}: no photographs; give a folder of clean ones with --photos")
    return [images.crop_to_multiple(read(path)[None], 4) for path in paths[:count]]


def read(path: Path) -> Tensor:
    return images.to_float(torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1))


def make_transform(kind: str, scale: int, args: argparse.Namespace, real: tuple[Tensor, Tensor]) -> BatchTransform:
    if kind == "deflow":
        return DeFlowDegrade(checkpoints.load(args.weights, kind="deflow"), scale)
    if kind == "bicubic":
        return ClassicalDegrade(ClassicalDegradeOptions(), scale)
    fit = fit_gaussian(zip(real[1], real[0], strict=True), LOCAL_MEAN_WINDOW)
    return ClassicalDegrade(ClassicalDegradeOptions(noise=GaussianNoiseOptions(covariance=fit.covariance)), scale)


def make_tiles(folder: Path, transform: BatchTransform, task: str, size: Size) -> tuple[Tensor, Tensor]:
    """uint8 ``gt``, ``lq`` tiles, one of each photograph, the same ``gt`` for every kind of pairs.

    Made once and drawn from again and again, which is cheaper here than degrading on the fly; patches are random.
    """
    paths = sorted(folder.iterdir())
    paths = [paths[i * len(paths) // size.tiles] for i in range(min(size.tiles, len(paths)))]
    side = TILE[task] * SCALES[task]
    gts, lqs = [], []
    for path in paths:
        generator = torch.Generator().manual_seed(sample_seed(0, 0, path.name))
        image = read(path)
        y, x = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[1:])
        gt = image[None, :, y : y + side, x : x + side]
        batch = {"gt": gt, "key": [path.name], "seed": torch.tensor([sample_seed(0, 0, path.name)])}
        gts.append(images.to_uint8(gt))
        lqs.append(images.to_uint8(transform(batch)["lq"]))
    return torch.cat(gts), torch.cat(lqs)


def draw_batches(tiles: tuple[Tensor, Tensor], task: str, seed: int, size: Size) -> Iterator[tuple[Tensor, Tensor]]:
    """Aligned patches, flipped at random, for ever."""
    gt, lq = tiles
    scale, patch = SCALES[task], PATCH[task]
    rng = np.random.default_rng(seed)
    while True:
        pairs = []
        for _ in range(size.batch):
            n, y, x = rng.integers(len(lq)), *rng.integers(0, lq.shape[-1] - patch + 1, 2)
            a = gt[n, :, y * scale : (y + patch) * scale, x * scale : (x + patch) * scale]
            b = lq[n, :, y : y + patch, x : x + patch]
            pairs.append((a.flip(-1), b.flip(-1)) if rng.integers(2) else (a, b))
        yield images.to_float(torch.stack([a for a, _ in pairs])), images.to_float(torch.stack([b for _, b in pairs]))


# --- training ---


def make_net(task: str, size: Size) -> nn.Module:
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    return SRVGGNetCompact(num_feat=size.features, num_conv=size.layers, upscale=SCALES[task])


def train(net: nn.Module, tiles: tuple[Tensor, Tensor], task: str, seed: int, size: Size, label: str) -> None:
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    start = time.perf_counter()
    for step, (gt, lq) in zip(range(size.steps), draw_batches(tiles, task, seed, size), strict=False):
        loss = (net(lq) - gt).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{label}: step {step + 1}, l1 {loss.item():.4f}, {time.perf_counter() - start:.0f} s", flush=True)


# --- tests ---


@torch.no_grad()
def evaluate(net: nn.Module, task: str, real: tuple[Tensor, Tensor], photos: list[Tensor]) -> dict[str, float]:
    clean, noisy = real
    if task == "denoise_x1":
        return {"denoise: real pairs": mean_psnr(zip((net(y[None]) for y in noisy), clean, strict=True))}
    reduced = (images.downscale_bicubic(net(y[None]), 4) for y in noisy)
    transplanted = transplant(photos, real)
    return {
        "sr: real crop, reduced back": mean_psnr(zip(reduced, clean, strict=True)),
        "sr: photo with real noise": mean_psnr((net(lq), gt[0]) for lq, gt in zip(transplanted, photos, strict=True)),
        "sr: photo without noise": mean_psnr((net(reduce_by_4(gt)), gt[0]) for gt in photos),
    }


def baseline(real: tuple[Tensor, Tensor], photos: list[Tensor]) -> dict[str, float]:
    """No network: the noisy image itself, and bicubic enlargement."""

    def enlarge(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)

    clean, noisy = real
    lqs = transplant(photos, real)
    return {
        "denoise: real pairs": mean_psnr(zip(noisy[:, None], clean, strict=True)),
        "sr: real crop, reduced back": mean_psnr(
            (images.downscale_bicubic(enlarge(y[None]), 4), x) for y, x in zip(noisy, clean, strict=True)
        ),
        "sr: photo with real noise": mean_psnr((enlarge(lq), gt[0]) for lq, gt in zip(lqs, photos, strict=True)),
        "sr: photo without noise": mean_psnr((enlarge(reduce_by_4(gt)), gt[0]) for gt in photos),
    }


def reduce_by_4(gt: Tensor) -> Tensor:
    return images.quantize_8bit(images.downscale_bicubic(gt, 4))


def transplant(photos: list[Tensor], real: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Each photograph reduced by 4, plus the residual of the real pair whose brightness is nearest."""
    clean, noisy = real
    levels = clean.mean((1, 2, 3))
    out = []
    for photo in photos:
        small = reduce_by_4(photo)
        n = int((levels - small.mean()).abs().argmin())
        noise = residual_of(noisy[n], clean[n], LOCAL_MEAN_WINDOW).to(small.dtype)
        out.append(images.quantize_8bit(small + noise[None, :, : small.shape[2], : small.shape[3]]))
    return out


def mean_psnr(results: Iterator[tuple[Tensor, Tensor]] | zip[tuple[Tensor, Tensor]]) -> float:
    """Mean over images, RGB, 8-bit results, without a border of 4 pixels; ``(1, 3, H, W)`` against ``(3, H, W)``."""
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    errors = [(images.quantize_8bit(y[0])[inner] - x[inner]).square().mean().item() for y, x in results]
    return statistics.fmean(-10 * math.log10(max(error, 1e-10)) for error in errors)


def table(results: dict[str, dict[str, list[float]]]) -> str:
    columns = list(results["as it comes"])
    lines = ["| trained on | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for kind, rows in results.items():
        cells = [" / ".join(f"{value:.2f}" for value in rows[column]) for column in columns]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
