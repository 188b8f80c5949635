"""Results of all arms and seeds -> one table for each test, in Markdown and as JSON.

The figure of merit is the share of the gap between bicubic pairs and real pairs that an arm closes:
``(arm - bicubic) / (real - bicubic)`` in dB of PSNR, of one seed, with its own bicubic and real networks.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from arms import NOTHING, REAL, arm_names
from scenes import TESTS, Test

__all__ = ["rows_of", "table", "tone_table"]

_PARTS = ("choose", "judge")
_MEASURES = ("psnr", "ssim", "niqe", "tone")
#: Shares of the gap by what they are of.
_SHARES = {"share": "psnr", "share_tone": "tone"}
#: Shown with a share, whatever else there is.
_FLOOR = {1: NOTHING, 2: "bicubic", 4: "bicubic"}

Result = dict[str, Any]


def rows_of(results: Iterable[Result]) -> list[dict[str, Any]]:
    """A row for each test and arm that has results: means, spreads, shares.

    ``choose`` and ``judge`` are the means over their columns (cameras, scenes), the columns themselves stand beside
    them.  Each entry of ``psnr``, ``ssim``, ``niqe``, ``tone`` (PSNR with the reference's tone), ``share`` and
    ``share_tone`` is ``{"mean": ..., "each": [of every seed]}``.
    """
    by_test: dict[str, dict[str, list[Result]]] = {}
    for result in sorted(results, key=lambda r: r["seed"]):
        by_test.setdefault(result["test"], {}).setdefault(result["arm"], []).append(_with_parts(result))
    rows = []
    for test in TESTS.values():
        arms = by_test.get(test.name, {})
        for arm in arm_names(test):
            if arm in arms:
                rows.append(_row(test, arm, arms))
    return rows


def _row(test: Test, arm: str, arms: dict[str, list[Result]]) -> dict[str, Any]:
    seeds = arms[arm]
    row: dict[str, Any] = {"test": test.name, "arm": arm, "seeds": [result["seed"] for result in seeds]}
    for measure in _MEASURES:
        row[measure] = {c: _summary([r[measure][c] for r in seeds if c in r[measure]]) for c in seeds[0][measure]}
    for name, measure in _SHARES.items():
        row[name] = {
            column: _summary(shares)
            for column in row[measure]
            if column.startswith(_PARTS) and (shares := _shares(seeds, arms, test, measure, column))
        }
    times = [r["training_seconds"] for r in seeds if r["training_seconds"] is not None]
    row["training_seconds"] = _summary(times) if times else None
    return row


def _shares(
    seeds: Sequence[Result], arms: dict[str, list[Result]], test: Test, measure: str, column: str
) -> list[float]:
    """Of the seeds that have both ends of the gap, too."""
    floors, ceilings = (_by_seed(arms.get(name, []), measure, column) for name in (_FLOOR[test.scale], REAL))
    if _FLOOR[test.scale] == NOTHING:  # one row for all seeds
        floors = dict.fromkeys(ceilings, next(iter(floors.values()), None)) if floors else {}
    shares = []
    for seed, value in _by_seed(seeds, measure, column).items():
        seed = seed if seed in ceilings else next(iter(ceilings), None)
        floor, ceiling = floors.get(seed), ceilings.get(seed)
        if floor is not None and ceiling is not None and ceiling != floor:
            shares.append((value - floor) / (ceiling - floor))
    return shares


def _by_seed(results: Sequence[Result], measure: str, column: str) -> dict[Any, float]:
    return {result["seed"]: result[measure][column] for result in results if column in result[measure]}


def _with_parts(result: Result) -> Result:
    """The result with the means over the columns of each part."""
    result = dict(result)
    for measure in _MEASURES:
        # Results of before `tone` was measured have none.
        columns = dict(result.get(measure, {}))
        parts = {}
        for part in _PARTS:
            values = [value for name, value in columns.items() if name.startswith(f"{part}_")]
            if values:
                parts[part] = statistics.fmean(values)
        result[measure] = parts | columns
    return result


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "each": list(values)}


def table(rows: Sequence[dict[str, Any]], test: str) -> str:
    """Markdown: PSNR (and the share of the gap) of each column, means of the seeds; ± their standard deviation."""
    rows = [row for row in rows if row["test"] == test]
    columns = _columns(rows, "psnr")
    further = [f"{m} {c}" for m in ("ssim", "niqe") for c in ("judge",) if any(c in row[m] for row in rows)]
    heads = ["trained on", "seeds", *columns, *further, "seconds"]
    lines = ["| " + " | ".join(heads).replace("_", " ") + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [row["arm"], str(len(row["seeds"])), *(_cell(row, column) for column in columns)]
        for name in further:
            measure, column = name.split()
            found = row[measure].get(column)
            cells.append("-" if found is None else f"{found['mean']:.{3 if measure == 'ssim' else 2}f}")
        seconds = row["training_seconds"]
        cells.append("-" if seconds is None else f"{seconds['mean']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tone_table(rows: Sequence[dict[str, Any]], test: str) -> str:
    """The same of PSNR with the reference's tone; empty where it was not measured."""
    rows = [row for row in rows if row["test"] == test and row["tone"]]
    columns = _columns(rows, "tone")
    heads = ["trained on, with the reference's tone", "seeds", *columns]
    lines = ["| " + " | ".join(heads).replace("_", " ") + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        seeds = str(len(row["tone"][columns[0]]["each"]))
        cells = (_cell(row, column, "tone", "share_tone") for column in columns)
        lines.append("| " + " | ".join([row["arm"], seeds, *cells]) + " |")
    return "\n".join(lines) if rows else ""


def _columns(rows: Sequence[dict[str, Any]], measure: str) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row[measure]))


def _cell(row: dict[str, Any], column: str, measure: str = "psnr", shares: str = "share") -> str:
    psnr = row[measure].get(column)
    if psnr is None or psnr["mean"] > 90:
        return "-"
    text = f"{psnr['mean']:.2f}"
    if len(psnr["each"]) > 1 and column in _PARTS:
        text += f" ± {statistics.stdev(psnr['each']):.2f}"
    share = row[shares].get(column)
    return text if share is None or row["arm"] == REAL else f"{text} ({100 * share['mean']:.0f}%)"
