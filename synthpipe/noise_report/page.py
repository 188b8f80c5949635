"""The report as one HTML file: it fetches nothing and has no scripts; light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from torch import Tensor

from synthpipe.errors import counted
from synthpipe.files.decode import encode_png
from synthpipe.flat_noise.spectrum import LAGS
from synthpipe.images import to_uint8
from synthpipe.noise_report.charts import Series, bar_chart, heat_map, line_chart
from synthpipe.noise_report.compare import LEAST_PIXELS
from synthpipe.noise_report.figures import BINS, NoiseFigures
from synthpipe.noise_report.page_style import STYLE
from synthpipe.noise_report.report import NoiseReport, PictureRow, Side
from synthpipe.noise_report.verdicts import Verdict

__all__ = ["render_page"]

#: By how much differences are amplified.
_AMPLIFY = 8
_LINES = Sequence[tuple[str, NoiseFigures]]


def render_page(report: NoiseReport) -> str:
    """A complete HTML document; pictures are in it."""
    title = html.escape(report.title)
    body = [f"<h1>{title}</h1>", _summary(report), _facts(report)]
    body += [_section(side) for side in report.sides]
    if report.pictures:
        body.append(_pictures(report.pictures))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _summary(report: NoiseReport) -> str:
    wrong = report.wrong
    if not any(side.comparison for side in report.sides):
        words, kind = "Nothing was compared.", "unknown"
    elif not wrong:
        words, kind = "All that could be measured is within its bounds.", "good"
    else:
        names = ", ".join(dict.fromkeys(f"{verdict.subject} {verdict.status}" for verdict in wrong))
        words, kind = f"To look at: {names}.", "bad"
    return f'<p class="summary {kind}">{html.escape(words)}</p>'


def _facts(report: NoiseReport) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in report.facts.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _section(side: Side) -> str:
    distance = "" if side.comparison is None else f"Distance {side.comparison.distance:.3f} (0: equal). "
    numbers = "".join(f"{name.upper()} {value:.4f}. " for name, value in side.numbers.items())
    sides = [(name, figures) for name, figures in (("made", side.made), ("real", side.real)) if figures is not None]
    area = "; ".join(
        f"{name}: {counted(figures.images, 'image')}, {figures.pixels / 1e6:.2f} megapixels of flat area, sigma of "
        f"single images {255 * figures.levels[0]:.1f} to {255 * figures.levels[1]:.1f} of 255"
        for name, figures in sides
    )
    return (
        f"<h2>Made noise against {html.escape(side.name)}</h2>\n"
        f'<p class="note">{distance}{numbers}{html.escape(area)}.</p>\n{_verdicts(side.verdicts)}\n{_figures(sides)}'
    )


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        kind = {"within": "good", "not measured": "unknown"}.get(verdict.status, "bad")
        option = f'<span class="option">change: {html.escape(verdict.option)}</span>' if verdict.option else ""
        rows.append(
            f'<li class="{kind}"><b>{html.escape(verdict.subject)}</b> '
            f'<span class="badge">{html.escape(verdict.status)}</span>'
            f"<span>{html.escape(verdict.words)}</span>{option}</li>"
        )
    return f'<ul class="verdicts">{"".join(rows)}</ul>' if rows else ""


def _figures(sides: _LINES) -> str:
    if not sides:
        return ""
    first = sides[0][1]
    cards = []
    for number, channel in enumerate(("red", "green", "blue")):
        lines = [
            Series(
                name,
                [
                    255 * sigma[number] if count >= LEAST_PIXELS else None
                    for sigma, count in zip(figures.sigma, figures.counts, strict=True)
                ],
            )
            for name, figures in sides
        ]
        chart = line_chart(f"sigma of {channel}", first.brightness, lines, "brightness", "sigma of 255")
        cards.append((f"Sigma by brightness, {channel}", chart))
    away = range(LAGS + 1)
    for words, rows, columns in (("across", 0, 1), ("down", 1, 0)):
        lines = [Series(name, [f.lag(rows * lag, columns * lag) for lag in away]) for name, f in sides]
        chart = line_chart(f"correlation {words}", [float(lag) for lag in away], lines, "pixels away", "correlation")
        cards.append((f"Correlation with neighbours {words}", chart))
    channels = [Series(name, figures.channel_correlation) for name, figures in sides]
    cards.append(("Correlation of channels", bar_chart("channels", ("RG", "GB", "RB"), channels, "correlation")))
    spectra = [Series(name, figures.spectrum) for name, figures in sides]
    cards.append(
        (
            "Power spectrum (mean 1)",
            line_chart("power spectrum", first.frequencies, spectra, "cycles per pixel", "power over mean", log=True),
        )
    )
    places = [12 * (bin_ + 0.5) / BINS - 6 for bin_ in range(BINS)]
    histograms = [Series(name, [share or None for share in figures.histogram]) for name, figures in sides]
    cards.append(
        (
            "Histogram of the noise without its low frequencies",
            line_chart("histogram", places, histograms, "standard deviations", "share of values", log=True),
        )
    )
    maps = "".join(
        f"<div>{heat_map(f'correlation in space, {name}', name, f.correlation)}<span>{name}</span></div>"
        for name, f in sides
    )
    cards.append(("Correlation in space, rows and columns away", f'<div class="two">{maps}</div>'))
    legend = "".join(f'<span class="key {name}"></span>{name} ' for name, _ in sides)
    drawn = "\n".join(f"<figure><figcaption>{html.escape(name)}</figcaption>{chart}</figure>" for name, chart in cards)
    return f'<p class="legend">{legend}</p>\n<div class="cards">\n{drawn}\n</div>'


def _pictures(rows: Sequence[PictureRow]) -> str:
    drawn = []
    for row in rows:
        difference = 0.5 + _AMPLIFY * (row.degraded - row.clean)
        cells = [("clean", row.clean), ("degraded", row.degraded)]
        cells += [] if row.real is None else [("really degraded", row.real)]
        cells.append((f"difference x{_AMPLIFY}", difference))
        drawn.append(
            '<div class="row">'
            + "".join(
                f'<figure class="picture"><img alt="{name}" src="{_data_uri(cell)}">'
                f"<figcaption>{name}</figcaption></figure>"
                for name, cell in cells
            )
            + "</div>"
        )
    return (
        '<h2>Pictures</h2>\n<p class="note">Each pixel as it is. What is really degraded shows another photograph, of '
        "like brightness.</p>\n" + "\n".join(drawn)
    )


def _data_uri(image: Tensor) -> str:
    pixels = to_uint8(image.clamp(0, 1)).permute(1, 2, 0).contiguous().cpu().numpy()
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"
