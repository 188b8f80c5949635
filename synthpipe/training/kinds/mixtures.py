"""Mixtures of degradations, and what is true of each: one label for each kind.

A detector that has only seen single degradations beside clean pictures takes the absence of one for the absence of
another: blur hides weak noise from it, noise hides blur.  So every kind is drawn with the others present, in the order
of a picture's life: reduced, out of focus, sharpened, noisy, enlarged, interlaced or printed, compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.density.kinds.scorer import KINDS
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import luma
from synthpipe.seeds import generator_for
from synthpipe.training.kinds.traces import (
    Draw,
    combed,
    convolved,
    correlated_noise,
    defocus,
    eight_bits,
    gaussian,
    jpeg,
    motion,
    resized,
    screened,
    sharpened,
    shifted,
    striped,
    webp,
)
from synthpipe.transforms.graphics import draw_page, draw_screen

__all__ = ["UNKNOWN", "Mixture", "draw_mixture"]

#: Shares of copies that are clean, and that have one kind alone.
_CLEAN_SHARE, _SINGLE_SHARE = 0.14, 0.22
#: Neither: too weak to ask for, or hidden by what came later.
UNKNOWN = -1
_NOISE, _BLUR, _COMPRESSION, _ENLARGEMENT, _PATTERN, _GRAPHICS = range(len(KINDS))
#: Least standard deviation of noise that must be seen, of 255, and what may pass.
_SEEN_NOISE, _UNSEEN_NOISE = 1.3, 0.5
#: The like of a blur's in pixels, and qualities of JPEG.
_SEEN_BLUR, _UNSEEN_BLUR = 0.6, 0.35
_SEEN_QUALITY, _UNSEEN_QUALITY = 85, 92
#: Quantiser steps by quality hide noise that is weaker than this share of them; correlated noise has more power in few.
_HIDDEN_WHITE, _HIDDEN_CORRELATED = 0.35, 0.2
_LEAST_SIDE = 96
#: Shares of copies that are grey, and of another contrast and brightness.
_GREY_SHARE, _TONED_SHARE = 0.12, 0.25
#: Share of copies whose noise, if any, is learned; it takes long, so only a part of this size has it.
_LEARNED_SHARE, _PART = 0.12, (224, 320)
#: Of learned noise, of 255.
_MOST_LEARNED = 16.0
#: Share of its standard deviation that is left in grey, where channels share half of their variance.
_LEFT_IN_GREY = 0.85


class Mixture(NamedTuple):
    """One degraded copy of a picture.

    Attributes:
        image: ``(1, 3, h, w)`` float32, multiples of 1/255, smaller than the original.
        labels: ``(len(KINDS),)`` int: 1 there, 0 not there, :data:`UNKNOWN`.
        words: what was done, for people.
        strengths: ``(len(KINDS),)``, how many times stronger each kind is than what must just be seen; 0 where that is
            not known: of all kinds but noise, and of noise that something has changed since.
    """

    image: Tensor
    labels: Tensor
    words: str
    strengths: Tensor


class _Life:
    """A picture on its way, with labels and words."""

    def __init__(self, image: Tensor, draw: Draw) -> None:
        self.x, self.draw = image, draw
        #: The one kind that may be there, ``len(KINDS)`` for none; None: any.
        chosen = draw.uniform()
        only = draw.whole(0, len(KINDS) - 1)
        alone = _CLEAN_SHARE <= chosen < _CLEAN_SHARE + _SINGLE_SHARE
        self.single = len(KINDS) if chosen < _CLEAN_SHARE else only if alone else None
        self.labels = [0] * len(KINDS)
        self.words: list[str] = []
        #: Standard deviation of the noise, of 255, and whether its pixels are correlated.
        self.sigma, self.correlated = 0.0, False
        #: The former, where nothing has changed it since; else 0.
        self.unchanged = 0.0
        #: Whether it has no colours, and whether it is one colour all over.
        self.grey = self.plain = False

    def has(self, kind: int | None, share: float) -> bool:
        """Whether to do what happens in that share of mixtures and stands for ``kind``, or for none."""
        return self.draw.chance(share) if self.single is None else self.single == kind

    def mark(self, kind: int, label: int, words: str) -> None:
        """A label, unless the kind is known to be there, and a word."""
        if self.labels[kind] != 1:
            self.labels[kind] = label
        self.words.append(words)


def draw_mixture(image: Tensor, seed: int, reduce: float, noises: Sequence[DeFlow]) -> Mixture:
    """Degrade a clean picture by a random mixture.

    Args:
        image: ``(3, H, W)`` float32 in [0, 1], clean.
        seed: of all draws.
        reduce: pictures are first reduced by up to this factor.
        noises: learned noise that is drawn beside synthetic noise; may be empty.
    """
    draw = Draw(generator_for(seed, "mixture"))
    life = _Life(_toned(_reduced(image[None], reduce, draw), draw), draw)
    life.grey = draw.chance(_GREY_SHARE)
    life.x = _in_grey(life)
    learned = bool(noises) and draw.chance(_LEARNED_SHARE)
    if learned:
        life.x = _part(life.x, draw)
    if life.has(_GRAPHICS, 0.1):
        _draw_graphics(life)
    factor = draw.log_uniform(1.3, 4.0) if life.has(_ENLARGEMENT, 0.25) else 1.0
    size = (life.x.shape[2], life.x.shape[3])
    late_noise = draw.chance(0.5)
    if factor > 1:
        life.x = resized(life.x, (max(round(size[0] / factor), 16), max(round(size[1] / factor), 16)))
    if life.has(_BLUR, 0.35):
        _blur(life)
    if life.has(None, 0.2):
        _sharpen(life)
    noisy = life.has(_NOISE, 0.5)
    if noisy and not late_noise:
        _noise(life, noises if learned else ())
    if factor > 1:
        _enlarge(life, size, factor)
    if noisy and late_noise:
        _noise(life, noises if learned else ())
    if life.has(_PATTERN, 0.12):
        _pattern(life)
    life.x = _in_grey(life)  # its noise is grey as well
    if life.has(_COMPRESSION, 0.45):
        _compress(life)
    elif life.has(None, 0.18):
        _compress_little(life)
    if life.plain:
        _hide_on_plain(life)
    x = shifted(life.x, draw.whole(0, 15), draw.whole(0, 15))
    strengths = torch.zeros(len(KINDS))
    strengths[_NOISE] = round(life.unchanged, 1) / _SEEN_NOISE
    return Mixture(eight_bits(x), torch.tensor(life.labels), ", ".join(life.words) or "clean", strengths)


def _reduced(x: Tensor, most: float, draw: Draw) -> Tensor:
    side = min(x.shape[2:])
    factor = min(most ** draw.uniform(), side / _LEAST_SIDE)
    if draw.chance(0.4) or factor <= 1:
        return x
    return resized(x, (round(x.shape[2] / factor), round(x.shape[3] / factor)))


def _toned(x: Tensor, draw: Draw) -> Tensor:
    """Some pictures are dull, harsh, dark or light, and none is degraded by that."""
    if draw.chance(_TONED_SHARE):
        x = (0.5 + draw.log_uniform(0.5, 1.5) * (x - 0.5) + draw.uniform(-0.15, 0.15)).clamp(0, 1)
    return x


def _in_grey(life: _Life) -> Tensor:
    return luma(life.x).expand(-1, 3, -1, -1) if life.grey else life.x


def _part(x: Tensor, draw: Draw) -> Tensor:
    height, width = (min(side, most) for side, most in zip(x.shape[2:], _PART, strict=True))
    top, left = draw.whole(0, x.shape[2] - height), draw.whole(0, x.shape[3] - width)
    return x[..., top : top + height, left : left + width]


def _draw_graphics(life: _Life) -> None:
    """A drawn picture in place of the photograph; how soft it is drawn nobody knows."""
    draw, (height, width) = life.draw, life.x.shape[2:]
    kind = draw.uniform()
    if kind < 0.2:
        colour = draw.normal(3).mul(0.3).add(0.5).clamp(0, 1)
        life.x = colour[None, :, None, None].expand(1, 3, height, width).clone()
        life.plain = True
    else:
        # In parts, so that a tile holds as much of it as of a screen.
        cell = draw.whole(96, 200)
        make = draw_screen if kind < 0.65 else draw_page
        rows = [
            torch.cat([make(cell, cell, draw.generator) for _ in range(-(-width // cell))], 2)
            for _ in range(-(-height // cell))
        ]
        life.x = torch.cat(rows, 1)[None, :, :height, :width]
    life.labels[_BLUR] = life.labels[_ENLARGEMENT] = life.labels[_PATTERN] = UNKNOWN
    if kind >= 0.65:
        life.labels[_NOISE] = UNKNOWN  # photographed pages have some
    life.mark(_GRAPHICS, 1, "drawn")


def _hide_on_plain(life: _Life) -> None:
    """One colour looks alike blurred, enlarged and compressed; only noise on it may show the latter two."""
    for kind in (_BLUR,) if life.sigma else (_BLUR, _ENLARGEMENT, _COMPRESSION):
        if life.labels[kind] == 1:
            life.labels[kind] = UNKNOWN


def _blur(life: _Life) -> None:
    draw, kind = life.draw, life.draw.uniform()
    if kind < 0.65:
        sigma = draw.log_uniform(0.4, 3.5)
        other = sigma * draw.log_uniform(0.7, 1.4) if draw.chance(0.3) else sigma
        kernel, words = gaussian(sigma, other), f"blur {sigma:.2f}"
        least = min(sigma, other)
        label = 1 if least >= _SEEN_BLUR else UNKNOWN if least > _UNSEEN_BLUR else 0
    elif kind < 0.85:
        length = draw.log_uniform(2.5, 16)
        kernel, words, label = motion(length, draw.uniform(0, 3.1416)), f"motion {length:.1f}", 1
        label = 1 if length > 3 else UNKNOWN
    else:
        radius = draw.log_uniform(1.0, 5.0)
        kernel, words, label = defocus(radius), f"defocus {radius:.1f}", 1 if radius > 1.3 else UNKNOWN
    life.x = convolved(life.x, kernel)
    life.mark(_BLUR, label, words)


def _sharpen(life: _Life) -> None:
    sigma, amount = life.draw.uniform(0.6, 1.5), life.draw.log_uniform(0.3, 2.0)
    life.x = sharpened(life.x, sigma, amount)
    life.words.append(f"sharpened {amount:.2f}")
    if life.labels[_BLUR] == 1 and amount > 0.6:
        life.labels[_BLUR] = UNKNOWN  # sharpening is there to undo it


def _noise(life: _Life, noises: Sequence[DeFlow]) -> None:
    draw = life.draw
    sigma = draw.uniform(0.1, _SEEN_NOISE) if draw.chance(0.1) else draw.log_uniform(_SEEN_NOISE, 30.0)
    kind = draw.uniform()
    if noises:
        sigma = _learned_noise(life, noises[draw.whole(0, len(noises) - 1)], min(sigma, _MOST_LEARNED))
        sigma *= _LEFT_IN_GREY if life.grey else 1.0
        life.correlated, words = True, f"learned noise {sigma:.1f}"
    else:
        white = kind < 0.35
        spread = 0.0 if white else draw.log_uniform(0.35, 1.6)
        life.x = correlated_noise(
            life.x, sigma, spread, 1.0 if life.grey else draw.uniform(0, 1), draw.uniform(-0.3, 1.2), draw
        )
        life.correlated, words = not white, f"noise {sigma:.1f}" + ("" if white else f" over {spread:.2f}")
        if draw.chance(0.2) and not life.grey:
            life.x = _chroma_noise(life.x, draw.uniform(0.5, 2) * sigma, draw)
    life.sigma = life.unchanged = sigma
    life.mark(_NOISE, 1 if sigma >= _SEEN_NOISE else UNKNOWN if sigma > _UNSEEN_NOISE else 0, words)


def _learned_noise(life: _Life, model: DeFlow, sigma: float) -> float:
    """By a DeFlow; what it adds is scaled to ``sigma`` where it knows no levels."""
    clean = eight_bits(life.x)
    noise = model.degrade(clean, [life.draw.generator], level=sigma / 255 if model.pile is not None else None) - clean
    found = float(noise.std()) * 255
    scale = sigma / max(found, 1e-3)
    life.x = clean + scale * noise
    return sigma


def _chroma_noise(x: Tensor, sigma: float, draw: Draw) -> Tensor:
    """Coarse colour noise, as raw converters leave."""
    small = draw.normal(1, 3, *(max(side // 2, 8) for side in x.shape[2:]))
    coarse = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    coarse = coarse - coarse.mean(1, keepdim=True)
    return x + sigma / 255 * coarse / coarse.std()


def _enlarge(life: _Life, size: tuple[int, int], factor: float) -> None:
    draw, kind = life.draw, life.draw.uniform()
    if draw.chance(0.12):
        life.x = jpeg(life.x, draw.whole(30, 92))
        life.labels[_COMPRESSION] = UNKNOWN
        life.words.append("compressed small")
    mode = "bicubic" if kind < 0.6 else "bilinear" if kind < 0.92 else "nearest"
    life.x = resized(life.x.clamp(0, 1), size, mode)
    if life.sigma:
        life.correlated, life.unchanged = True, 0.0
    if life.labels[_NOISE] == 1 and factor > 2.5:
        life.labels[_NOISE] = UNKNOWN
    if life.labels[_BLUR] == 0:
        life.labels[_BLUR] = UNKNOWN  # soft it is
    life.mark(_ENLARGEMENT, 1, f"enlarged {factor:.2f} {mode}")


def _pattern(life: _Life) -> None:
    draw, kind = life.draw, life.draw.uniform()
    if kind < 0.5:
        across = draw.whole(1, 10) * (1 if draw.chance(0.5) else -1)
        life.x = combed(life.x, across, draw.whole(0, 1) if draw.chance(0.3) else 0)
        words = f"combed {across}"
    elif kind < 0.65:
        strength = draw.uniform(0.06, 0.5)
        life.x, words = striped(life.x, strength), f"striped {strength:.2f}"
    else:
        period = draw.log_uniform(2.6, 9.0)
        life.x = screened(life.x.clamp(0, 1), period, draw.uniform(0.25, 1.0), draw.uniform(0, 0.35) * period, draw)
        words = f"screened {period:.1f}"
        life.labels[_NOISE] = life.labels[_BLUR] = life.labels[_ENLARGEMENT] = UNKNOWN
    # One colour has no fields and no dots.
    life.mark(_PATTERN, UNKNOWN if life.labels[_GRAPHICS] == 1 else 1, words)


def _compress_little(life: _Life) -> None:
    quality = life.draw.whole(_UNSEEN_QUALITY, 98)
    life.x = jpeg(life.x, quality)
    life.words.append(f"jpeg {quality}")
    _hide_noise(life, quality)


def _compress(life: _Life) -> None:
    draw, kind = life.draw, life.draw.uniform()
    life.unchanged = 0.0
    if kind < 0.24:
        quality = draw.whole(15, 80)
        life.x, step = webp(life.x, quality), 90 - (90 - quality) // 2
        life.mark(_COMPRESSION, 1, f"webp {quality}")
    elif kind < 0.5:
        first, quality = draw.whole(30, 90), draw.whole(50, 90)
        life.x = jpeg(life.x, first)
        life.x = jpeg(shifted(life.x, draw.whole(0, 7), draw.whole(0, 7)), quality)
        life.mark(_COMPRESSION, 1, f"jpeg {first} and {quality}")
        step = min(first, quality)
    else:
        quality = round(draw.log_uniform(5, 90)) if draw.chance(0.5) else draw.whole(30, 90)
        life.x, step = jpeg(life.x, quality), quality
        life.mark(_COMPRESSION, 1 if quality <= _SEEN_QUALITY else UNKNOWN, f"jpeg {quality}")
    _hide_noise(life, step)


def _hide_noise(life: _Life, quality: int) -> None:
    """What coarse steps take away nobody has to see."""
    scale = (200 - 2 * quality) / 100 if quality >= 50 else 50 / max(quality, 1)
    share = _HIDDEN_CORRELATED if life.correlated else _HIDDEN_WHITE
    if life.labels[_NOISE] == 1 and life.sigma < share * 16 * scale:
        life.labels[_NOISE] = UNKNOWN
    if quality < 20:
        life.labels[_BLUR] = UNKNOWN if life.labels[_BLUR] == 0 else life.labels[_BLUR]
        life.labels[_ENLARGEMENT] = UNKNOWN if life.labels[_ENLARGEMENT] == 0 else life.labels[_ENLARGEMENT]
