"""Noise of a drawn kind."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from synthpipe.config.stages.noise import NoiseChannels, NoiseKinds, NoiseStageOptions
from synthpipe.images import luma
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.gaussian_field import blurred_field, field_margin
from synthpipe.transforms.chains.laws import between, log_between, pick, whole_between
from synthpipe.transforms.chains.photons import eight_bits, grey_of, levels_met, photon_counts, photons_of_levels
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["CHANNELS", "KINDS", "Noise"]

#: What the numbers in ``kind`` and ``channels`` stand for.
KINDS, CHANNELS = tuple(NoiseKinds.model_fields), tuple(NoiseChannels.model_fields)

_GREY, _CHROMA, _COVARIANCE = (CHANNELS.index(name) for name in ("grey", "chroma", "covariance"))
# What numbers of each pixel are for.
_WHITE, _BLURRED, _UNIFORM = range(3)
_SOURCE = {
    **dict.fromkeys(("gaussian", "poisson", "poisson_gaussian", "speckle"), _WHITE),
    **dict.fromkeys(("correlated", "film"), _BLURRED),
    **dict.fromkeys(("uniform", "salt_and_pepper"), _UNIFORM),
}
# Pixels of a strip of rows: a dozen strips' worth of numbers fits the processor's second cache.
_STRIP = 1 << 14

_USES: Mapping[str, tuple[str, ...]] = {
    "sigma": ("gaussian", "poisson_gaussian", "uniform", "correlated", "film", "speckle"),
    "scale": ("poisson",),
    "photons": ("poisson",),
    "gain": ("poisson_gaussian",),
    "width": ("correlated", "film"),
    "share": ("salt_and_pepper",),
    "salt": ("salt_and_pepper",),
}


class Noise(Stage):
    """The image with noise, at brightness x in [0, 1], n a field of standard normal numbers, s for sigma:

    * gaussian ``s n``; speckle ``s x n``; poisson_gaussian ``sqrt(gain x + s^2) n`` (Foi et al. 2008, "Practical
      Poissonian-Gaussian noise modeling and fitting for single-image raw-data", its Gaussian approximation);
    * correlated ``s m``, m the field n blurred with a Gaussian of ``width`` and scaled to variance 1 by the kernel's
      norm; film ``2 s sqrt(x (1 - x)) m``: a point that opaque grains cover with probability x has the variance
      x (1 - x) (the Boolean model of Newson et al. 2017, "A stochastic film grain model for resolution-independent
      rendering"; here a Gaussian field stands for the drawn grains);
    * uniform on ``[-sqrt(3) s, sqrt(3) s]``; salt_and_pepper: 0 or 1 in place of x, with probability ``share``;
    * poisson: ``scale (N / photons - y)``, y the image rounded to 8 bits, N of the Poisson law of rate ``photons y``,
      as BasicSR's ``generate_poisson_noise_pt``; grey noise is that of the grey image.

    Between R, G and B as ``channels`` says: each for itself; the same; each for itself less the luma of all; n of a
    covariance (Zhang et al. 2021, "Designing a practical degradation model for deep blind image super-resolution",
    section 3.3, and the authors' code).
    """

    numbers = 15
    words: ClassVar = {"kind": KINDS, "channels": CHANNELS}

    def __init__(self, options: NoiseStageOptions) -> None:
        super().__init__()
        self.options = options
        self._kinds = [kind for kind, weight in options.kinds.weights().items() if weight > 0]
        self._counts_levels = "poisson" in self._kinds and options.photons == "levels"
        self._margin = field_margin(options.width[1])

    def draw(self, u: Tensor) -> Params:
        """``kind`` and ``channels`` (places in :data:`KINDS` and :data:`CHANNELS`), and what the kinds need of
        ``sigma``, ``scale``, ``photons`` (0: levels of the image), ``gain``, ``width``, ``share``, ``salt``,
        ``covariance`` ``(B, 3, 3)``."""
        o = self.options
        drawn = {
            "sigma": self._sigma(u[:, 2]),
            "scale": between(o.scale, u[:, 3]),
            "photons": torch.zeros_like(u[:, 4]) if o.photons == "levels" else log_between(o.photons, u[:, 4]),
            "gain": between(o.gain, u[:, 5]),
            "width": between(o.width, u[:, 6]),
            "share": between(o.share, u[:, 7]),
            "salt": between(o.salt, u[:, 8]),
        }
        params = {
            "kind": pick(list(o.kinds.weights().values()), u[:, 0]),
            "channels": pick(list(o.channels.weights().values()), u[:, 1]),
            **{name: value for name, value in drawn.items() if any(kind in self._kinds for kind in _USES[name])},
        }
        if o.channels.covariance > 0:
            params["covariance"] = o.sigma[1] ** 2 * _turned(u[:, 9:12], u[:, 12:15]).abs()
        return params

    def unused(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """What other kinds need; ``photons`` where the image says how many; ``sigma`` where a covariance was drawn."""
        kind, related = drawn["kind"], drawn["channels"] == "covariance" and "covariance" in drawn
        names = {name for name, kinds in _USES.items() if kind not in kinds}
        names |= {"photons"} if self._counts_levels else set()
        return names | ({"sigma"} if related else {"covariance"})

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each kind for all images, and each image the one that it drew."""
        x, channels = canvas.pixels, params["channels"]
        grey = _wide(channels == _GREY)
        fields = {source: self._field(source, x, params, context) for source in {_SOURCE[kind] for kind in self._kinds}}
        if self._counts_levels:
            met = levels_met(eight_bits(_seen(x, grey)), None if canvas.height is None else canvas.inside)
            params = {**params, "photons": photons_of_levels(met)}
        noise = torch.zeros_like(x)
        for kind in self._kinds:
            made = self._added(kind, x, fields[_SOURCE[kind]], grey, params)
            noise = torch.where(_wide(params["kind"] == KINDS.index(kind)), made, noise)
        if self.options.channels.chroma > 0:
            noise = torch.where(_wide(channels == _CHROMA), noise - luma(noise), noise)
        return canvas.holding(self._clipped(x + noise))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """The kind that it drew alone, one field where the noise is grey, and rows that stay in the cache."""
        kind, channels = KINDS[int(params["kind"])], int(params["channels"])
        params, x = {name: value.to(x.device) for name, value in params.items()}, x.contiguous()
        rows = x.shape[2] if x.is_cuda else max(1, _STRIP // x.shape[3])
        strips = torch.split(x, rows, 2)
        if kind == "poisson" and self._counts_levels:
            met = [levels_met(eight_bits(_seen(strip, channels == _GREY)), None) for strip in strips]
            params["photons"] = photons_of_levels(torch.stack(met).any(0))
        fields = torch.split(self._field(_SOURCE[kind], x, params, context, channels), rows, 2)
        made = torch.empty_like(x)
        for strip, field, out in zip(strips, fields, torch.split(made, rows, 2), strict=True):
            noise = self._added(kind, strip, field, channels == _GREY, params)
            out.copy_(self._clipped(strip + (noise - luma(noise) if channels == _CHROMA else noise)))
        return made

    def _sigma(self, u: Tensor) -> Tensor:
        (low, high), step = self.options.sigma, self.options.sigma_step
        if step is None:
            return between((low, high), u)
        return low + step * whole_between((0, math.floor((high - low) / step + 1e-3)), u).to(u.dtype)

    def _field(self, source: int, x: Tensor, params: Params, context: Context, channels: int | None = None) -> Tensor:
        """Numbers of each pixel, related between channels as the samples drew.

        Args:
            source: normal, blurred or uniform numbers.
            x: ``(B, 3, H, W)``.
            params: of the stage.
            context: of the samples.
            channels: how they hang together in the one sample; None: samples differ.

        Returns:
            ``(B, 3, H, W)``; ``(1, 1, H, W)`` where ``channels`` says that noise is grey.
        """
        count = 1 if channels == _GREY else 3
        height, width = x.shape[2:]
        if source == _BLURRED:
            more = 2 * self._margin
            white = context.normals(count, height + more, width + more, source)
            field = blurred_field(white, params["width"], self._margin, alone=channels is not None)
        else:
            field = (context.uniforms if source == _UNIFORM else context.normals)(count, height, width, source)
        if channels is None and self.options.channels.grey > 0:
            field = torch.where(_wide(params["channels"] == _GREY), field[:, :1], field)
        if "covariance" in params and source != _UNIFORM and channels in (None, _COVARIANCE):
            root = _triangle(params["covariance"] / max(self.options.sigma[1], 1e-6) ** 2)
            related = sum(root[:, :, n, None, None].to(field.dtype) * field[:, n : n + 1] for n in range(3))
            field = torch.where(_wide(params["channels"] == _COVARIANCE), related, field)
        return field

    def _added(self, kind: str, x: Tensor, field: Tensor, grey: Tensor | bool, params: Params) -> Tensor:
        """What one kind adds to each pixel, of the shape of ``field``."""
        if kind == "poisson":
            levels = eight_bits(_seen(x, grey))
            counts = photon_counts(levels, params["photons"], field, isinstance(grey, bool))
            noise = counts / _wide(params["photons"]).to(x.dtype) - levels / 255
            return noise * _wide(params["scale"]).to(x.dtype)
        if kind == "salt_and_pepper":
            share = _wide(params["share"])
            white = (field < share * _wide(params["salt"])).to(x.dtype)
            return torch.where(field < share, white - x, 0)
        sigma = _wide(params["sigma"]).to(x.dtype)
        if "covariance" in params:
            sigma = torch.where(_wide(params["channels"] == _COVARIANCE), self.options.sigma[1], sigma)
        match kind:
            case "gaussian" | "correlated":
                return sigma * field
            case "uniform":
                return sigma * math.sqrt(12) * (field - 0.5)
            case "poisson_gaussian":
                return (_wide(params["gain"]).to(x.dtype) * x.clamp(0, 1) + sigma.square()).sqrt() * field
            case "film":
                light = x.clamp(0, 1)
                return 2 * sigma * (light * (1 - light)).sqrt() * field
            case _:
                return sigma * x.clamp(0, 1) * field

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if self.options.clip else x


def _seen(x: Tensor, grey: Tensor | bool) -> Tensor:
    """What photons come from: the image, or its grey one where noise is grey."""
    if isinstance(grey, bool):
        return grey_of(x) if grey else x
    return torch.where(grey, grey_of(x), x)


def _wide(value: Tensor) -> Tensor:
    """``(B,)`` -> ``(B, 1, 1, 1)``."""
    return value[:, None, None, None]


def _turned(diagonal: Tensor, u: Tensor) -> Tensor:
    """``U^T D U`` ``(B, 3, 3)`` for a random rotation U, uniform among all.

    Args:
        diagonal: ``(B, 3)`` of D.
        u: ``(B, 3)`` in [0, 1): of them a uniform unit quaternion (Shoemake 1992, "Uniform random rotations").
    """
    first, second = (1 - u[:, 0]).sqrt(), u[:, 0].sqrt()
    x, y = first * (2 * math.pi * u[:, 1]).sin(), first * (2 * math.pi * u[:, 1]).cos()
    z, w = second * (2 * math.pi * u[:, 2]).sin(), second * (2 * math.pi * u[:, 2]).cos()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    turn = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return (turn[..., :, None] * turn[..., None, :] * diagonal[:, :, None, None]).sum(1)


def _triangle(matrix: Tensor) -> Tensor:
    """The lower triangle L of ``(B, 3, 3)`` matrices ``L L^T`` without negative eigenvalues, written out."""
    tiny = torch.finfo(matrix.dtype).tiny
    a = matrix[:, 0, 0].clamp(min=tiny).sqrt()
    b, c = matrix[:, 1, 0] / a, matrix[:, 2, 0] / a
    d = (matrix[:, 1, 1] - b * b).clamp(min=tiny).sqrt()
    e = (matrix[:, 2, 1] - b * c) / d
    f = (matrix[:, 2, 2] - c * c - e * e).clamp(min=0).sqrt()
    zero = torch.zeros_like(a)
    return torch.stack([torch.stack(row, -1) for row in ([a, zero, zero], [b, d, zero], [c, e, f])], -2)
