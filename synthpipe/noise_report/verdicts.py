"""What a comparison means, in words, one row for each kind of difference, and the option that changes it.

The bounds are those of the camera recipe's targets (``recipes/deflow_cameras``): sigma within 15%, correlation of
neighbours within 0.10 and of channels within 0.12.  What is missing to three quarters where the real noise clearly has
it counts as *not learned*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from synthpipe.noise_report.compare import LEAST_PIXELS, LEAST_SIGMA, Comparison
from synthpipe.noise_report.figures import NoiseFigures

__all__ = ["Place", "Status", "Verdict", "verdicts_of"]

Status = Literal["within", "too strong", "too weak", "differs", "not learned", "not measured"]
#: Where the noise comes from: a stream, whose degradation can be set, or a training.
Place = Literal["stream", "training"]

#: Log ratios of sigma; differences of correlations; log ratios of bands of the spectrum; divergence of histograms.
_SIGMA, _BRIGHTNESS, _LAG, _COLOUR, _BAND, _TAILS = math.log(1.15), math.log(1.2), 0.10, 0.12, math.log(1.35), 0.02
#: Below this share of the real side's nothing was learned, and from where on the real side clearly has it.
_MISSING, _CLEAR_LAG, _CLEAR_RANGE = 0.25, 0.15, math.log(1.3)
#: Share of the area from which a brightness has a say.
_SAY = 0.02

_OPTIONS: dict[str, dict[Place, str]] = {
    "strength": {
        "stream": "degrade: level (sigma of 255) of weights that know levels, or strength; else other weights",
        "training": "calibrate: true; model.level: true where ISO settings differ; then max_steps",
    },
    "brightness": {
        "stream": "other weights, or type: poisson_gaussian with a and b of noise_fit",
        "training": "calibrate: true; model.covariance: colour; clean images of these brightnesses (data.clean)",
    },
    "colour": {
        "stream": "other weights; by hand: covariance or a, b of each channel",
        "training": "calibrate: true; model.covariance: colour",
    },
    "neighbours": {
        "stream": "other weights; by hand: kernel of the noise; no resize behind the noise",
        "training": "calibrate: true; data.align: auto; data.clean.resize_range: auto; then max_steps",
    },
    "spectrum": {
        "stream": "other weights; by hand: kernel; a jpeg stage where the real images are coded",
        "training": "calibrate: true; data.align: auto (JPEG blocks); data.augment: auto; then max_steps",
    },
    "channels": {
        "stream": "other weights; by hand: correlation of the noise",
        "training": "calibrate: true; model.covariance: colour, which gives a full matrix of R, G, B",
    },
    "tails": {
        "stream": "a jpeg stage behind the noise, where the real images are coded; level: pile",
        "training": "model.level: true where levels differ; model.steps and max_steps",
    },
    "coverage": {
        "stream": "shards with images of these brightnesses",
        "training": "data.clean: add images of these brightnesses",
    },
}


@dataclass(frozen=True)
class Verdict:
    """One row."""

    subject: str
    status: Status
    words: str
    #: What to change; empty where nothing is wrong.
    option: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def verdicts_of(
    made: NoiseFigures | None, real: NoiseFigures | None, comparison: Comparison | None, place: Place = "stream"
) -> tuple[Verdict, ...]:
    """One row for each kind of difference, or one that says why nothing was measured.

    Args:
        made: noise that was generated; None where its clean images have no flat area.
        real: noise to compare with; None where there is no flat area.
        comparison: of both; None where they have no brightness in common.
        place: whose options are named.
    """
    if made is None or real is None or comparison is None:
        if real is None:
            reason = "the real images have no flat area to measure noise on"
        elif made is None:
            reason = "the clean images have no flat area to measure noise on"
        else:
            reason = f"no brightness has {LEAST_PIXELS:.0f} pixels of flat area in both"
        return (Verdict("everything", "not measured", reason, "give more images, with skies and walls in them"),)
    if _mean_sigma(real, comparison.weights) < 255 * LEAST_SIGMA:
        return (
            _with_option(_strength(made, real, comparison), "strength", place),
            Verdict(
                "everything else",
                "not measured",
                "the real images have no noise that correlation, spectrum and histogram could be measured of",
                "give images as they come from the camera; were the clean ones named instead?",
            ),
        )
    rules: tuple[Callable[..., Verdict], ...] = (
        _strength,
        _brightness,
        _colour,
        _neighbours,
        _channels,
        _spectrum,
        _tails,
        _coverage,
    )
    return tuple(_with_option(rule(made, real, comparison), rule.__name__[1:], place) for rule in rules)


def _with_option(verdict: Verdict, key: str, place: Place) -> Verdict:
    if verdict.status == "within" or verdict.option:
        return verdict
    if verdict.status == "not measured":
        key = "coverage"
    return Verdict(verdict.subject, verdict.status, verdict.words, _OPTIONS[key][place])


def _percent(log_ratio: float) -> str:
    """How far a ratio is from 1."""
    return f"too {'strong' if log_ratio > 0 else 'weak'} by {abs(math.exp(log_ratio) - 1):.0%}"


def _side(log_ratio: float) -> Status:
    return "too strong" if log_ratio > 0 else "too weak"


def _mean_sigma(figures: NoiseFigures, weights: Sequence[float]) -> float:
    """Of 255: root mean square over channels and brightnesses."""
    squares = sum(w * sum(s**2 for s in sigma) / 3 for w, sigma in zip(weights, figures.sigma, strict=True))
    return 255 * math.sqrt(squares)


def _strength(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    a, b = _mean_sigma(made, found.weights), _mean_sigma(real, found.weights)
    numbers = f"sigma {a:.2f} of 255 made, {b:.2f} real"
    if found.log_strength < math.log(_MISSING):
        return Verdict("strength", "not learned", f"hardly any noise: {numbers}")
    if b < 255 * LEAST_SIGMA and found.log_strength > _SIGMA:
        return Verdict("strength", "too strong", f"the real images have hardly any noise: {numbers}")
    if abs(found.log_strength) > _SIGMA:
        return Verdict("strength", _side(found.log_strength), f"{_percent(found.log_strength)}: {numbers}")
    return Verdict("strength", "within", f"within 15%: {numbers}")


def _shape(figures: NoiseFigures, weights: Sequence[float]) -> list[float]:
    """Log sigma at the brightnesses that have a say, without its mean."""
    said = [
        (w, math.log(max(1e-6, math.sqrt(sum(s**2 for s in sigma) / 3))))
        for w, sigma in zip(weights, figures.sigma, strict=True)
        if w >= _SAY
    ]
    mean = sum(w * value for w, value in said) / max(sum(w for w, _ in said), 1e-9)
    return [value - mean for _, value in said]


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0


def _brightness(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    subject = "noise by brightness"
    places = [
        (value, at)
        for value, at, weight in zip(found.log_brightness, real.brightness, found.weights, strict=True)
        if value is not None and weight >= _SAY
    ]
    if len(places) < 2:
        return Verdict(subject, "not measured", "fewer than two brightnesses have flat area in both")
    worst, at = max(places, key=lambda place: abs(place[0]))
    ours, theirs = _range(_shape(made, found.weights)), _range(_shape(real, found.weights))
    if theirs > _CLEAR_RANGE and ours < _MISSING * theirs and abs(worst) > _SIGMA:
        return Verdict(
            subject,
            "not learned",
            f"sigma is nearly the same everywhere, in real noise it changes by a factor of {math.exp(theirs):.1f}",
        )
    if abs(worst) > _BRIGHTNESS:
        return Verdict(
            subject, _side(worst), f"at brightness {at:.2f} {_percent(worst)}, beside what holds for all brightnesses"
        )
    return Verdict(subject, "within", f"within 20% at {len(places)} brightnesses, beside the strength of all")


def _colour(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    subject = "noise by channel"
    if real.all_grey:
        return _of_grey(subject, real)
    name, worst = max(zip("RGB", found.log_channel, strict=True), key=lambda pair: abs(pair[1]))
    if abs(worst) > _SIGMA:
        return Verdict(subject, _side(worst), f"{name} {_percent(worst)} beside the other channels")
    return Verdict(subject, "within", "R, G and B within 15% of each other's ratio")


def _correlated(subject: str, pairs: Sequence[tuple[str, float, float]], bound: float, spoken: str) -> Verdict:
    """By names with the correlation of made and real."""
    # Adding 0 takes the sign off a rounded -0.
    numbers = ", ".join(f"{name} {round(a, 2) + 0:.2f} made, {round(b, 2) + 0:.2f} real" for name, a, b in pairs)
    name, a, b = max(pairs, key=lambda pair: abs(pair[1] - pair[2]))
    if abs(a - b) <= bound:
        return Verdict(subject, "within", f"within {bound:.2f}: {numbers}")
    if abs(b) > _CLEAR_LAG and abs(a) < _MISSING * abs(b):
        return Verdict(subject, "not learned", f"{spoken} do not hang together: {numbers}")
    return Verdict(subject, _side(a - b), f"{name} too {'strong' if a > b else 'weak'} by {abs(a - b):.2f}: {numbers}")


def _neighbours(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    pairs = [
        (name, made.lag(*place), real.lag(*place))
        for name, place in (("across", (0, 1)), ("down", (1, 0)), ("two across", (0, 2)), ("two down", (2, 0)))
    ]
    return _correlated("correlation of neighbours", pairs, _LAG, "neighbours")


def _channels(made: NoiseFigures, real: NoiseFigures, comparison: Comparison) -> Verdict:
    pairs = list(zip(("RG", "GB", "RB"), made.channel_correlation, real.channel_correlation, strict=True))
    subject = "correlation of channels"
    if real.all_grey:
        return _of_grey(subject, real)
    found = _correlated(subject, pairs, _COLOUR, "channels")
    if not real.grey:
        return found
    return replace(found, words=f"{found.words}; {real.grey} of {real.images} real images are grey, where it is 1")


def _of_grey(subject: str, real: NoiseFigures) -> Verdict:
    """Channels of grey images are equal whatever degraded them."""
    which = "the real image is grey" if real.images == 1 else f"all {real.images} real images are grey"
    words = f"{which}: their channels are equal, and there is nothing to judge between them"
    return Verdict(subject, "not measured", words, "give images in colour, if the noise of colours is to be judged")


def _spectrum(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    subject = "power spectrum"
    third = len(made.spectrum) // 3
    cuts = {"low": (0, third), "middle": (third, 2 * third), "high": (2 * third, len(made.spectrum))}
    bands = {}
    for name, (first, last) in cuts.items():
        ours, theirs = sum(made.spectrum[first:last]), sum(real.spectrum[first:last])
        # A band that holds little of the power in both is no matter.
        floor = 0.05 * sum(real.spectrum)
        bands[name] = math.log((ours + floor) / (theirs + floor))
    name, worst = max(bands.items(), key=lambda band: abs(band[1]))
    if abs(worst) > _BAND:
        return Verdict(subject, _side(worst), f"{name} frequencies {_percent(worst)} in power")
    return Verdict(subject, "within", "power within 35% at low, middle and high frequencies")


def _tails(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    subject = "histogram"
    numbers = f"excess kurtosis {made.excess_kurtosis:.1f} made, {real.excess_kurtosis:.1f} real"
    if found.histogram_kld > _TAILS:
        heavier = "heavy" if found.excess_kurtosis > 0 else "light"
        return Verdict(subject, "differs", f"tails too {heavier}: {numbers}, divergence {found.histogram_kld:.3f} nats")
    return Verdict(subject, "within", f"divergence {found.histogram_kld:.3f} nats, {numbers}")


def _coverage(made: NoiseFigures, real: NoiseFigures, found: Comparison) -> Verdict:
    subject = "brightnesses compared"
    total = sum(real.counts)
    missed = [
        f"{at:.2f}"
        for at, count, weight in zip(real.brightness, real.counts, found.weights, strict=True)
        if not weight and count >= max(LEAST_PIXELS, _SAY * total)
    ]
    if missed:
        return Verdict(
            subject, "not measured", f"clean images have no flat area at {', '.join(missed)}, real ones have"
        )
    return Verdict(subject, "within", f"{sum(1 for w in found.weights if w)} of {len(found.weights)} are in both")
