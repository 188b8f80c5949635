"""Charts as inline SVG: colours are classes of the page, so that they follow light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Series", "bar_chart", "heat_map", "line_chart"]

_WIDTH, _HEIGHT = 340, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 12, 36
_TICKS = 5


@dataclass(frozen=True)
class Series:
    """Values of one side; ``kind`` is the class that colours it: ``made`` or ``real``."""

    kind: str
    values: Sequence[float | None]


def line_chart(
    title: str, x: Sequence[float], series: Sequence[Series], x_label: str, y_label: str, log: bool = False
) -> str:
    """Lines over numbers ``x``; values that are None, and with ``log`` those that are not above 0, are gaps."""
    known = [v for s in series for v in s.values if v is not None and (v > 0 or not log)]
    if not known:
        return _empty(title)
    low, high = (min(known), max(known)) if log else (min(0.0, *known), max(0.0, *known))
    axis = _Axis(low, high, log)
    left, right = min(x), max(x)
    parts = [_y_ticks(axis)]

    def place(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - left) / max(right - left, 1e-9)

    for s in series:
        points: list[str] = []
        for at, value in zip(x, s.values, strict=True):
            if value is None or (log and value <= 0):
                continue
            points.append(f"{place(at):.1f},{axis.place(value):.1f}")
            parts.append(
                f'<circle class="{s.kind}" cx="{place(at):.1f}" cy="{axis.place(value):.1f}" r="2.4">'
                f"<title>{s.kind}: {value:.3g} at {at:.3g}</title></circle>"
            )
        parts.append(f'<polyline class="{s.kind}" points="{" ".join(points)}"/>')
    parts += [_x_tick(place(value), f"{value:g}") for value in _nice(left, right)]
    return _svg(title, parts, x_label, y_label)


def bar_chart(title: str, names: Sequence[str], series: Sequence[Series], y_label: str) -> str:
    """Bars side by side, one group for each of ``names``."""
    known = [v for s in series for v in s.values if v is not None]
    if not known:
        return _empty(title)
    axis = _Axis(min(0.0, *known), max(0.0, *known), log=False)
    group = (_WIDTH - _LEFT - _RIGHT) / len(names)
    bar = min(26.0, 0.7 * group / len(series))
    parts = [_y_ticks(axis)]
    for number, name in enumerate(names):
        middle = _LEFT + group * (number + 0.5)
        for place, s in enumerate(series):
            value = s.values[number]
            if value is None:
                continue
            top, base = sorted((axis.place(value), axis.place(0)))
            x = middle + (place - len(series) / 2) * bar
            parts.append(
                f'<rect class="{s.kind}" x="{x:.1f}" y="{top:.1f}" width="{bar - 2:.1f}" height="{base - top:.1f}">'
                f"<title>{name}, {s.kind}: {value:.3g}</title></rect>"
            )
        parts.append(_x_tick(middle, name))
    return _svg(title, parts, "", y_label)


def heat_map(title: str, kind: str, values: Sequence[Sequence[float]]) -> str:
    """A square of correlations, -1 to 1: strong ones are opaque, negative ones in the other colour."""
    side = len(values)
    cell, off = 18, 22
    size = side * cell + 2 * off
    parts = []
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            lag = f"{row - side // 2} rows, {column - side // 2} columns"
            parts.append(
                f'<rect class="{kind if value >= 0 else "negative"}" x="{off + column * cell}" y="{off + row * cell}" '
                f'width="{cell - 1}" height="{cell - 1}" fill-opacity="{min(1.0, abs(value)):.3f}">'
                f"<title>{lag}: {value:.2f}</title></rect>"
            )
    for number in range(-(side // 2), side // 2 + 1, 2):
        at = off + (number + side // 2 + 0.5) * cell
        parts.append(f'<text x="{at}" y="{size - 6}" text-anchor="middle">{number}</text>')
        parts.append(f'<text x="{off - 5}" y="{at + 4}" text-anchor="end">{number}</text>')
    name = html.escape(title, quote=True)
    return (
        f'<svg class="square" role="img" aria-label="{name}" viewBox="0 0 {size} {size}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


class _Axis:
    """The vertical one."""

    def __init__(self, low: float, high: float, log: bool) -> None:
        self.log = log
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-6:
            low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
        self.low, self.high = low, high + 0.08 * (high - low)

    def place(self, value: float) -> float:
        """In the picture, downwards."""
        value = math.log10(value) if self.log else value
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Values to name."""
        if not self.log:
            return _nice(self.low, self.high)
        decades = range(math.floor(self.low), math.floor(self.high) + 1)
        for steps in ((1, 2, 5), (1,)):
            values = [times * 10.0**n for n in decades for times in steps]
            inside = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(inside) <= _TICKS:
                return inside
        return inside[:: -(-len(inside) // _TICKS)]


def _nice(low: float, high: float) -> list[float]:
    """Round numbers between two."""
    span = max(high - low, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / _TICKS))
    step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= _TICKS)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_ticks(axis: _Axis) -> str:
    parts = []
    for value in axis.ticks():
        y = axis.place(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    return "".join(parts)


def _x_tick(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{html.escape(text)}</text>'


def _svg(title: str, parts: Sequence[str], x_label: str, y_label: str) -> str:
    name = html.escape(title, quote=True)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {_WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}"
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text class="label" x="{_LEFT}" y="9">{html.escape(y_label)}</text></svg>'
    )


def _empty(title: str) -> str:
    return _svg(title, ['<text x="170" y="105" text-anchor="middle">not measured</text>'], "", "")
