"""Noise of a drawn kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.stages.noise import NoiseChannels, NoiseKinds, NoiseStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, log_between, pick, whole_between
from synthpipe.transforms.chains.photons import eight_bits, grey_of, levels_in, photon_counts
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["CHANNELS", "KINDS", "Noise"]

#: What the numbers in ``kind`` and ``channels`` stand for.
KINDS, CHANNELS = tuple(NoiseKinds.model_fields), tuple(NoiseChannels.model_fields)

_GREY, _CHROMA, _COVARIANCE = (CHANNELS.index(name) for name in ("grey", "chroma", "covariance"))
# What numbers of each pixel are for.
_WHITE, _WIDE, _UNIFORM = range(3)
_REACH = 3.0

_WITH_SIGMA = ("gaussian", "poisson_gaussian", "uniform", "correlated", "film", "speckle")
_USES: Mapping[str, tuple[str, ...]] = {
    "sigma": _WITH_SIGMA,
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
      Poissonian-Gaussian noise modeling and fitting for single-image raw-data", equation 4);
    * correlated ``s m``, m the field n blurred with a Gaussian of ``width`` and scaled to variance 1 by the kernel's
      norm; film ``2 s sqrt(x (1 - x)) m``: a pixel that opaque grains cover with probability x has the variance
      x (1 - x) (the Boolean model of Newson et al. 2017, "A stochastic film grain model for resolution-independent
      rendering", section 3, at a point);
    * uniform on ``[-sqrt(3) s, sqrt(3) s]``; salt_and_pepper: 0 or 1 in place of x, with probability ``share``;
    * poisson: ``scale (N / photons - y)``, y the image rounded to 8 bits, N of the Poisson law of rate ``photons y``,
      as BasicSR's ``generate_poisson_noise_pt``; grey noise is that of the luma.

    Between R, G and B as ``channels`` says: each for itself; the same; each for itself less the luma of all; n of a
    covariance (Zhang et al. 2021, "Designing a practical degradation model for deep blind image super-resolution",
    section 3.3, and the authors' code).
    """

    numbers = 15

    def __init__(self, options: NoiseStageOptions) -> None:
        super().__init__()
        self.options = options
        self._kinds = [kind for kind, weight in options.kinds.weights().items() if weight > 0]
        self._margin = math.ceil(_REACH * options.width[1])

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
            "kind": pick([*o.kinds.weights().values()], u[:, 0]),
            "channels": pick([*o.channels.weights().values()], u[:, 1]),
            **{name: value for name, value in drawn.items() if any(kind in self._kinds for kind in _USES[name])},
        }
        if o.channels.covariance > 0:
            params["covariance"] = o.sigma[1] ** 2 * _turned(u[:, 9:12], u[:, 12:15]).abs()
        return params

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each kind for all images, and each image the one that it drew."""
        fields = self._fields(canvas.pixels, params, context)
        noise = torch.zeros_like(canvas.pixels)
        for kind in self._kinds:
            made = self._of(kind, canvas, params, fields)
            noise = torch.where(_wide(params["kind"] == KINDS.index(kind)), made, noise)
        if self.options.channels.chroma > 0:
            noise = torch.where(_wide(params["channels"] == _CHROMA), noise - grey_of(noise), noise)
        return canvas.holding(self._clipped(canvas.pixels + noise))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """The kind that it drew alone, and one field where the noise is grey."""
        channels = int(params["channels"])
        settings = {name: value.to(x.device) for name, value in params.items()}
        fields = self._fields(x, settings, context, CHANNELS[channels])
        noise = self._of(KINDS[int(params["kind"])], Canvas(x), settings, fields)
        if channels == _CHROMA:
            noise = noise - grey_of(noise)
        return self._clipped(x + noise)

    def _fields(self, x: Tensor, params: Params, context: Context, known: str | None = None) -> _Fields:
        root = None
        if "covariance" in params and known in (None, "covariance"):
            root = _triangle(params["covariance"] / max(self.options.sigma[1], 1e-6) ** 2)
        return _Fields(params, context, x.shape[2], x.shape[3], root, known)

    def _sigma(self, u: Tensor) -> Tensor:
        (low, high), step = self.options.sigma, self.options.sigma_step
        if step is None:
            return between((low, high), u)
        return low + step * whole_between((0, math.floor((high - low) / step + 1e-3)), u)

    def _of(self, kind: str, canvas: Canvas, params: Params, fields: _Fields) -> Tensor:
        """What one kind adds, ``(B, 1 or 3, H, W)``."""
        x = canvas.pixels
        if kind == "poisson":
            return self._poisson(canvas, params, fields)
        if kind == "salt_and_pepper":
            u, share = fields.uniforms(), _wide(params["share"])
            white = u < share * _wide(params["salt"])
            return torch.where(u < share, white.to(x.dtype) - x, torch.zeros_like(x))
        sigma = _wide(params["sigma"]).to(x.dtype)
        if "covariance" in params:
            sigma = torch.where(_wide(params["channels"] == _COVARIANCE), self.options.sigma[1], sigma)
        light = x.clamp(0, 1)
        match kind:
            case "gaussian":
                return sigma * fields.normals()
            case "poisson_gaussian":
                return (_wide(params["gain"]).to(x.dtype) * light + sigma.square()).sqrt() * fields.normals()
            case "uniform":
                return sigma * (fields.uniforms() - 0.5) * math.sqrt(12)
            case "correlated":
                return sigma * fields.blurred(params["width"], self._margin)
            case "film":
                return 2 * sigma * (light * (1 - light)).sqrt() * fields.blurred(params["width"], self._margin)
            case _:
                return sigma * light * fields.normals()

    def _poisson(self, canvas: Canvas, params: Params, fields: _Fields) -> Tensor:
        levels = eight_bits(fields.alike(canvas.pixels, grey_of(canvas.pixels)))
        photons = params["photons"]
        if self.options.photons == "levels":
            photons = levels_in(levels, None if canvas.height is None else canvas.inside)
        counts = photon_counts(levels, photons, fields.white(), choose=fields.known is not None)
        noise = counts / _wide(photons).to(counts.dtype) - levels / 255
        return noise * _wide(params["scale"]).to(counts.dtype)

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if self.options.clip else x


@dataclass(frozen=True)
class _Fields:
    """Random numbers of each pixel, related between channels as the samples drew.

    Args:
        params: of the stage.
        context: of the samples.
        height: of the fields.
        width: likewise.
        root: of the covariances in units of sigma's high end, ``(B, 3, 3)``; None: no sample has one.
        known: how channels hang together in all samples; None: that differs.
    """

    params: Params
    context: Context
    height: int
    width: int
    root: Tensor | None
    known: str | None = None

    def alike(self, own: Tensor, grey: Tensor) -> Tensor:
        """Three channels' ``own``, or one ``grey``: as the samples' noise, both where they differ."""
        if self.known is not None:
            return grey if self.known == "grey" else own
        return torch.where(_wide(self.params["channels"] == _GREY), grey, own)

    def normals(self) -> Tensor:
        """Standard normal numbers; of the drawn covariance in units of sigma's high end."""
        return self._related(self.white())

    def white(self) -> Tensor:
        """Standard normal numbers without a covariance."""
        field = self.context.normals(self._channels, self.height, self.width, _WHITE)
        return self.alike(field, field[:, :1])

    def uniforms(self) -> Tensor:
        """Of the uniform law on [0, 1)."""
        field = self.context.uniforms(self._channels, self.height, self.width, _UNIFORM)
        return self.alike(field, field[:, :1])

    def blurred(self, widths: Tensor, margin: int) -> Tensor:
        """As :meth:`normals`, blurred with Gaussians of ``widths`` ``(B,)`` and scaled to variance 1.

        Args:
            widths: standard deviations in pixels.
            margin: where kernels end, in pixels.
        """
        field = self.context.normals(self._channels, self.height + 2 * margin, self.width + 2 * margin, _WIDE)
        places = torch.arange(-margin, margin + 1, dtype=widths.dtype, device=widths.device)
        taps = (-0.5 * (places / widths[:, None]).square()).exp()
        taps = (taps / taps.square().sum(1, keepdim=True).sqrt()).to(field.dtype)
        batch, channels = field.shape[:2]
        rows = taps.repeat_interleave(channels, 0)[:, None, None]
        flat = F.conv2d(field.flatten(0, 1)[None], rows, groups=batch * channels)
        flat = F.conv2d(flat, rows.transpose(2, 3), groups=batch * channels)
        field = flat.view(batch, channels, self.height, self.width)
        return self._related(self.alike(field, field[:, :1]))

    @property
    def _channels(self) -> int:
        return 1 if self.known == "grey" else 3

    def _related(self, white: Tensor) -> Tensor:
        if self.root is None:
            return white
        root = self.root.to(white.dtype)[..., None, None]  # (B, 3, 3, 1, 1)
        red, green, blue = (root[:, :, channel] * white[:, channel : channel + 1] for channel in range(3))
        return torch.where(_wide(self.params["channels"] == _COVARIANCE), red + green + blue, white)


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
