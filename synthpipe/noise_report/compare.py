"""How far made noise is from real noise: differences by kind, and one distance that a checkpoint can be picked by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from synthpipe.noise_report.figures import NoiseFigures

__all__ = ["LAG_PLACES", "LEAST_PIXELS", "LEAST_SIGMA", "Comparison", "compare"]

#: Pixels near a node below which nothing is said of it.
LEAST_PIXELS = 1500.0
#: Neighbours whose correlation counts, in rows and columns.
LAG_PLACES = {
    "lag1_across": (0, 1),
    "lag1_down": (1, 0),
    "lag1_diagonal": (1, 1),
    "lag2_across": (0, 2),
    "lag2_down": (2, 0),
}
#: Standard deviation below which rounding to 8 bits hides differences.
LEAST_SIGMA = 0.3 / 255


@dataclass(frozen=True)
class Comparison:
    """Made against real; ratios are natural logarithms, differences made minus real."""

    #: By node: real share of the area, 0 where one side has too little; then the log ratio of R, G, B, None there.
    weights: tuple[float, ...]
    log_sigma: tuple[tuple[float, float, float] | None, ...]
    #: Weighted means of these: over all, by node without the overall one, by channel without it.
    log_strength: float
    log_brightness: tuple[float | None, ...]
    log_channel: tuple[float, float, float]
    #: By the names of ``LAG_PLACES``.
    lags: dict[str, float]
    #: RG, GB, RB.
    channel_correlation: tuple[float, float, float]
    #: By ring, of the spectra over their means.
    log_spectrum: tuple[float, ...]
    excess_kurtosis: float
    #: Kullback-Leibler divergence of the histograms, real from made, nats.
    histogram_kld: float
    #: One number: see :func:`compare`.
    distance: float

    def summary(self) -> dict[str, float]:
        """The distance and its largest parts, for a curve."""
        return {
            "distance": self.distance,
            "sigma_ratio": math.exp(self.log_strength),
            "lag1_difference": (self.lags["lag1_across"] + self.lags["lag1_down"]) / 2,
            "channel_difference": sum(self.channel_correlation) / 3,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and ``None``: what JSON can hold."""
        return asdict(self)


def compare(made: NoiseFigures, real: NoiseFigures) -> Comparison | None:
    """Compare two sides; None where they have no brightness in common.

    The distance is the sum of the absolute log ratio of sigma over all, and of three root mean squares: of what the log
    ratio is beside that at brightness nodes (weighted by the real side's area) and channels, of the difference of five
    correlations with neighbours, and of the difference of the three correlations of channels, which is left out where
    all real images are grey.  0 is equality; 0.1 is 10% in sigma, or 0.1 in every correlation of a kind.  Strength
    counts by itself: within one root mean square it would hardly be seen beside what single brightnesses are off by,
    which seldom changes in a training.
    """
    known = [min(a, b) >= LEAST_PIXELS for a, b in zip(made.counts, real.counts, strict=True)]
    area = sum(count for count, ok in zip(real.counts, known, strict=True) if ok)
    if not area:
        return None
    weights = tuple(count / area if ok else 0.0 for count, ok in zip(real.counts, known, strict=True))
    ratios = [_log_ratios(a, b) if ok else None for a, b, ok in zip(made.sigma, real.sigma, known, strict=True)]
    pairs = [(weight, ratio) for weight, ratio in zip(weights, ratios, strict=True) if ratio is not None]
    strength = sum(weight * sum(ratio) / 3 for weight, ratio in pairs)
    channel = [sum(weight * ratio[c] for weight, ratio in pairs) - strength for c in range(3)]
    lags = {name: made.lag(*place) - real.lag(*place) for name, place in LAG_PLACES.items()}
    colour = [a - b for a, b in zip(made.channel_correlation, real.channel_correlation, strict=True)]
    beside = math.sqrt(sum(weight * sum((value - strength) ** 2 for value in ratio) / 3 for weight, ratio in pairs))
    return Comparison(
        weights=weights,
        log_sigma=tuple(ratios),
        log_strength=strength,
        log_brightness=tuple(None if ratio is None else sum(ratio) / 3 - strength for ratio in ratios),
        log_channel=(channel[0], channel[1], channel[2]),
        lags=lags,
        channel_correlation=(colour[0], colour[1], colour[2]),
        log_spectrum=tuple(
            math.log(max(a, 1e-4) / max(b, 1e-4)) for a, b in zip(made.spectrum, real.spectrum, strict=True)
        ),
        excess_kurtosis=made.excess_kurtosis - real.excess_kurtosis,
        histogram_kld=_kld(real.histogram, made.histogram),
        distance=abs(strength) + beside + _rms(list(lags.values())) + (0.0 if real.all_grey else _rms(colour)),
    )


def _log_ratios(made: tuple[float, float, float], real: tuple[float, float, float]) -> tuple[float, float, float]:
    r, g, b = (math.log(max(a, LEAST_SIGMA) / max(b, LEAST_SIGMA)) for a, b in zip(made, real, strict=True))
    return r, g, b


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _kld(real: tuple[float, ...], made: tuple[float, ...]) -> float:
    # A bin that only one side fills counts as a hundred-thousandth of the other.
    return sum(p * math.log(p / max(q, 1e-5)) for p, q in zip(real, made, strict=True) if p > 0)
