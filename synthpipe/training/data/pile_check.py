"""Whether two unpaired piles fit together, said before a training: one finding for each way in which they may not.

A DeFlow takes for degradation whatever one pile has and the other lacks.  What an option makes up for fits with that
option; what no option does has to be mended in the piles.  The bounds stand beside each finding; what they make of
piles that fit and of piles that do not is in ``recipes/guides/report.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, counted
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.skip_advice import raise_limit
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.pile_choices import choices_for, crops_of, images_of
from synthpipe.training.data.pile_side import PileSide, measure_side
from synthpipe.training.data.piles import Piles, measure_piles

__all__ = ["Finding", "PileCheck", "check_piles", "findings_of"]

Fit = Literal["fits", "fits with options", "does not fit"]
_ORDER: tuple[Fit, ...] = ("fits", "fits with options", "does not fit")

#: Side of the smallest crops that training makes sense with, and of those of the default recipe.
_SMALLEST, _CROP = 64, 64
#: Megapixels of a pile below which noise is learned by heart, and below which it is little.
_TOO_LITTLE, _LITTLE = 0.5, 4.0
#: Factors between which the clean pile can be resized, and beyond which a learned blur does better than enlarging.
_LOWEST_FACTOR, _HIGHEST_FACTOR, _BLUR_FROM = 0.65, 2.7, 1.4
#: Share of the noisy pile's brightness that the clean one must have, and that it should have.
_LEAST_COVERAGE, _COVERAGE = 0.75, 0.95
#: Cast: logarithm of a ratio of channels that content explains, at most; errors that it must exceed.
_CAST, _CAST_ERRORS = 0.2, 3.0
#: Difference of the shares of grey crops that few images leave.
_GREY = 0.2
#: Sigma of 255 below which there is no noise to learn; level of the clean pile over that of the noisy one.
_NO_NOISE, _SWAPPED, _TOO_NOISY, _NOISY = 0.5, 1.25, 0.95, 0.5


@dataclass(frozen=True)
class Finding:
    """One way in which two piles may differ."""

    subject: str
    fit: Fit
    #: What was measured, and what follows.
    words: str


@dataclass(frozen=True)
class PileCheck:
    """What was measured on both piles, what it means, and the options that follow."""

    clean: PileSide
    noisy: PileSide
    piles: Piles
    findings: tuple[Finding, ...]
    #: Dotted option -> value, for the option file of ``kind: deflow``.
    options: dict[str, Any]

    @property
    def fit(self) -> Fit:
        """The worst of the findings."""
        return max((finding.fit for finding in self.findings), key=_ORDER.index)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and texts: what JSON can hold."""
        return {
            "fit": self.fit,
            "findings": [asdict(finding) for finding in self.findings],
            "options": self.options,
            "clean": self.clean.as_dict(),
            "noisy": self.noisy.as_dict(),
            "piles": self.piles.as_dict(),
        }


def check_piles(
    clean: str | Path, noisy: str | Path, scale: int = 1, seed: int = 0, max_pixels: int = MAX_PIXELS
) -> PileCheck:
    """Compare two folders of photographs by 24 crops of each, and the levels of up to 24 whole noisy ones.

    Args:
        clean: folder of clean images.
        noisy: folder of degraded ones.
        scale: clean images are reduced by this first, as ``data.clean.downscale`` does.
        seed: which crops.
        max_pixels: images of more are left out, and counted.

    Raises:
        OptionError: a value that training would refuse; one folder is the other, or lies in it.
        TrainingError: no folder, or no image of 64 pixels in it that can be read.
    """
    _refuse_one_pile(Path(clean), Path(noisy))
    options = parse_options(
        {
            "clean": {"folder": str(clean), "downscale": scale, "resize_range": None},
            "noisy": {"folder": str(noisy)},
            "augment": "auto",
            "align": "auto",
            "crop": _CROP,
            "max_pixels": max_pixels,
        },
        UnpairedOptions,
        source="synthpipe check",
    )
    sides, crops, images = {}, {}, {}
    for name, domain in (("clean", options.clean), ("noisy", options.noisy)):
        larger = "give larger images" + (" or a smaller --scale" if domain.downscale > 1 else "")
        cures = {"too_small": larger, "bomb": raise_limit("--max-pixels")}
        images[name] = pile = FolderDomain(name, domain, options, _SMALLEST, 1, seed, cures=cures)
        crops[name] = crops_of(pile)
        sides[name] = measure_side(crops[name], pile.sizes, pile.skipped, pile.passed_over)
    piles = measure_piles(crops["clean"], crops["noisy"], images_of(images["noisy"]))
    chosen: dict[str, Any] = {"data.clean.downscale": scale} if scale > 1 else {}
    if max_pixels != MAX_PIXELS:
        chosen["data.max_pixels"] = max_pixels
    for name, value in choices_for(options, piles).items():
        chosen[f"data.{'clean.' if name == 'resize_range' else ''}{name}"] = value
    chosen["model.level"] = piles.distinct_levels > 1
    return PileCheck(sides["clean"], sides["noisy"], piles, findings_of(sides["clean"], sides["noisy"], piles), chosen)


def _refuse_one_pile(clean: Path, noisy: Path) -> None:
    ours, theirs = clean.resolve(), noisy.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise OptionError(
            f"clean pile {str(clean)!r} and noisy pile {str(noisy)!r}: one is the other, or lies in it, so that its "
            "images would count as both; name two folders beside each other"
        )


def findings_of(clean: PileSide, noisy: PileSide, piles: Piles) -> tuple[Finding, ...]:
    """What two measured piles mean for a training."""
    return (
        _of_amount("clean images", clean),
        _of_amount("noisy images", noisy),
        _of_noise(clean, noisy),
        _of_levels(piles),
        _of_sharpness(piles),
        _of_brightness(clean, noisy, piles),
        _of_cast(clean, noisy),
        *_of_grey(clean, noisy),
        _of_grid(clean, piles),
        Finding("direction", "fits", f"{piles.direction_words()}: data.augment: {piles.augment}"),
    )


def _of_amount(name: str, side: PileSide) -> Finding:
    found = f"{counted(side.images, 'image')}, {side.megapixels:.1f} megapixels, "
    found += f"shorter side {side.short_side}"
    if side.too_small:
        found += f", {side.too_small} more below {_SMALLEST} pixels"
    if side.unreadable:
        found += f"; {side.unreadable} of the files that were tried cannot be read"
    if side.too_large:
        found += f"; {side.too_large} have too many pixels and are left out ({raise_limit('--max-pixels')})"
    if side.passed_over:
        found += f"; passed over: {passed_over_text(side.passed_over)}"
    if side.too_small > side.images:
        return Finding(name, "does not fit", f"{found}: most are too small for crops of {_CROP}; give larger ones")
    if side.megapixels < _TOO_LITTLE:
        return Finding(name, "does not fit", f"{found}: too little to learn from; give at least {_LITTLE:g} megapixels")
    if side.megapixels < _LITTLE:
        return Finding(name, "fits with options", f"{found}: little; add images, or expect brightnesses to be missing")
    if side.unreadable:
        return Finding(name, "fits with options", f"{found}: what cannot be read is skipped; mend or remove it")
    return Finding(name, "fits", found)


def _of_noise(clean: PileSide, noisy: PileSide) -> Finding:
    if clean.level is None or noisy.level is None:
        which = "clean" if clean.level is None else "noisy"
        return Finding(
            "noise", "fits with options", f"the {which} pile has no flat area to measure noise on; look at its images"
        )
    found = f"sigma {clean.level:.1f} of 255 in the clean pile, {noisy.level:.1f} in the noisy one"
    if noisy.level < _NO_NOISE:
        return Finding(
            "noise",
            "does not fit",
            f"{found}: the noisy pile has no noise to learn; give images as they come from the camera, or use a chain "
            "(degrade: [jpeg, ...]) for blur and compression",
        )
    ratio = clean.level / max(noisy.level, 1e-3)
    if ratio > _SWAPPED:
        return Finding("noise", "does not fit", f"{found}: the clean pile is the noisier one; were they swapped?")
    if ratio > _TOO_NOISY:
        return Finding(
            "noise", "does not fit", f"{found}: both are alike; clean the clean pile, or reduce it (--scale)"
        )
    if ratio > _NOISY:
        return Finding(
            "noise",
            "fits with options",
            f"{found}: what the clean pile has of it is not learned; calibrate: true makes up for it on flat areas, "
            "or reduce its images (data.clean.downscale: 2) or denoise them first",
        )
    return Finding("noise", "fits", found)


def _of_levels(piles: Piles) -> Finding:
    if piles.distinct_levels > 1:
        return Finding("levels", "fits with options", f"{piles.level_words()}: model.level: true")
    return Finding("levels", "fits", piles.level_words())


def _of_sharpness(piles: Piles) -> Finding:
    name, factor = "sharpness", piles.softness
    if piles.resize_range is None:
        return Finding(name, "fits", f"structure is as sharp in both (clean images resized by {factor:.2f})")
    if factor < _LOWEST_FACTOR:
        return Finding(
            name,
            "does not fit",
            f"the clean pile is much softer: reduced by {factor:.2f} it is as sharp as the noisy one; were its images "
            "enlarged or out of focus? Give sharper ones, or reduce them (--scale 2)",
        )
    if factor > _HIGHEST_FACTOR:
        return Finding(
            name,
            "does not fit",
            f"the noisy pile is far softer: only clean images enlarged by {factor:.2f} are alike; reduce the noisy "
            "images (data.noisy.downscale: 2), or learn their blur first (kind: kernels, then data.clean.blur)",
        )
    verb, sharper = ("enlarged", "clean") if factor > 1 else ("reduced", "noisy")
    words = f"the {sharper} pile is sharper: clean images {verb} by {factor:.2f} are alike: data.clean.resize_range: "
    words += f"{list(piles.resize_range)}"
    if factor > _BLUR_FROM:
        words += "; or, where detail must keep its size, data.clean.blur with weights of kind: kernels"
    return Finding(name, "fits with options", words)


def _of_brightness(clean: PileSide, noisy: PileSide, piles: Piles) -> Finding:
    ours, theirs = (f"{side.brightness[0]:.2f} to {side.brightness[2]:.2f}" for side in (clean, noisy))
    found = f"clean {ours}, noisy {theirs} of 1; the clean pile has {piles.coverage:.0%} of the noisy one's"
    if piles.coverage < _LEAST_COVERAGE:
        return Finding(
            "brightness", "does not fit", f"{found}: noise at the others is not learned; give such clean images"
        )
    if piles.coverage < _COVERAGE:
        return Finding("brightness", "fits with options", f"{found}: noise at the others is not learned; add some")
    return Finding("brightness", "fits", found)


def _of_cast(clean: PileSide, noisy: PileSide) -> Finding:
    apart = [theirs - ours for ours, theirs in zip(clean.cast, noisy.cast, strict=True)]
    errors = [(a**2 + b**2) ** 0.5 for a, b in zip(clean.cast_error, noisy.cast_error, strict=True)]
    words = [f"{abs(value):.0%} {'more' if value > 0 else 'less'}" for value in (2.718281828**a - 1 for a in apart)]
    found = f"in bright areas the noisy pile has {words[0]} red and {words[1]} blue beside green"
    if any(abs(value) > max(_CAST, _CAST_ERRORS * error) for value, error in zip(apart, errors, strict=True)):
        return Finding(
            "colour cast",
            "does not fit",
            f"{found}: the cast is learned as degradation; balance the white of one pile, or give photographs of "
            "like light",
        )
    return Finding("colour cast", "fits", found)


def _of_grey(clean: PileSide, noisy: PileSide) -> tuple[Finding, ...]:
    """Nothing where both piles are in colour, as piles mostly are."""
    if clean.grey == noisy.grey == 0:
        return ()
    found = f"{clean.grey:.0%} of the crops of the clean pile are grey, {noisy.grey:.0%} of the noisy one's"
    if abs(clean.grey - noisy.grey) <= _GREY:
        return (Finding("grey images", "fits", found),)
    less = "is lost" if noisy.grey > clean.grey else "appears"
    return (
        Finding(
            "grey images",
            "does not fit",
            f"{found}: that colour {less} is learned as degradation; leave out the grey images, or make both piles so",
        ),
    )


def _of_grid(clean: PileSide, piles: Piles) -> Finding:
    ours = "no JPEG blocks" if clean.grid is None else f"JPEG blocks of {clean.grid} pixels"
    if piles.grid is None:
        found = f"{ours} in the clean pile, none in the noisy one"
        if clean.grid is None:
            return Finding("compression", "fits", found)
        return Finding(
            "compression",
            "fits with options",
            f"{found}: the noisy images were resized or come from raw files; the blocks of the clean ones do not count "
            "where they are resized (data.clean.resize_range or downscale)",
        )
    if piles.align == 1:
        return Finding(
            "compression",
            "fits with options",
            f"{ours} in the clean pile; those of the noisy one begin at {piles.grid_phase}, not at the corner: it was "
            "cropped after coding, and crops begin anywhere",
        )
    words = f"{ours} in the clean pile, blocks of {piles.grid} pixels in the noisy one: data.align: {piles.align}"
    return Finding("compression", "fits", words)
