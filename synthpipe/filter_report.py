"""What a filter kept and dropped, as one HTML file: readable without scripts, and it fetches nothing."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthpipe.corpus.filter import FilterOutcome
from synthpipe.corpus.keep_rule import Decisions, State
from synthpipe.corpus.score_table import ScoreTable
from synthpipe.density.kinds import probability_column
from synthpipe.errors import counted

__all__ = ["KeepRate", "keep_rates_by_decile", "keep_rates_by_source", "render_report"]

#: The column by which images are sorted into deciles of complexity.
COMPLEXITY = "coder_bits"
_CAPTION = ("degraded_logit", "degraded_logit_q90", COMPLEXITY)
_SOURCES = 50
_BINS = 48
#: Width and height of the histogram, and the room for its axis.
_WIDTH, _HEIGHT, _AXIS = 760, 220, 34

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1d2430;background:#fff;max-width:1180px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.15em;margin:2em 0 .5em}
p.note{color:#566;max-width:60em}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #e3e6ea}
th:first-child,td:first-child{text-align:left;max-width:36em;overflow-wrap:anywhere}
thead th{border-bottom:2px solid #9aa4b0}
.bar{display:inline-block;height:.7em;background:#2f6fb5}.rest{display:inline-block;height:.7em;background:#e08a3c}
.facts td{text-align:left}
.cards{display:flex;flex-wrap:wrap;gap:14px}
figure{width:264px;margin:0;padding:8px;border:1px solid #e3e6ea;border-radius:6px}
figure div{display:flex;gap:6px;height:128px;align-items:center}
figure img{max-width:128px;max-height:128px}
figcaption{font-size:12.5px;margin-top:6px;overflow-wrap:anywhere}
figcaption b{font-weight:600}
.kept{border-top:4px solid #2f6fb5}.dropped{border-top:4px solid #e08a3c}
svg text{font:12px system-ui,sans-serif;fill:#566}
"""


@dataclass(frozen=True)
class KeepRate:
    """How much of a group was kept; ``mean`` is of the deciding column over the group's scored images, or NaN."""

    name: str
    images: int
    kept: int
    mean: float

    @property
    def rate(self) -> float:
        """Share of the group's images, 0 to 1; NaN of none."""
        return self.kept / self.images if self.images else math.nan


def keep_rates_by_source(table: ScoreTable, decisions: Decisions) -> list[KeepRate]:
    """One entry for each source, the largest first."""
    codes, names = table.codes("source")
    groups = [(name or "(no folder)", codes == code) for code, name in enumerate(names)]
    rates = [_keep_rate(name, rows, decisions) for name, rows in groups]
    return sorted(rates, key=lambda rate: (-rate.images, rate.name))


def keep_rates_by_decile(values: NDArray[np.float64], decisions: Decisions) -> list[KeepRate]:
    """Ten groups of equally many images by ``values`` ``(N,)``, lowest first; images without a value in none.

    Equal values are never parted, so a group may be empty or larger than others.
    """
    known = np.isfinite(values)
    if not known.any():
        return []
    edges = np.quantile(values[known], np.linspace(0, 1, 11))
    places = np.clip(np.searchsorted(edges[1:-1], values, side="left"), 0, 9)
    return [_keep_rate(f"{edges[k]:.3g} to {edges[k + 1]:.3g}", known & (places == k), decisions) for k in range(10)]


def render_report(outcome: FilterOutcome, table: ScoreTable) -> str:
    """The whole report.

    Args:
        outcome: of :func:`synthpipe.corpus.filter.filter_corpus`.
        table: the scores that it was made with.

    Returns:
        A complete HTML document; pictures are in it.
    """
    shown = outcome.gallery.rows()
    numbers: dict[str, NDArray[np.float64]] = {}
    means = []
    complexity: list[KeepRate] = []
    for name in table.columns:
        values = table.numbers(name)
        means.append(_means_row(name, values, outcome.decisions))
        if name == COMPLEXITY:
            complexity = keep_rates_by_decile(values, outcome.decisions)
        if name in (*_CAPTION, *map(probability_column, outcome.decisions.kinds), outcome.decisions.by):
            numbers[name] = values[list(shown)]
    captions = {
        row: {name: float(values[place]) for name, values in numbers.items()} for place, row in enumerate(shown)
    }
    sections = [
        _summary(outcome),
        _reasons(outcome),
        _histogram(outcome.decisions),
        _rates("Kept by source", "source", keep_rates_by_source(table, outcome.decisions), outcome.decisions),
        _rates("Kept by complexity", f"decile of {COMPLEXITY}", complexity, outcome.decisions)
        + '<p class="note">A filter that empties the upper deciles drops texture; one that empties the lower ones '
        "drops skies and walls.</p>",
        _table("Parts of the score", ("column", "mean kept", "mean rejected", "difference in sd"), means),
        _galleries(outcome, captions),
    ]
    title = f"Filter report: {outcome.kept} of {counted(outcome.images, 'image')} kept"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{html.escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _keep_rate(name: str, rows: NDArray[np.bool_], decisions: Decisions) -> KeepRate:
    scored = rows & ((decisions.states == State.KEPT) | (decisions.states == State.REJECTED))
    mean = float(decisions.values[scored].mean()) if scored.any() else math.nan
    return KeepRate(name, int(rows.sum()), int((decisions.states[rows] == State.KEPT).sum()), mean)


def _means_row(name: str, values: NDArray[np.float64], decisions: Decisions) -> tuple[str, str, str, str]:
    finite = np.isfinite(values)
    kept, rejected = (values[finite & (decisions.states == state)] for state in (State.KEPT, State.REJECTED))
    spread = float(values[finite].std()) if finite.any() else math.nan
    a, b = (float(part.mean()) if len(part) else math.nan for part in (kept, rejected))
    return name, _number(a), _number(b), _number((b - a) / spread if spread else math.nan)


def _summary(outcome: FilterOutcome) -> str:
    options, decisions = outcome.options, outcome.decisions
    facts = [("rule", _rule(outcome))]
    for source, threshold in list(decisions.thresholds.items())[:_SOURCES]:
        facts.append(("threshold" + ("" if source is None else f" of {source or '(no folder)'}"), _number(threshold)))
    states = [("kept", outcome.kept), ("rejected", decisions.count(State.REJECTED))]
    states += [(f"no score: {reason}", count) for reason, count in decisions.without_score.items()]
    if decisions.count(State.NOT_FINITE):
        states.append((f"{options.by} is not finite", decisions.count(State.NOT_FINITE)))
    if options.by == "degraded_logit":
        states.append(("more likely degraded than not (above 0)", int((decisions.values > 0).sum())))
    facts += [(name, f"{count} ({100 * count / max(outcome.images, 1):.1f} %)") for name, count in states]
    facts += [
        ("source", ", ".join(options.source)),
        ("scores", options.scores),
        ("scorer", f"{outcome.about['weights']}, fingerprint {outcome.about['scorer']}"),
        ("tiles of an image", str(outcome.about["tiles"])),
    ]
    return _table("Summary", None, facts) + (
        '<p class="note">degraded_logit is the calibrated log-odds that an image is degraded (compressed, blurred, '
        "upscaled, noisy): higher is worse.</p>"
    )


def _rule(outcome: FilterOutcome) -> str:
    options, by = outcome.options, outcome.decisions.by
    if options.reject is not None:
        return f"reject the worst {100 * options.reject:g} %{' of each source' if options.per_source else ''} by {by}"
    if options.reject_kinds is not None:
        limits = ", ".join(f"{kind} above {limit:g}" for kind, limit in options.kind_limits.items())
        return f"reject what has the probability of {limits}"
    return f"reject what has {by} above {options.max_logit:g}"


def _reasons(outcome: FilterOutcome) -> str:
    """How many images were rejected for what; nothing where one number decided."""
    decisions = outcome.decisions
    if not decisions.kinds:
        return ""
    rejected = max(decisions.count(State.REJECTED), 1)
    limits = outcome.options.kind_limits
    head = ["kind", "rejected", "% of rejected"]
    rows = [[kind, f"{n}", f"{100 * n / rejected:.1f}"] for kind, n in decisions.rejected_by_kind().items()]
    if outcome.options.reject is None:
        head.append("largest probability kept")
        rows = [[*row, f"{limits[row[0]]:g}"] for row in rows]
    return _table("Reasons", head, rows) + (
        '<p class="note">An image is rejected for the kind that is furthest above its threshold; it may have others '
        "too. Excess: log-odds of that kind less those of its threshold.</p>"
    )


def _table(title: str, head: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    top = "" if head is None else f"<thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr></thead>"
    body = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    kind = ' class="facts"' if head is None else ""
    return f"<h2>{html.escape(title)}</h2>\n<table{kind}>{top}<tbody>\n{body}\n</tbody></table>"


def _rates(title: str, head: str, rates: Sequence[KeepRate], decisions: Decisions) -> str:
    if not rates:
        return f"<h2>{html.escape(title)}</h2><p>The scores do not say.</p>"
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in (head, "images", "kept", "kept %", "mean", ""))
    lines = [
        f"<tr><td>{html.escape(rate.name)}</td><td>{rate.images}</td><td>{rate.kept}</td><td>{_percent(rate.rate)}</td>"
        f"<td>{_number(rate.mean)}</td><td>{_bar(rate)}</td></tr>"
        for rate in rates[:_SOURCES]
    ]
    more = len(rates) - _SOURCES
    note = f'<p class="note">and {more} smaller ones</p>' if more > 0 else ""
    mean = f'<p class="note">mean: of {html.escape(decisions.by)} over the scored images of the row</p>'
    return (
        f"<h2>{html.escape(title)}</h2>\n<table><thead><tr>{cells}</tr></thead><tbody>\n"
        + "\n".join(lines)
        + f"\n</tbody></table>{note}{mean}"
    )


def _bar(rate: KeepRate) -> str:
    if not rate.images:
        return ""
    kept = round(120 * rate.rate)
    return f'<span class="bar" style="width:{kept}px"></span><span class="rest" style="width:{120 - kept}px"></span>'


def _histogram(decisions: Decisions) -> str:
    """Kept and rejected images by the deciding column, stacked; the outer half percents are in the outer bars."""
    used = np.isfinite(decisions.values) & (decisions.states <= State.REJECTED)
    values = decisions.values[used]
    low, high = np.quantile(values, [0.005, 0.995])
    single = None not in decisions.thresholds
    threshold = None if single else decisions.thresholds[None]
    if threshold is not None and math.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    inside = np.clip(values, low, high)
    kept, rejected = (
        np.histogram(inside[decisions.states[used] == state], _BINS, (low, high))[0]
        for state in (State.KEPT, State.REJECTED)
    )
    tallest = max(int((kept + rejected).max()), 1)
    parts = []
    step = _WIDTH / _BINS
    for place in range(_BINS):
        base = float(_HEIGHT)
        begin, end = (low + (high - low) * (place + k) / _BINS for k in (0, 1))
        for count, color, word in ((kept[place], "#2f6fb5", "kept"), (rejected[place], "#e08a3c", "rejected")):
            tall = _HEIGHT * float(count) / tallest
            base -= tall
            if count:
                parts.append(
                    f'<rect x="{place * step + 0.5:.1f}" y="{base:.1f}" width="{step - 1:.1f}" height="{tall:.1f}" '
                    f'fill="{color}"><title>{begin:.3g} to {end:.3g}: {count} {word}</title></rect>'
                )
    parts += [_tick(low + (high - low) * k / 8, _WIDTH * k / 8) for k in range(9)]
    if threshold is not None and math.isfinite(threshold):
        x = _WIDTH * (threshold - low) / (high - low)
        anchor, shift = ("end", -4) if x > _WIDTH / 2 else ("start", 4)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#1d2430" stroke-dasharray="4 3"/>'
            f'<text x="{x + shift:.1f}" y="12" text-anchor="{anchor}">threshold {_number(threshold)}</text>'
        )
    return (
        f"<h2>Histogram of {html.escape(decisions.by)}</h2>\n"
        '<p class="note"><span class="bar" style="width:1em"></span> kept '
        f'<span class="rest" style="width:1em"></span> rejected; the tallest bar is {counted(tallest, "image")}</p>\n'
        f'<svg role="img" aria-label="histogram" width="{_WIDTH + 40}" height="{_HEIGHT + _AXIS}" '
        f'viewBox="-20 0 {_WIDTH + 40} {_HEIGHT + _AXIS}" xmlns="http://www.w3.org/2000/svg">'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#9aa4b0"/>{"".join(parts)}</svg>'
    )


def _tick(value: float, x: float) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{value:.3g}</text>'


def _galleries(outcome: FilterOutcome, captions: dict[int, dict[str, float]]) -> str:
    gallery = outcome.gallery
    groups = (
        ("Rejected: the worst", gallery.worst),
        ("Rejected: next to the threshold", gallery.barely_rejected),
        ("Kept: next to the threshold", gallery.barely_kept),
        (f"Kept: {len(gallery.kept)} at random", gallery.kept),
    )
    parts = ['<h2>Gallery</h2><p class="note">Left the whole image, right its middle, pixel by pixel.</p>']
    for title, rows in groups:
        cards = "\n".join(_card(outcome, row, captions[row]) for row in rows)
        parts.append(f'<h3>{html.escape(title)}</h3>\n<div class="cards">\n{cards or "none"}\n</div>')
    return "\n".join(parts)


def _card(outcome: FilterOutcome, row: int, caption: dict[str, float]) -> str:
    shard, key = outcome.names[row]
    shown = outcome.pictures.get(row)
    pictures = [] if shown is None else [data for data in (shown.small, shown.piece) if data]
    images = "".join(f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">' for data in pictures)
    side = "kept" if outcome.decisions.states[row] == State.KEPT else "dropped"
    numbers = ", ".join(f"{html.escape(name)} {_number(value)}" for name, value in caption.items())
    where = "" if shard is None else f" in {html.escape(shard)}"
    reason = _reason(outcome.decisions, row)
    return (
        f'<figure class="{side}"><div>{images or "(not shown)"}</div>'
        f"<figcaption><b>{html.escape(key)}</b>{where}<br>{reason}{numbers}</figcaption></figure>"
    )


def _reason(decisions: Decisions, row: int) -> str:
    """What a rejected image was rejected for, in a line of its own."""
    if decisions.reasons is None or decisions.states[row] != State.REJECTED:
        return ""
    return f"<b>{html.escape(decisions.kinds[decisions.reasons[row]])}</b><br>"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _percent(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{100 * rate:.1f}"
