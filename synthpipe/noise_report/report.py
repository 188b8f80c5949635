"""A report: figures of all sides, comparisons, verdicts; as a page by :mod:`synthpipe.noise_report.page`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from synthpipe._version import __version__
from synthpipe.noise_report.compare import Comparison, compare
from synthpipe.noise_report.figures import NoiseFigures, figures_of_images, figures_of_pairs
from synthpipe.noise_report.verdicts import Place, Verdict, verdicts_of
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, residual_of

__all__ = ["PILE", "NoiseReport", "PictureRow", "Side", "make_report", "report_of"]

#: What made noise is compared with where there are no pairs.
PILE = "flat areas of the noisy pile"


@dataclass(frozen=True)
class PictureRow:
    """Crops ``(3, h, w)`` in [0, 1] of one size, to look at."""

    clean: Tensor
    degraded: Tensor
    #: A really degraded crop of like brightness, which shows something else; None: there is none.
    real: Tensor | None


@dataclass(frozen=True)
class Side:
    """Made noise against real noise."""

    #: What the real noise is of.
    name: str
    made: NoiseFigures | None
    real: NoiseFigures | None
    comparison: Comparison | None
    verdicts: tuple[Verdict, ...]
    #: Further numbers: of pairs, KLD and AKLD of the residuals.
    numbers: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "against": self.name,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "distance": None if self.comparison is None else self.comparison.distance,
            "numbers": dict(self.numbers),
            "made": None if self.made is None else self.made.as_dict(),
            "real": None if self.real is None else self.real.as_dict(),
            "comparison": None if self.comparison is None else self.comparison.as_dict(),
        }


@dataclass(frozen=True)
class NoiseReport:
    """What a report says."""

    title: str
    sides: tuple[Side, ...]
    pictures: tuple[PictureRow, ...] = ()
    #: What it was made of, as lines for the reader.
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Verdict]:
        """Rows that are neither within nor unmeasured."""
        return [
            verdict
            for side in self.sides
            for verdict in side.verdicts
            if verdict.status not in ("within", "not measured")
        ]

    def as_dict(self) -> dict[str, Any]:
        """All but the pictures: what JSON can hold."""
        return {
            "title": self.title,
            "synthpipe": __version__,
            "facts": dict(self.facts),
            "sides": [side.as_dict() for side in self.sides],
        }


def make_report(
    title: str,
    made: Iterable[tuple[Tensor, Tensor]],
    real: Iterable[Tensor] | None,
    *,
    pairs: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
    pictures: Sequence[PictureRow] = (),
    facts: Mapping[str, str] | None = None,
    place: Place = "stream",
) -> NoiseReport:
    """Measure and judge.

    Args:
        title: of the page.
        made: ``(clean, degraded)``, each ``(3, H, W)`` in [0, 1], of 8-bit values.
        real: really degraded photographs ``(3, H, W)``, uint8 or float in [0, 1]; None: none are compared with.
        pairs: ``(clean, really degraded, degraded by us)``, each as in ``made``.
        pictures: rows to look at.
        facts: lines for the reader.
        place: whose options the verdicts name.
    """
    sides = []
    made_figures = figures_of_pairs(made)
    if real is not None:
        sides.append(_side(PILE, made_figures, figures_of_images(real), place))
    if pairs:
        ours = figures_of_pairs((clean, made_here) for clean, _, made_here in pairs)
        theirs = figures_of_pairs((clean, noisy) for clean, noisy, _ in pairs)
        sides.append(_side("pairs", ours, theirs, place, _of_residuals(pairs)))
    if not sides:
        sides.append(Side("nothing: give real images", made_figures, None, None, ()))
    return NoiseReport(title, tuple(sides), tuple(pictures), dict(facts or {}))


def report_of(
    title: str,
    made: NoiseFigures | None,
    real: NoiseFigures | None,
    pictures: Sequence[PictureRow],
    facts: Mapping[str, str],
    place: Place,
) -> NoiseReport:
    """A report of what was measured already, against the flat areas of a pile; arguments as of :func:`make_report`."""
    return NoiseReport(title, (_side(PILE, made, real, place),), tuple(pictures), dict(facts))


def _side(
    name: str,
    made: NoiseFigures | None,
    real: NoiseFigures | None,
    place: Place,
    numbers: Mapping[str, float] | None = None,
) -> Side:
    found = None if made is None or real is None else compare(made, real)
    return Side(name, made, real, found, verdicts_of(made, real, found, place), dict(numbers or {}))


def _of_residuals(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """Of whole images, their local mean removed, as the camera recipe judges them."""
    theirs = [residual_of(noisy, clean, LOCAL_MEAN_WINDOW) for clean, noisy, _ in pairs]
    ours = [residual_of(made, clean, LOCAL_MEAN_WINDOW) for clean, _, made in pairs]
    return {"kld": histogram_kld(theirs, ours), "akld": akld(theirs, ours)}
