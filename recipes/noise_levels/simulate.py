"""Photographs with noise of known level and correlation, as varied as cameras, scans and codecs make it.

What :mod:`fit` learns from.  Everything is drawn from one ``numpy.random.Generator``; sigma is on the scale of 255.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthpipe.images import to_uint8
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, local_mean

#: Lags that are told: 0..4 rows and columns.
QUADRANT = 5
_LEAST_SIDE = 64
_FLAT = 2.5 / 255


@dataclass
class Sample:
    """One noisy image and what its noise is."""

    #: ``(3, H, W)`` uint8.
    image: Tensor
    #: ``(3,)``, scale of 255.
    sigma: Tensor
    #: ``(3, 5, 5)``: correlation of a channel with itself, by rows and columns of displacement.
    lags: Tensor
    #: ``(3,)``: RG, GB, RB.
    correlation: Tensor


def simulate(photograph: Tensor, rng: np.random.Generator, grey: bool = False) -> Sample:
    """Noise on one clean photograph ``(3, H, W)`` float in [0, 1], or on a drawn picture in its place; ``grey``: the
    same in all channels."""
    clean = in_grey(_content(photograph, rng), grey)
    sigma = 0.0 if rng.random() < 0.08 else float(np.exp(rng.uniform(math.log(0.6), math.log(50))))
    if rng.random() < 0.4:
        sigma = min(sigma, float(rng.uniform(0.6, 9)))
    camera = rng.random() < 0.4
    unit = camera_field(clean.shape[1:], rng) if camera else coloured_field(clean.shape[1:], rng)
    unit = _unit(in_grey(unit, grey)) if grey else unit
    noise = unit * _by_brightness(clean, rng) * sigma / 255
    final = to_uint8((clean + noise).clamp(0, 1)[None])[0]
    if rng.random() < (0.6 if camera else 0.2):
        final = jpeg(final, int(rng.integers(70, 99)), int(rng.choice([0, 1, 2])))
        mask = _flat_pixels(clean)
        noise = final.float() / 255 - clean
        noise = noise - local_mean(noise.double(), LOCAL_MEAN_WINDOW).float()
    else:
        mask = _unclipped(clean)
    return measured(final, noise, mask)


def simulate_uneven(photograph: Tensor, rng: np.random.Generator, grey: bool = False) -> Sample:
    """Weak noise as cameras leave it in places: stronger here, smoothed away there, and coded as JPEG."""
    clean = in_grey(_content(photograph, rng), grey)
    sigma = float(np.exp(rng.uniform(math.log(1), math.log(8))))
    size = clean.shape[1:]
    noise = in_grey(camera_field(size, rng), grey) * _by_brightness(clean, rng)
    fields = torch.from_numpy(rng.standard_normal((2, *size), dtype=np.float32))
    gain, smoothed = blurred(fields, float(np.exp(rng.uniform(math.log(3), math.log(16)))))
    noise = noise * (float(rng.uniform(0, 0.6)) * gain / gain.std()).exp()
    share = torch.sigmoid(2 * smoothed / smoothed.std() + float(rng.uniform(-3, 1)))
    noise = torch.lerp(noise, blurred(noise, float(rng.uniform(0.7, 2))), share)
    final = to_uint8((clean + noise / noise.square().mean().sqrt() * sigma / 255).clamp(0, 1)[None])[0]
    final = jpeg(final, int(rng.integers(84, 99)), int(rng.choice([0, 1, 2])))
    if rng.random() < 0.6:
        final = jpeg(final, int(rng.integers(70, 90)), 2)
    residual = final.double() / 255 - clean
    return measured(final, residual - local_mean(residual, LOCAL_MEAN_WINDOW), _flat_pixels(clean))


def simulate_coloured(photograph: Tensor, rng: np.random.Generator, grey: bool = False) -> Sample:
    """The same noise everywhere, of one spectrum with lag-1 correlation 0 to 0.9 and nothing done to it afterwards."""
    clean = in_grey(_content(photograph, rng), grey)
    sigma = float(np.exp(rng.uniform(math.log(2), math.log(25))))
    size = clean.shape[1:]
    rho = float(rng.uniform(0, 0.9))
    other = rho if rng.random() < 0.8 else float(rng.uniform(0, 0.9))
    if rng.random() < 0.65:
        power = _falling_power(size, other, rho)
    else:  # a Gaussian, of the width that has this correlation
        power = _blurred_power(size, 0.5 / math.sqrt(-math.log(max(rho, 1e-3))))
    fields = _of_power(torch.from_numpy(rng.standard_normal((4, *size), dtype=np.float32)), power)
    share = float(rng.choice([0.0, 0.9, rng.uniform(0, 1)], p=[0.4, 0.2, 0.4]))
    noise = math.sqrt(share) * fields[3:] + math.sqrt(1 - share) * fields[:3]
    noise = fields[3:].expand(3, -1, -1) if grey else noise
    gains = torch.tensor(np.exp(rng.normal(size=3) * 0.15), dtype=torch.float32)[:, None, None]
    noise = noise * (gains[:1] if grey else gains) * sigma / 255
    return measured(to_uint8((clean + noise).clamp(0, 1)[None])[0], noise, _unclipped(clean))


def in_grey(x: Tensor, grey: bool = True) -> Tensor:
    """``(3, H, W)``: the mean of the channels in each of them; as it is where ``grey`` is False."""
    return x.mean(0, keepdim=True).expand(3, -1, -1).contiguous() if grey else x


def _unit(noise: Tensor) -> Tensor:
    return noise / noise.square().mean().sqrt().clamp(min=1e-6)


def measured(image: Tensor, residual: Tensor, mask: Tensor) -> Sample:
    """What a residual ``(3, H, W)`` on the [0, 1] scale says where ``mask`` holds."""
    residual = residual.float() * 255
    weight = mask.float()
    many = weight.sum().clamp(min=1)
    residual = (residual - (residual * weight).sum((1, 2), keepdim=True) / many) * weight
    # Sums of products at all displacements, by padded Fourier transforms; the last plane counts the pairs.
    size = [side + QUADRANT for side in mask.shape]
    power = torch.fft.rfft2(torch.cat([residual, weight[None]]), s=size).abs().square()
    sums = torch.fft.irfft2(power, s=size)[:, :QUADRANT, :QUADRANT]
    lags = sums[:3] / sums[3].clamp(min=1)
    covariance = torch.einsum("ahw,bhw->ab", residual, residual) / many
    variance = covariance.diagonal()
    spread = variance.clamp(min=1e-6).sqrt()
    correlation = covariance / (spread[:, None] * spread)
    return Sample(
        image,
        (variance + 1 / 12).sqrt().float() if not bool((variance < 1e-6).all()) else variance.float(),
        (lags / lags[:, :1, :1].clamp(min=1e-6)).clamp(-1, 1).float(),
        torch.stack([correlation[0, 1], correlation[1, 2], correlation[0, 2]]).float(),
    )


def jpeg(image: Tensor, quality: int | None, subsampling: int) -> Tensor:
    """``(3, H, W)`` uint8, coded and decoded; None leaves it."""
    if quality is None:
        return image
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "jpeg", quality=quality, subsampling=subsampling)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)


def coloured_field(size: torch.Size, rng: np.random.Generator) -> Tensor:
    """Noise ``(3, H, W)`` of random spectra, gains and correlation of channels; the mean variance is 1."""
    share = float(rng.choice([0.0, 1.0, rng.uniform(0, 1)], p=[0.2, 0.1, 0.7]))
    if rng.random() < 0.5 or share == 0:  # one spectrum for both
        fields = _field(3 if share == 0 else 4, size, rng)
        grey, own = fields[3:], fields[:3]
    else:
        grey, own = _field(1, size, rng), _field(3, size, rng)
    noise = math.sqrt(share) * grey + math.sqrt(1 - share) * own if share else own
    if rng.random() < 0.3:  # a colour matrix, as cameras apply
        matrix = torch.eye(3) + 0.4 * torch.tensor(rng.normal(size=(3, 3)), dtype=torch.float32)
        noise = torch.einsum("ab,bhw->ahw", matrix, noise)
    gains = torch.tensor(np.exp(rng.normal(size=3) * rng.choice([0.0, 0.15, 0.35])), dtype=torch.float32)
    noise = noise / noise.flatten(1).std(1).clamp(min=1e-6)[:, None, None] * gains[:, None, None]
    return noise / noise.square().mean().sqrt()


def camera_field(size: torch.Size, rng: np.random.Generator) -> Tensor:
    """Noise ``(3, H, W)`` as a camera leaves it: mosaic, colour matrix, softer colour, smoothing, sharpening, size."""
    factor = float(rng.choice([1.0, rng.uniform(0.6, 1), rng.uniform(1, 1.6)], p=[0.6, 0.2, 0.2]))
    raw = [max(16, math.ceil(side / factor / 2) * 2) for side in size]
    noise = torch.from_numpy(rng.standard_normal((3, *raw), dtype=np.float32))
    noise = noise * torch.tensor(np.exp(rng.normal(size=3) * 0.3), dtype=torch.float32)[:, None, None]
    sites = torch.zeros(3, *raw)
    sites[0, ::2, ::2] = sites[2, 1::2, 1::2] = 1
    sites[1, ::2, 1::2] = sites[1, 1::2, ::2] = 1
    radius = float(rng.uniform(0.6, 0.9))
    spread = blurred(sites, radius)
    noise = blurred(noise * sites, radius) / spread.clamp(min=1e-3)
    if rng.random() < 0.6:  # red and blue as green plus smooth differences
        noise = noise[1:2] + blurred(noise - noise[1:2], float(rng.uniform(0.5, 1.5)))
    matrix = torch.eye(3) + 0.35 * torch.tensor(rng.normal(size=(3, 3)), dtype=torch.float32)
    noise = torch.einsum("ab,bhw->ahw", matrix, noise)
    grey = noise.mean(0, keepdim=True)
    colour = noise - grey
    if rng.random() < 0.7:
        colour = float(rng.uniform(0.2, 1)) * blurred(colour, float(np.exp(rng.uniform(math.log(0.5), math.log(3)))))
    if rng.random() < 0.7:
        grey = torch.lerp(grey, blurred(grey, float(rng.uniform(0.6, 2.5))), float(rng.uniform(0.1, 0.9)))
    if rng.random() < 0.4:
        grey = grey + float(rng.uniform(0.2, 1.5)) * (grey - blurred(grey, float(rng.uniform(0.6, 1.5))))
    noise = grey + colour
    if rng.random() < 0.5:
        drift = blurred(torch.from_numpy(rng.standard_normal((3, *raw), dtype=np.float32)), float(rng.uniform(1.5, 6)))
        drift = drift / drift.std() * noise.std()
        noise = noise + float(rng.uniform(0, 0.6)) * torch.lerp(drift, drift[:1], float(rng.uniform(0, 1)))
    if tuple(noise.shape[1:]) != tuple(size):
        noise = F.interpolate(noise[None], size=tuple(size), mode="bicubic", antialias=True, align_corners=False)[0]
    return noise / noise.square().mean().sqrt()


def _field(channels: int, size: torch.Size, rng: np.random.Generator) -> Tensor:
    """Planes of unit variance and a random spectrum."""
    kind = rng.random()
    white = torch.from_numpy(rng.standard_normal((channels, *size), dtype=np.float32))
    if kind < 0.2:
        return white
    if kind < 0.3:
        return _enlarged(white, float(rng.uniform(1.1, 2.2)), str(rng.choice(["bilinear", "bicubic"])))
    power = _power(size, rng)
    if kind > 0.65:
        share = float(rng.uniform(0, 1))
        power = share * power + (1 - share) * _power(size, rng)
    return _of_power(white, power)


def _of_power(white: Tensor, power: Tensor) -> Tensor:
    """White noise ``(C, H, W)`` of another spectrum, of unit variance again."""
    spectrum = torch.fft.rfft2(white) * power.sqrt()[:, : white.shape[2] // 2 + 1]
    noise = torch.fft.irfft2(spectrum, s=tuple(white.shape[1:]))
    return noise / noise.flatten(1).std(1).clamp(min=1e-6)[:, None, None]


def _power(size: torch.Size, rng: np.random.Generator) -> Tensor:
    """A spectrum ``(H, W)`` of mean 1."""
    down = torch.cos(2 * math.pi * torch.fft.fftfreq(size[0]))[:, None]
    across = torch.cos(2 * math.pi * torch.fft.fftfreq(size[1]))[None]
    kind = rng.random()
    if kind < 0.15:
        power = torch.ones(*size)
    elif kind < 0.6:  # correlation rho ** distance
        rho = float(rng.uniform(0, 0.88))
        other = rho if rng.random() < 0.7 else float(rng.uniform(0, 0.88))
        power = _falling_power(size, other, rho)
    elif kind < 0.9:  # blurred
        radius = float(np.exp(rng.uniform(math.log(0.3), math.log(3))))
        power = _blurred_power(size, radius)
    else:  # interpolated between neighbours
        side = float(rng.uniform(0.1, 0.6))
        power = (((1 + side * 2 * down) * (1 + side * 2 * across)) / (1 + 2 * side) ** 2).square()
    return power / power.mean()


def _falling_power(size: torch.Size, down: float, across: float) -> Tensor:
    """Spectrum of noise whose correlation falls as ``down ** rows * across ** columns``."""
    lines = []
    for side, rho in zip(size, (down, across), strict=True):
        wave = torch.cos(2 * math.pi * torch.fft.fftfreq(side))
        lines.append((1 - rho**2) / (1 + rho**2 - 2 * rho * wave))
    return lines[0][:, None] * lines[1]


def _blurred_power(size: torch.Size, radius: float) -> Tensor:
    """Spectrum of white noise after a Gaussian blur."""
    down, across = (torch.fft.fftfreq(side).square() for side in size)
    return torch.exp(-((2 * math.pi * radius) ** 2) * (down[:, None] + across))


def _enlarged(white: Tensor, factor: float, mode: str) -> Tensor:
    size = white.shape[1:]
    small = white[:, : max(2, round(size[0] / factor)), : max(2, round(size[1] / factor))]
    large = F.interpolate(small[None], size=tuple(size), mode=mode, align_corners=False)[0]
    return large / large.flatten(1).std(1)[:, None, None]


def _by_brightness(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """Strength of the noise by brightness ``(1, H, W)``, about 1 on average."""
    y = clean.mean(0, keepdim=True)
    kind = rng.random()
    if kind < 0.45:
        return torch.ones_like(y)
    if kind < 0.65:  # counted photons, in values that are linear or not
        share = float(rng.uniform(0.02, 1))
        strength = (share + y).pow(float(rng.uniform(0.2, 0.6)))
    else:  # as tone curves leave it: most in dark middle tones, least near white
        top, width = float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.2, 0.6))
        strength = float(rng.uniform(0.1, 0.7)) + torch.exp(-(((y - top) / width) ** 2))
    return strength / strength.mean()


def _content(photograph: Tensor, rng: np.random.Generator) -> Tensor:
    """A piece of a photograph, softer, smaller, greyer or of another contrast than it was; or a drawing."""
    if rng.random() < 0.06:
        return _drawing(rng)
    x = photograph
    factor = float(rng.uniform(0.5, 1)) if rng.random() < 0.4 else 1.0
    most = 480 if rng.random() < 0.12 else 224
    sides = [min(side, round(int(rng.integers(_LEAST_SIDE, most + 1)) / factor)) for side in x.shape[1:]]
    top, left = (int(rng.integers(0, side - taken + 1)) for side, taken in zip(x.shape[1:], sides, strict=True))
    x = x[:, top : top + sides[0], left : left + sides[1]]
    if factor < 1:
        size = [max(_LEAST_SIDE, round(side * factor)) for side in sides]
        x = F.interpolate(x[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    if rng.random() < 0.4:
        x = blurred(x, float(np.exp(rng.uniform(math.log(0.3), math.log(2)))))
    if rng.random() < 0.3:
        x = (float(rng.uniform(0.4, 1.2)) * x.pow(float(rng.uniform(0.6, 1.6)))).clamp(0, 1)
    if rng.random() < 0.08:
        x = x.mean(0, keepdim=True).expand(3, -1, -1)
    x = x[torch.tensor(rng.permutation(3))]
    if rng.random() < 0.5:
        x = x.transpose(1, 2)
    return x.flip(2).contiguous() if rng.random() < 0.5 else x.contiguous()


def blurred(x: Tensor, radius: float) -> Tensor:
    """Gaussian blur of ``(3, H, W)``; borders are mirrored."""
    lines = []
    for side in x.shape[1:]:
        place = torch.arange(side)
        away = torch.stack([place[:, None] - p for p in (place, -1 - place, 2 * side - 1 - place)])
        weight = torch.exp(-0.5 * (away / radius) ** 2).sum(0)
        lines.append(weight / weight.sum(1, keepdim=True))
    return lines[0] @ x @ lines[1].T


def _drawing(rng: np.random.Generator) -> Tensor:
    """Flat fields, slopes, and rectangles of one colour."""
    height, width = (int(n) for n in rng.integers(_LEAST_SIDE, 320, 2))
    x = torch.tensor(rng.uniform(0.1, 0.9, 3), dtype=torch.float32)[:, None, None].expand(3, height, width).clone()
    if rng.random() < 0.5:
        slope = torch.tensor(rng.uniform(-0.3, 0.3, 3), dtype=torch.float32)[:, None, None]
        x = x + slope * torch.linspace(-1, 1, width)
    for _ in range(int(rng.choice([0, 3, 30, 200]))):
        top, left = int(rng.integers(0, height - 4)), int(rng.integers(0, width - 4))
        tall, wide = (int(n) for n in rng.integers(2, 40, 2))
        x[:, top : top + tall, left : left + wide] = torch.tensor(rng.uniform(0, 1, 3), dtype=torch.float32)[
            :, None, None
        ]
    return x.clamp(0, 1)


def _unclipped(clean: Tensor) -> Tensor:
    mask = ((clean > 8 / 255) & (clean < 247 / 255)).all(0)
    return mask if int(mask.sum()) > 500 else torch.ones_like(mask)


def _flat_pixels(clean: Tensor) -> Tensor:
    """Unclipped pixels of little structure around; the flattest sixth if there are few."""
    grey = clean.double().mean(0, keepdim=True)
    variance = (local_mean(grey.square(), 9) - local_mean(grey, 9).square())[0]
    mask = _unclipped(clean)
    bound = max(_FLAT**2, float(variance[mask].quantile(1 / 6)))
    return mask & (variance <= bound)
