r"""What the reference of a real pair adds to its residual that is no noise: its own JPEG coding, and its place.

    python recipes/deflow_cameras/reference_errors.py ../shared/data/real_noise_full/clean   # how well it is estimated

PolyU's references are JPEG files of quality 75 with chroma at half the size, and lie up to 0.7 pixels beside their
shot.  A residual is then ``noise + e``: what coding took from the reference, ``e = x - J(x)``, is in it, and
independent of the noise.  x is not known.  The mean of codings of ``J(x)`` on eight other grids takes its place, which
undoes the blocks (Nosratinia 2001, "Enhancement of JPEG-compressed images by re-application of JPEG"), and that is
coded once more, off the file's grid: :func:`coding_error`.  No setting is fitted.

Covariances of ``e`` are taken off those of real residuals (:class:`Moments`); where a distribution is wanted, ``e`` is
added to what a generator makes, so that both sides carry it.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from synthpipe.images import downscale_bicubic, quantize_8bit, to_float, to_uint8
from synthpipe.noise_statistics import BRIGHTNESS_EDGES, LOCAL_MEAN_WINDOW, flat_mask, local_mean

# Registration is the proof's, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "real_world"))
from registration import MARGIN, moved, shift_between

__all__ = ["Moments", "Registered", "coded", "coding_error", "moments", "register"]

#: Quality of the data set's references, whose chroma has half the size.
QUALITY = 75
#: Rows and columns that an image is moved by before it is coded: the grids that the mean is taken over, and the last.
GRIDS = ((1, 3), (3, 14), (5, 9), (7, 5), (9, 0), (11, 11), (13, 6), (15, 2))
LAST_GRID = (3, 5)
_BRIGHTNESS_WINDOW = 9


@dataclass(frozen=True)
class Registered:
    """Pairs ``(N, 3, H, W)`` in [0, 1], each reference on its shot, and the error of its coding moved with it."""

    clean: Tensor
    noisy: Tensor
    error: Tensor


@dataclass(frozen=True)
class Moments:
    """Second moments of residuals over the pixels that count, float64, [0, 1] scale; those of a sum of independent
    residuals are their sums."""

    #: ``(3, 3)`` of R, G, B.
    covariance: Tensor
    #: ``(bins,)``: variance, mean of channels, between :data:`BRIGHTNESS_EDGES`; NaN where there is no pixel.
    by_brightness: Tensor
    #: ``(2, 3)``: covariance with the neighbour to the right and below, by channel.
    lag1: Tensor

    def __sub__(self, other: Moments) -> Moments:
        """What is left without an independent part."""
        return Moments(
            *(getattr(self, name) - getattr(other, name) for name in ("covariance", "by_brightness", "lag1"))
        )

    def as_dict(self) -> dict[str, Any]:
        """Figures by the names that :func:`synthpipe.noise_statistics.measure_noise` has for them."""
        sigma = self.covariance.diagonal().clamp(min=1e-12).sqrt()
        correlation = self.covariance / sigma[:, None] / sigma
        lags = (self.lag1 / sigma.square()).mean(1).tolist()
        bins = self.by_brightness.clamp(min=1e-12).sqrt().tolist()
        return {
            "sigma": sigma.tolist(),
            "sigma_by_brightness": [None if value != value else value for value in bins],
            "lag1_h": lags[0],
            "lag1_v": lags[1],
            "channel_correlation": [float(correlation[i, j]) for i, j in ((0, 1), (1, 2), (0, 2))],
        }


def coded(image: Tensor, grid: tuple[int, int] = (0, 0)) -> Tensor:
    """``(3, H, W)`` in [0, 1] as a JPEG file like the references, on another grid."""
    pixels = to_uint8(image[None])[0].roll(grid, (1, 2)).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=2)
    decoded = torch.from_numpy(np.array(Image.open(file)))
    return to_float(decoded.permute(2, 0, 1)).roll((-grid[0], -grid[1]), (1, 2))


def coding_error(reference: Tensor) -> Tensor:
    """A draw of ``x - J(x)`` for a reference J(x), ``(3, H, W)`` in [0, 1], whose first pixel begins a coding unit."""
    unblocked = quantize_8bit(torch.stack([coded(reference, grid) for grid in GRIDS]).mean(0)[None])[0]
    return unblocked - coded(unblocked, LAST_GRID)


def register(clean: Tensor, noisy: Tensor) -> Registered:
    """References ``(N, 3, H, W)`` moved onto their shots, to their mean in R, G and B; cut by 16 pixels all around."""
    found = []
    for reference, shot in zip(clean, noisy, strict=True):
        grey = [255 * image.double().mean(0).numpy() for image in (shot, reference)]
        both = torch.cat([reference, coding_error(reference)]).double().numpy()
        both = torch.from_numpy(moved(both, shift_between(*grey)))[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        inner = shot[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        mean = (inner.double() - both[:3]).mean((1, 2), keepdim=True)
        found.append(((both[:3] + mean).clamp(0, 1).float(), inner, both[3:].float()))
    parts = [torch.stack(part) for part in zip(*found, strict=True)]
    return Registered(quantize_8bit(parts[0]), parts[1], parts[2])


def moments(residuals: Sequence[Tensor], clean: Sequence[Tensor], flat: bool) -> Moments:
    """Of residuals ``(3, H, W)`` of the references ``clean``, without their 65-pixel local mean."""
    edges = torch.tensor(BRIGHTNESS_EDGES, dtype=torch.float64)
    bins = len(edges) + 1  # the first and the last are outside
    covariance, lag1 = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    squares, counts = torch.zeros(2, bins, dtype=torch.float64)
    pairs = torch.zeros(2, 1, dtype=torch.float64)
    for residual, reference in zip(residuals, clean, strict=True):
        values = residual.double() - local_mean(residual.double(), LOCAL_MEAN_WINDOW)
        mask = flat_mask(reference) if flat else torch.ones(values.shape[1:], dtype=torch.bool)
        if not bool(mask.any()):
            continue
        values = (values - values[:, mask].mean(1)[:, None, None]) * mask
        counted = values[:, mask]
        covariance += counted @ counted.T
        brightness = local_mean(reference.double().mean(0, keepdim=True), _BRIGHTNESS_WINDOW)[0][mask].contiguous()
        index = torch.bucketize(brightness, edges, right=True)
        squares += torch.bincount(index, weights=counted.square().mean(0), minlength=bins)
        counts += torch.bincount(index, minlength=bins)
        lag1[0] += (values[:, :, 1:] * values[:, :, :-1]).sum((1, 2))
        lag1[1] += (values[:, 1:] * values[:, :-1]).sum((1, 2))
        pairs += torch.stack([(mask[:, 1:] & mask[:, :-1]).sum(), (mask[1:] & mask[:-1]).sum()])[:, None]
    return Moments(covariance / counts.sum(), (squares / counts)[1:-1], lag1 / pairs)


def main() -> None:
    """Estimated against true coding errors, of photographs reduced by 2, whose own coding is finer than that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photographs larger than 1536x1024")
    parser.add_argument("--every", type=int, default=2, help="take every so many of them")
    args = parser.parse_args()
    print("| reduced photographs | | sigma R / G / B | corr. RG / GB / RB | lag-1 h / v |\n|" + " --- |" * 5)
    for title, sigma in (("as they are", 0.0), ("blurred by 0.9 pixels", 0.9)):
        truth: list[Tensor] = []
        rows: dict[str, list[Tensor]] = {"true": [], "estimated": [], "coded again": []}
        for path in sorted(args.folder.iterdir())[:: args.every]:
            known = reduced(path, sigma)
            reference = coded(known)
            truth.append(reference)
            rows["true"].append(known - reference)
            rows["estimated"].append(coding_error(reference))
            rows["coded again"].append(reference - coded(reference, LAST_GRID))
        for name, errors in rows.items():
            found = moments(errors, truth, flat=True).as_dict()
            cells = (
                [255 * s for s in found["sigma"]],
                found["channel_correlation"],
                [found["lag1_h"], found["lag1_v"]],
            )
            print(f"| {title} | {name} | " + " | ".join(" / ".join(f"{v:.2f}" for v in cell) for cell in cells) + " |")


def reduced(path: Path, blur: float) -> Tensor:
    """The middle of a photograph, reduced by 2, ``(3, 512, 768)``, 8-bit levels; ``blur`` is a standard deviation."""
    pixels = np.array(Image.open(path).convert("RGB"))
    top, left = ((side - wanted) // 2 for side, wanted in zip(pixels.shape[:2], (1024, 1536), strict=True))
    image = to_float(torch.from_numpy(pixels[top : top + 1024, left : left + 1536]).permute(2, 0, 1))
    small = to_uint8(downscale_bicubic(image[None], 2))[0].permute(1, 2, 0).numpy()
    blurred = Image.fromarray(small).filter(ImageFilter.GaussianBlur(blur)) if blur else Image.fromarray(small)
    return to_float(torch.from_numpy(np.array(blurred)).permute(2, 0, 1))


if __name__ == "__main__":
    main()
