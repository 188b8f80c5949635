"""What :mod:`fit` learns from: features and truths of simulated images and of crops of real pairs.

Simulated noise goes on BSDS photographs (every 8th by name is left for judging) and on references of the pairs that
settings are chosen on; the crops are of those pairs, 6 to 50 of each.  A reference that is a JPEG file has an error of
its own: coding it again on a grid displaced by 4 pixels says how much, and that is taken off.

Legend: N samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from simulate import Sample, in_grey, jpeg, measured, simulate, simulate_coloured, simulate_uneven
from torch import Tensor

from synthpipe.files.decode import decode_image
from synthpipe.files.image_files import list_images
from synthpipe.flat_noise.block_features import block_features
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, flat_mask, residual_of

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen

__all__ = ["Samples", "coding_error", "from_pairs", "on_references", "read", "simulated"]

#: Crops of each pair, by set.
CROPS = {"real_noise": 6, "real_noise_full": 50, "real_noise_sidd": 25}
_LEAST_FLAT, _LEAST_SHARE = 2500, 0.03
#: Every so manieth photograph is left out of what is learned from.
HELD_OUT = 8


@dataclass
class Samples:
    """Features, and what noise they are of; scale of 255."""

    #: ``(N, 3, FEATURES)``.
    features: Tensor
    #: ``(N, 3)``.
    sigma: Tensor
    #: ``(N, 3, 5, 5)``.
    lags: Tensor
    #: ``(N, 3)``: RG, GB, RB.
    correlation: Tensor

    def __add__(self, other: Samples) -> Samples:
        return Samples(*(torch.cat([getattr(s, field.name) for s in (self, other)]) for field in fields(self)))


def simulated(
    data: Path, count: int, seed: int, held_out: bool = False, coloured: bool = False, grey: bool = False
) -> Samples:
    """``count`` simulated images; of the photographs that are held out, or of the others; of plain coloured noise."""
    make = simulate_coloured if coloured else simulate
    paths = list_images(data / "clean_train")
    photographs = [read(path) for at, path in enumerate(paths) if (at % HELD_OUT == 0) == held_out]
    references = [] if held_out else [read(p) for p in list_images(data / "real_noise" / "clean") if is_chosen(p.name)]

    def draw() -> Iterator[Sample]:
        for at in range(count):
            rng = np.random.default_rng([seed, at])
            group = references if references and rng.random() < 0.1 else photographs
            yield make(group[int(rng.integers(len(group)))].float() / 255, rng, grey)

    return _collect(draw())


def on_references(data: Path, count: int, seed: int, uneven: bool = False, grey: bool = False) -> Samples:
    """``count`` simulated images on the references of pairs alone: soft, as cameras are at 100%, and clean."""
    make = simulate_uneven if uneven else simulate
    folders = [data / name / "clean" for name in ("real_noise", "real_noise_full")]
    crops, frames = ([read(path) for path in list_images(folder) if is_chosen(path.name)] for folder in folders)

    def draw() -> Iterator[Sample]:
        for at in range(count):
            rng = np.random.default_rng([seed, at, 1])
            group = crops if rng.random() < 0.3 else frames
            image = group[int(rng.integers(len(group)))]
            top, left = (int(rng.integers(0, size - 511)) for size in image.shape[1:])
            yield make(image[:, top : top + 512, left : left + 512].float() / 255, rng, grey)

    return _collect(draw())


def from_pairs(data: Path, seed: int, grey: bool = False) -> Samples:
    """Crops of the real pairs that settings are chosen on; ``grey``: of their luma."""

    def draw() -> Iterator[Sample]:
        rng = np.random.default_rng(seed)
        for folder, count in CROPS.items():
            for path in list_images(data / folder / "noisy"):
                if not is_chosen(path.name):
                    continue
                noisy, reference = read(path), read(next((data / folder / "clean").glob(path.stem + ".*")))
                if grey:
                    noisy, reference = luma(noisy), luma(reference)
                for _ in range(count):
                    side = int(rng.integers(160, min(480, *noisy.shape[1:]) + 1))
                    top, left = (int(rng.integers(0, size - side + 1)) for size in noisy.shape[1:])
                    where = (slice(None), slice(top, top + side), slice(left, left + side))
                    sample = _of_pair(noisy[where], reference[where], coded=folder != "real_noise_sidd")
                    if sample is not None:
                        yield sample

    return _collect(draw())


def _of_pair(noisy: Tensor, reference: Tensor, coded: bool) -> Sample | None:
    """Of the flat pixels; None where they are few."""
    mask = flat_mask(reference)
    if int(mask.sum()) < max(_LEAST_FLAT, _LEAST_SHARE * mask.numel()):
        return None
    sample = measured(noisy, residual_of(noisy, reference, LOCAL_MEAN_WINDOW).float(), mask)
    variance = sample.sigma.square() - 1 / 12  # a residual holds the rounding of its images
    if coded:
        variance = (variance - coding_error(reference).square()).maximum(0.4 * variance)
    sample.sigma = variance.sqrt()
    return sample


def coding_error(reference: Tensor) -> Tensor:
    """Error ``(3,)`` that JPEG has left in flat pixels of a reference, by coding it again on a displaced grid."""
    inner = reference[:, 4:-4, 4:-4]
    again = residual_of(jpeg(inner, 75, 2), inner, LOCAL_MEAN_WINDOW)[:, flat_mask(reference)[4:-4, 4:-4]]
    return (again.var(1).sqrt() * 255).nan_to_num().float()  # no flat pixel: nothing is known


def _collect(samples: Iterator[Sample]) -> Samples:
    rows = []
    for sample in samples:
        features = block_features(sample.image.float() / 255)
        if features is not None:
            rows.append((features, sample.sigma, sample.lags, sample.correlation))
            if len(rows) % 500 == 0:
                print(f"{len(rows)} samples", flush=True)
    return Samples(*(torch.stack(column) for column in zip(*rows, strict=True)))


def luma(image: Tensor) -> Tensor:
    """Rec. 601 of uint8 ``(3, H, W)``, in all three channels."""
    weighted = image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return in_grey(3 * weighted).round().clamp(0, 255).byte()


def read(path: Path) -> Tensor:
    """``(3, H, W)`` uint8."""
    return torch.from_numpy(decode_image(path.read_bytes(), str(path))[0]).permute(2, 0, 1)
