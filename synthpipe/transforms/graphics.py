"""Drawn pictures in place of photographs: screens of fields, rectangles, lines and text, and photographed pages.

Scraped corpora hold screenshots, slides and scanned pages.  Raw density ranks them above photographs, so a quality
score has to be shown some; these are made without any file.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["draw_page", "draw_screen"]

#: Drawn this much larger, then reduced: strokes get the soft edges of rendered text.
_OVERSAMPLING = 2
_MOST_SHAPES = 12


def draw_screen(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A screenshot or drawing ``(3, height, width)`` float32 in [0, 1], a function of ``generator`` (on the CPU)."""
    draw = _Draw(generator)
    canvas = _background(height * _OVERSAMPLING, width * _OVERSAMPLING, draw)
    kind = draw.uniform()
    if kind > 0.15:  # else a plain background
        for _ in range(draw.integer(1, _MOST_SHAPES) if kind < 0.6 else draw.integer(0, 3)):
            _rectangle(canvas, draw)
    if kind > 0.4:
        _text(canvas, draw)
    return F.avg_pool2d(canvas, _OVERSAMPLING).clamp(0, 1)


def draw_page(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A page with text as a camera or scanner sees it; shapes and range as of :func:`draw_screen`."""
    draw = _Draw(generator)
    canvas = torch.full((3, height * _OVERSAMPLING, width * _OVERSAMPLING), draw.uniform(0.7, 1.0))
    _text(canvas, draw)
    return _photographed(F.avg_pool2d(canvas[None], _OVERSAMPLING), draw)[0].clamp(0, 1)


class _Draw:
    """Plain numbers from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """From ``low`` up to ``high``."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def colour(self) -> Tensor:
        """``(3, 1, 1)``, half of the time grey."""
        channels = 1 if self.uniform() < 0.5 else 3
        return torch.rand(channels, 1, 1, generator=self.generator).expand(3, 1, 1)


def _background(height: int, width: int, draw: _Draw) -> Tensor:
    first = draw.colour() if draw.uniform() < 0.5 else torch.full((3, 1, 1), draw.uniform(0.8, 1.0))
    if draw.uniform() < 0.6:
        return first.expand(3, height, width).clone()
    amount, horizontal = draw.uniform(0, 0.5), draw.uniform() < 0.5
    ramp = torch.linspace(0, amount, width if horizontal else height)
    ramp = ramp[None, None, :] if horizontal else ramp[None, :, None]
    return (first + (draw.colour() - first) * ramp).expand(3, height, width).clone()


def _photographed(picture: Tensor, draw: _Draw) -> Tensor:
    """As a camera or scanner sees a page: soft, paler, unevenly lit, with the grain of paper; often grey."""
    for _ in range(draw.integer(1, 3)):
        picture = _box3(picture)
    if draw.uniform() < 0.6:
        picture = picture.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    height, width = picture.shape[2:]
    light = (
        torch.linspace(0, draw.uniform(-0.3, 0.3), width)[None, :]
        + torch.linspace(0, draw.uniform(-0.3, 0.3), height)[:, None]
    )
    picture = draw.uniform(0, 0.3) + draw.uniform(0.4, 0.9) * picture + light
    grain = torch.randn(1, 1, height, width, generator=draw.generator)
    if draw.uniform() < 0.7:
        grain = 3 * _box3(grain)
    return picture + draw.uniform(0.0, 0.03) * grain


def _box3(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _rectangle(canvas: Tensor, draw: _Draw) -> None:
    """A filled rectangle, or a line where one side is short."""
    height, width = canvas.shape[1:]
    thin = draw.uniform() < 0.5
    h = draw.integer(1, 4) if thin and draw.uniform() < 0.5 else draw.integer(1, height)
    w = draw.integer(1, 4) if thin and h > 4 else draw.integer(1, width)
    top, left = draw.integer(0, height - 1), draw.integer(0, width - 1)
    canvas[:, top : top + h, left : left + w] = draw.colour()


def _text(canvas: Tensor, draw: _Draw) -> None:
    """Rows of glyphs, each a random pattern of strokes on a 5x4 grid, with gaps between glyphs, words and rows."""
    height, width = canvas.shape[1:]
    pixel = draw.integer(1, 6)  # of a stroke's width, on the oversampled canvas
    rows, columns = max(height // (8 * pixel), 1), max(width // (5 * pixel), 1)
    ink = torch.rand(rows, columns, 5, 4, generator=draw.generator) < draw.uniform(0.35, 0.6)
    ink &= (torch.rand(rows, columns, generator=draw.generator) < 0.85)[..., None, None]
    cells = F.pad(ink.float(), (0, 1, 0, 3))  # (rows, columns, 8, 5)
    mask = cells.permute(0, 2, 1, 3).reshape(rows * 8, columns * 5)
    mask = mask.repeat_interleave(pixel, 0).repeat_interleave(pixel, 1)[:height, :width]
    colour = torch.full((3, 1, 1), draw.uniform(0, 0.3)) if draw.uniform() < 0.7 else draw.colour()
    part = canvas[:, : mask.shape[0], : mask.shape[1]]
    part.copy_(part + mask * (colour - part))
