"""What noise looks like in numbers: statistics of the residual ``noisy - reference`` of aligned pairs.

A pair is two images of one size, float in [0, 1] or uint8, as tensors ``(3, H, W)`` or arrays ``(H, W, 3)``.
Everything is computed in float64; every sigma is on the [0, 1] scale.

Definitions of the flat-region mask and of the local mean are those of the measured table that this project keeps
with its pairs of real photographs, so that figures can be compared:

* *flat*: the 9x9 standard deviation of the reference's grey value (mean of R, G, B) is below 2.5 / 255, and all three
  channels of the reference lie within 8..247 of 255 everywhere in that 9x9 window;
* *local mean*: 65x65 box average, edge pixels repeated; taking it off removes brightness drift between two shots.

Sets of pairs are pooled: variances as means weighted by pixels, correlations, kurtosis and spectrum likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = [
    "BRIGHTNESS_EDGES",
    "LOCAL_MEAN_WINDOW",
    "NoiseStatistics",
    "Pair",
    "akld",
    "as_planes",
    "flat_mask",
    "histogram_kld",
    "local_mean",
    "measure_noise",
    "residual_of",
]

Image = Tensor | np.ndarray
Pair = tuple[Image, Image]

#: Edges of the brightness bins, on the [0, 1] scale.
BRIGHTNESS_EDGES = (8 / 255, 48 / 255, 96 / 255, 160 / 255, 247 / 255)
LOCAL_MEAN_WINDOW = 65

_FLAT_WINDOW = 9
_FLAT_SIGMA = 2.5 / 255
_LAGS = {"lag1_h": (0, 1), "lag1_v": (1, 0), "lag1_diag": (1, 1), "lag2_h": (0, 2), "lag2_v": (2, 0)}
_SPECTRUM_TILE = 64
_SPECTRUM_BINS = 16


@dataclass(frozen=True)
class NoiseStatistics:
    """Figures of a set of pairs; ``None`` where no pixel of the set qualifies."""

    #: Pixels that counted, and their share of all.
    pixels: int
    flat_fraction: float
    #: Standard deviation of R, G, B, [0, 1] scale.
    sigma: tuple[float, float, float]
    #: Root mean square over channels, one entry per bin between :data:`BRIGHTNESS_EDGES` of the reference's 9x9 mean.
    sigma_by_brightness: tuple[float | None, ...]
    #: Correlation with the neighbour one or two pixels to the right, below, or to the lower right; mean of channels.
    lag1_h: float
    lag1_v: float
    lag1_diag: float
    lag2_h: float
    lag2_v: float
    #: RG, GB, RB.
    channel_correlation: tuple[float, float, float]
    #: 0 for a Gaussian; mean of channels.
    excess_kurtosis: float
    #: Power density, mean of channels, in 16 rings of 0..0.5 cycles per pixel; white noise of variance v gives v in
    #: each.  ``None`` where no 64x64 tile qualifies (with ``flat_only``, one that is 90% flat).
    power_spectrum: tuple[float, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and ``None``: what JSON can hold."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def measure_noise(pairs: Iterable[Pair], mean_window: int | None = None, flat_only: bool = False) -> NoiseStatistics:
    """Statistics of a set of (noisy, reference) pairs.

    Args:
        pairs: images of any sizes, at least 9x9, the same size within a pair.
        mean_window: side of the local mean to take off each residual first, odd; None leaves residuals alone.
        flat_only: count only flat, unsaturated pixels of the reference.

    Raises:
        ShapeError: no pairs, wrong shapes, or no pixel that counts.
    """
    parts = []
    total = 0
    for noisy, reference in pairs:
        clean = as_planes(reference, "reference")
        residual = residual_of(noisy, reference, mean_window)
        mask = flat_mask(reference) if flat_only else torch.ones(clean.shape[1:], dtype=torch.bool)
        total += mask.numel()
        if int(mask.sum()) > 1:
            parts.append(_measure_one(residual, clean, mask))
    if not parts:
        raise ShapeError(f"measure_noise: no pixel counts (flat_only={flat_only}, {total} pixels given)")
    return _pool(parts, total)


def as_planes(image: Image, name: str) -> Tensor:
    """Any accepted image as float64 ``(3, H, W)`` in [0, 1]; ``name`` is what an error calls it.

    Raises:
        ShapeError: not RGB, or smaller than 9x9.
    """
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
        if image.ndim == 3:
            image = image.permute(2, 0, 1)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"{name}: expected a tensor (3, H, W) or an array (H, W, 3), got shape {tuple(image.shape)}")
    if min(image.shape[1:]) < _FLAT_WINDOW:
        raise ShapeError(f"{name}: expected at least 9x9 pixels, got {image.shape[1]}x{image.shape[2]}")
    planes = image.to(torch.float64)
    return planes / 255 if image.dtype == torch.uint8 else planes


def residual_of(noisy: Image, reference: Image, mean_window: int | None = None) -> Tensor:
    """``noisy - reference`` as float64 ``(3, H, W)``, its local mean taken off if a window is given.

    Raises:
        ShapeError: sizes differ, or an image is not RGB.
    """
    a, b = as_planes(noisy, "noisy"), as_planes(reference, "reference")
    if a.shape != b.shape:
        raise ShapeError(f"residual_of: noisy {tuple(a.shape)} and reference {tuple(b.shape)} differ in size")
    difference = a - b
    return difference if mean_window is None else difference - local_mean(difference, mean_window)


def local_mean(x: Tensor, window: int) -> Tensor:
    """Box average of odd side ``window`` with edge pixels repeated; ``(C, H, W)`` -> ``(C, H, W)``."""
    if window < 1 or window % 2 == 0:
        raise ShapeError(f"local_mean: expected an odd window, got {window}")
    half = window // 2
    padded = F.pad(x[None], (half, half, half, half), mode="replicate")[0]
    return _sliding_mean(_sliding_mean(padded, window).transpose(1, 2), window).transpose(1, 2)


def _sliding_mean(x: Tensor, window: int) -> Tensor:
    """Along the last axis, by differences of running sums: the cost does not grow with the window."""
    sums = F.pad(x.cumsum(-1), (1, 0))
    return (sums[..., window:] - sums[..., :-window]) / window


def flat_mask(reference: Image) -> Tensor:
    """Flat, unsaturated pixels of a reference image, bool ``(H, W)``; see the module's docstring."""
    clean = as_planes(reference, "reference")
    grey = clean.mean(0, keepdim=True)
    variance = local_mean(grey.square(), _FLAT_WINDOW) - local_mean(grey, _FLAT_WINDOW).square()
    # A margin of a millionth: 8 / 255 as float32 may come out on either side.
    saturated = ((clean < 8 / 255 - 1e-6) | (clean > 247 / 255 + 1e-6)).any(0).to(torch.float64)
    touched = F.max_pool2d(saturated[None], _FLAT_WINDOW, stride=1, padding=_FLAT_WINDOW // 2)[0]
    return (variance[0] < _FLAT_SIGMA**2) & (touched == 0)


def histogram_kld(real: Sequence[Tensor], generated: Sequence[Tensor]) -> float:
    """Forward Kullback-Leibler divergence KL(real || generated) of residual histograms, in nats.

    256 equal bins over [-1, 1], all channels and images of a set pooled; values outside count in the last bins.
    A bin that only ``real`` fills counts as half a pixel of ``generated``, so that the figure stays finite.
    """
    p, q = _histogram(real), _histogram(generated)
    used = p > 0
    p, q = p[used] / p.sum(), q[used].clamp(min=0.5) / q.sum()
    return float((p * (p / q).log()).sum())


def akld(real: Sequence[Tensor], generated: Sequence[Tensor]) -> float:
    """Average KL divergence between zero-mean Gaussians of local variance (Yue et al., "Dual Adversarial Network",
    ECCV 2020): ``0.5 mean(r - 1 - ln r)``, r = local variance generated / real, clamped to [0.1, 10].

    The local variance is the squared residual, blurred by the 7x7 kernel that OpenCV's ``getGaussianKernel(7, -1)``
    gives (close to a Gaussian of sigma 1.4), at least 1e-10.  Residuals are
    those of the *same* images, ``(3, H, W)`` each; the mean is over pixels, then over images.

    Raises:
        ShapeError: the two lists do not match image by image.
    """
    if len(real) != len(generated) or not real:
        raise ShapeError(f"akld: expected two lists of one length, got {len(real)} and {len(generated)} residuals")
    distances = []
    for a, b in zip(real, generated, strict=True):
        if a.shape != b.shape:
            raise ShapeError(f"akld: residuals of one image differ in size: {tuple(a.shape)} and {tuple(b.shape)}")
        ratio = (_local_variance(b) / _local_variance(a)).clamp(0.1, 10)
        distances.append(float(0.5 * (ratio - 1 - ratio.log()).mean()))
    return sum(distances) / len(distances)


def _histogram(residuals: Sequence[Tensor]) -> Tensor:
    if not residuals:
        raise ShapeError("histogram_kld: expected at least one residual, got none")
    total = torch.zeros(256, dtype=torch.float64)
    for residual in residuals:
        index = ((residual.to(torch.float64) + 1) * 128).floor().clamp(0, 255).to(torch.int64)
        total += torch.bincount(index.flatten(), minlength=256)
    return total


def _local_variance(residual: Tensor) -> Tensor:
    # OpenCV takes this table, not the formula, for a 7-tap kernel of unstated sigma.
    kernel = torch.tensor([2, 7, 14, 18, 14, 7, 2], dtype=torch.float64) / 64
    squared = F.pad(residual.to(torch.float64).square()[:, None], (3, 3, 3, 3), mode="reflect")
    blurred = F.conv2d(F.conv2d(squared, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1))
    return blurred[:, 0].clamp(min=1e-10)


@dataclass(frozen=True)
class _Part:
    """Figures of one pair, with what is needed to pool them."""

    pixels: int
    variance: Tensor  # (3,)
    bin_squares: Tensor  # (bins,) sum over channels and pixels
    bin_counts: Tensor  # (bins,)
    correlations: Tensor  # (lags + 3,) the three channel correlations last
    kurtosis: float
    spectrum: Tensor  # (rings,) mean over tiles
    tiles: int


def _measure_one(residual: Tensor, clean: Tensor, mask: Tensor) -> _Part:
    values = residual[:, mask]
    values = values - values.mean(1, keepdim=True)
    variance = values.square().mean(1)
    bin_squares, bin_counts = _by_brightness(values, clean, mask)
    lags = [_lag_correlation(residual, mask, dy, dx) for dy, dx in _LAGS.values()]
    channels = [_pearson(values[i], values[j]) for i, j in ((0, 1), (1, 2), (0, 2))]
    fourth = values.pow(4).mean(1) / variance.clamp(min=1e-30).square()
    spectrum, tiles = _spectrum(residual, mask)
    return _Part(
        pixels=values.shape[1],
        variance=variance,
        bin_squares=bin_squares,
        bin_counts=bin_counts,
        correlations=torch.tensor([*lags, *channels], dtype=torch.float64),
        kurtosis=float(fourth.mean()) - 3,
        spectrum=spectrum,
        tiles=tiles,
    )


def _pool(parts: list[_Part], total: int) -> NoiseStatistics:
    pixels = sum(part.pixels for part in parts)
    weights = torch.tensor([part.pixels / pixels for part in parts], dtype=torch.float64)
    sigma = (weights @ torch.stack([part.variance for part in parts])).sqrt().tolist()
    correlations = (weights @ torch.stack([part.correlations for part in parts])).tolist()
    squares = torch.stack([part.bin_squares for part in parts]).sum(0)
    counts = torch.stack([part.bin_counts for part in parts]).sum(0)
    tiles = sum(part.tiles for part in parts)
    spectrum = torch.stack([part.spectrum * part.tiles for part in parts]).sum(0)
    return NoiseStatistics(
        pixels=pixels,
        flat_fraction=pixels / total,
        sigma=(sigma[0], sigma[1], sigma[2]),
        sigma_by_brightness=tuple(
            float((square / count).sqrt()) if count > 0 else None for square, count in zip(squares, counts, strict=True)
        ),
        **dict(zip(_LAGS, correlations, strict=False)),
        channel_correlation=(correlations[-3], correlations[-2], correlations[-1]),
        excess_kurtosis=float(weights @ torch.tensor([part.kurtosis for part in parts], dtype=torch.float64)),
        power_spectrum=tuple((spectrum / tiles).tolist()) if tiles else None,
    )


def _by_brightness(values: Tensor, clean: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squares and count of ``values`` ``(3, n)`` in each bin of the reference's local brightness."""
    brightness = local_mean(clean.mean(0, keepdim=True), _FLAT_WINDOW)[0][mask].contiguous()
    edges = torch.tensor(BRIGHTNESS_EDGES, dtype=torch.float64)
    # 0 and len(edges) stand for "outside", and are dropped.
    index = torch.bucketize(brightness, edges, right=True)
    bins = len(BRIGHTNESS_EDGES) - 1
    squares = torch.bincount(index, weights=values.square().sum(0), minlength=bins + 2)[1 : bins + 1]
    counts = 3 * torch.bincount(index, minlength=bins + 2)[1 : bins + 1].to(torch.float64)
    return squares, counts


def _lag_correlation(residual: Tensor, mask: Tensor, dy: int, dx: int) -> float:
    height, width = mask.shape
    here = (slice(None), slice(0, height - dy), slice(0, width - dx))
    there = (slice(None), slice(dy, None), slice(dx, None))
    both = mask[here[1:]] & mask[there[1:]]
    if int(both.sum()) < 2:
        return 0.0
    a, b = residual[here][:, both], residual[there][:, both]
    return sum(_pearson(a[c], b[c]) for c in range(3)) / 3


def _pearson(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = a.square().sum().sqrt() * b.square().sum().sqrt()
    # A residual that is constant (a noise-free pair) correlates with nothing.
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def _spectrum(residual: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """Mean Hann-windowed periodogram of the tiles that count, in rings; and how many tiles those are."""
    t = _SPECTRUM_TILE
    tiles = residual.unfold(1, t, t).unfold(2, t, t) if min(mask.shape) >= t else residual.new_zeros(3, 0, 0, t, t)
    share = (
        mask.to(torch.float64).unfold(0, t, t).unfold(1, t, t).mean((-2, -1)) if tiles.numel() else mask.new_zeros(0)
    )
    tiles = tiles[:, share >= 0.9] if tiles.numel() else tiles.reshape(3, 0, t, t)
    if tiles.shape[1] == 0:
        return torch.zeros(_SPECTRUM_BINS, dtype=torch.float64), 0
    window = torch.hann_window(t, dtype=torch.float64)
    window2d = window[:, None] * window[None]
    power = torch.fft.fft2(tiles * window2d).abs().square().mean((0, 1)) / window2d.square().sum()
    frequency = torch.fft.fftfreq(t, dtype=torch.float64)
    radius = (frequency[:, None].square() + frequency[None].square()).sqrt()
    ring = (radius * 2 * _SPECTRUM_BINS).floor().to(torch.int64).flatten()
    inside = ring < _SPECTRUM_BINS
    sums = torch.bincount(ring[inside], weights=power.flatten()[inside], minlength=_SPECTRUM_BINS)
    return sums / torch.bincount(ring[inside], minlength=_SPECTRUM_BINS), tiles.shape[1]
