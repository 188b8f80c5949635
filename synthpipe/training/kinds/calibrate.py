"""From clean images to a scorer by kinds: mixtures, a fit, calibrated probabilities, and what they are worth unseen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.config.calibration import KindCalibrationOptions
from synthpipe.density.detection import auroc
from synthpipe.density.kinds.fit import calibrate_pooling, fit_network
from synthpipe.density.kinds.scorer import FEATURE_NAMES, KINDS, KindScorer
from synthpipe.density.reliability import ReliabilityBin, largest_bias, reliability_bins
from synthpipe.density.scorer import QUANTILE_TILES
from synthpipe.errors import TrainingError, counted
from synthpipe.files.source_files import refuse_overlap
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import to_float
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.calibration import CleanImages, clean_quantiles, named_images
from synthpipe.training.kinds.mixtures import UNKNOWN, Mixture, draw_mixture
from synthpipe.training.kinds.originals import draw_original
from synthpipe.transforms.density import cut_tiles, tile_places

__all__ = ["FittedKinds", "fit_kinds", "reliability"]

#: Pictures that a bin of a reliability diagram must rest on, and copies where bins are left as they are.
_LEAST_PICTURES, _LEAST_COPIES = 20.0, 20
_MOST_TILES = max(QUANTILE_TILES)
#: Widths of the network's layers, and kinds that are calibrated by the others as well: not that of drawn pictures, of
#: which nobody knows the others.
_HIDDEN, _IN_CONTEXT = (256, 128), tuple(kind for kind in KINDS if kind != "graphics")
#: Copies of changed originals have draws of their own, from this number on, or behind the others.
_FIRST_CRISP = 100
#: Kinds that a softer original may be taken for; whether it has them nobody has to know.
_SOFT_KINDS = [KINDS.index(kind) for kind in ("blur", "enlargement")]


class FittedKinds(NamedTuple):
    """A fitted scorer, and what belongs in its header: data, settings, figures on the images held out."""

    scorer: KindScorer
    info: dict[str, Any]


class _Copies(NamedTuple):
    """What was measured of copies: statistics ``(k, F)`` of the tiles of each, labels, strengths, whose they are, and
    statistics of clean images."""

    tiles: list[Tensor]
    labels: Tensor
    strengths: Tensor
    owners: Tensor
    clean: list[Tensor]


class _Unseen(NamedTuple):
    """Logits ``(k, kinds)`` of the tiles of all copies and clean images, by networks that did not see the image."""

    copies: list[Tensor]
    clean: list[Tensor]


def fit_kinds(
    clean: str | Path | Sequence[str | Path], options: KindCalibrationOptions, progress: bool = False
) -> FittedKinds:
    """Fit a scorer by kinds on clean images and mixtures of degradations of them.

    The network is fitted on all images.  Its probabilities are calibrated by cross-fitting: each share of the images is
    judged by a network that was fitted on the other shares, so that every image says how sure one may be.

    Args:
        clean: folders of clean images, searched with all below them; broken and small ones are skipped and counted.
        options: copies, noises, seed.
        progress: show a bar on a terminal.

    Returns:
        The scorer (eval mode, on the CPU).  ``info["held_out"]`` has a row for each kind, see :func:`reliability`, of
        images that neither network nor calibration saw.

    Raises:
        TrainingError: too few usable images.
        CheckpointError: ``noises`` that are no DeFlow.
    """
    folders = [clean] if isinstance(clean, str | Path) else list(clean)
    refuse_overlap([str(folder) for folder in folders])
    scorer = _new_scorer()
    noises = [_noise(weights) for weights in options.noises]
    images = CleanImages(scorer.tile + 32, options.max_pixels)
    copies = _read(scorer, images, named_images(folders), noises, options, progress)
    shares = _shares(len(copies.clean), options)
    unseen = _judge_unseen(copies, shares, options)
    generator = generator_for(options.seed, "kinds")
    _fit_on(scorer, copies, torch.ones(len(copies.labels), dtype=torch.bool), generator, options)
    held_out = _calibrated_elsewhere(unseen.copies, copies, shares, options)
    calibrate_pooling(scorer, unseen.copies, copies.labels, generator)
    percents = scorer.quantile_table.shape[1]
    worst = clean_quantiles(unseen.clean, lambda few: scorer.image_logits(few[None]).amax(), options.seed, percents)
    scorer.quantile_table.copy_(worst)
    info = {
        "clean": [str(folder) for folder in folders],
        "images": len(copies.clean),
        "shares": int(shares.max()) + 1,
        "skipped": dict(images.skipped),
        "given_up": dict(sorted(images.given_up.items())),
        "noises": {weights: checkpoints.fingerprint(weights) for weights in options.noises},
        "options": options.model_dump(mode="json"),
        "held_out": reliability(scorer.kinds, held_out, copies.labels, copies.owners),
    }
    return FittedKinds(scorer.eval().requires_grad_(False), info)


def reliability(kinds: Sequence[str], logits: Tensor, labels: Tensor, owners: Tensor) -> dict[str, dict[str, Any]]:
    """For each kind, whether it is told apart and whether its probability is true, at even odds.

    Args:
        kinds: names.
        logits: ``(copies, kinds)``.
        labels: ``(copies, kinds)``: 1 there, 0 not, below 0 unknown.
        owners: ``(copies,)``, which picture each is a copy of.

    Returns:
        Of each kind: ``auroc``; ``images`` with the kind; ``largest_bias`` of five bins of equal width, merged until
        each rests on 20 pictures (None where there are fewer in all); ``equal_bins_bias``, before they are merged, of
        bins with 20 copies; and ``bins`` once they are merged: limits, effective pictures, mean probability, share that
        has the kind, and limits of what chance leaves of their difference (see
        :class:`~synthpipe.density.reliability.ReliabilityBin`).
    """
    rows = {}
    for place, kind in enumerate(kinds):
        known = labels[:, place] >= 0
        values, there, pictures = logits[known, place].double(), labels[known, place] == 1, owners[known]
        merged = reliability_bins(values.sigmoid(), there, pictures, least_groups=_LEAST_PICTURES)
        equal = reliability_bins(values.sigmoid(), there, pictures)
        rows[kind] = {
            "auroc": round(auroc(values[~there], values[there]), 4),
            "largest_bias": round(largest_bias(merged), 4) if merged[0].groups >= _LEAST_PICTURES else None,
            "equal_bins_bias": round(largest_bias(equal, _LEAST_COPIES), 4),
            "images": int(there.sum()),
            "bins": [_bin_row(one) for one in merged],
        }
    return rows


def _bin_row(one: ReliabilityBin) -> list[float]:
    numbers = (one.low, one.high, one.groups, one.probability, one.share, *one.interval)
    return [round(number, 3) for number in numbers]


def _shares(images: int, options: KindCalibrationOptions) -> Tensor:
    """Which share each image is held out with, ``(images,)``, 0 and up."""
    count = round(1 / options.holdout)
    if images < count:
        raise TrainingError(
            f"calibrate: too few, {counted(images, 'usable image')}, to make {count} shares to hold out in turn "
            f"(holdout {options.holdout:g}); give more images"
        )
    shares = torch.empty(images, dtype=torch.long)
    shares[torch.randperm(images, generator=generator_for(options.seed, "shares"))] = torch.arange(images) % count
    return shares


def _fit_on(
    scorer: KindScorer, copies: _Copies, use: Tensor, generator: torch.Generator, options: KindCalibrationOptions
) -> None:
    """Fit the network on the tiles of the copies that ``use (copies,)`` marks."""
    chosen = [copies.tiles[place] for place in use.nonzero()[:, 0].tolist()]
    counts = torch.tensor([len(few) for few in chosen])
    labels, strengths = (rows[use].repeat_interleave(counts, 0) for rows in (copies.labels, copies.strengths))
    fit_network(scorer, torch.cat(chosen), labels, generator, options.epochs, strengths)


def _judge_unseen(copies: _Copies, shares: Tensor, options: KindCalibrationOptions) -> _Unseen:
    """A network for each share of the images, fitted on all others."""
    found: dict[int, Tensor] = {}
    clean: dict[int, Tensor] = {}
    for share in range(int(shares.max()) + 1):
        network = _new_scorer()
        held = shares[copies.owners] == share
        _fit_on(network, copies, ~held, generator_for(options.seed, f"kinds without {share}"), options)
        for place in held.nonzero()[:, 0].tolist():
            found[place] = network.logits(copies.tiles[place])
        for place in (shares == share).nonzero()[:, 0].tolist():
            clean[place] = network.logits(copies.clean[place])
    return _Unseen([found[place] for place in sorted(found)], [clean[place] for place in sorted(clean)])


def _calibrated_elsewhere(
    logits: Sequence[Tensor], copies: _Copies, shares: Tensor, options: KindCalibrationOptions
) -> Tensor:
    """Image logits ``(copies, kinds)``, each calibrated on the other shares alone."""
    found = torch.empty(len(logits), copies.labels.shape[1])
    for share in range(int(shares.max()) + 1):
        scorer = _new_scorer()
        held = shares[copies.owners] == share
        others = [logits[place] for place in (~held).nonzero()[:, 0].tolist()]
        generator = generator_for(options.seed, f"pooling without {share}")
        calibrate_pooling(scorer, others, copies.labels[~held], generator)
        for place in held.nonzero()[:, 0].tolist():
            found[place] = scorer.image_logits(logits[place][None])[0]
    return found


@torch.no_grad()
def _read(
    scorer: KindScorer,
    images: CleanImages,
    named: Sequence[tuple[str, Path]],
    noises: Sequence[DeFlow],
    options: KindCalibrationOptions,
    progress: bool,
) -> _Copies:
    tiles, labels, strengths, owners = [], [], [], []
    clean: list[Tensor] = []
    for name, path in tqdm(named, unit="image", disable=None if progress else True):
        pixels = images.read(path)
        if pixels is None:
            continue
        image = to_float(pixels)
        # Draws of the first folder are those of its files' names, whether there are more folders or not.
        for mixture in _mixtures(image, name.removeprefix("0/"), noises, options):
            tiles.append(_statistics(scorer, mixture.image))
            labels.append(mixture.labels)
            strengths.append(mixture.strengths)
            owners.append(len(clean))
        clean.append(_statistics(scorer, image[None]))
    if not tiles:
        raise TrainingError(f"calibrate: no usable image {images.why_none()}")
    known = torch.stack(labels)
    assert int(known.min()) >= UNKNOWN
    return _Copies(tiles, known, torch.stack(strengths), torch.tensor(owners), clean)


def _mixtures(image: Tensor, name: str, noises: Sequence[DeFlow], options: KindCalibrationOptions) -> Iterator[Mixture]:
    """Copies of a picture as it is, then those of crisper and softer ones made of it."""
    for number in range(options.mixtures):
        yield draw_mixture(image, sample_seed(options.seed, number, name), options.reduce, noises)
    for number in range(options.crisp):
        original = draw_original(image, sample_seed(options.seed, number, f"crisp/{name}"))
        seed = sample_seed(options.seed, max(_FIRST_CRISP, options.mixtures) + number, name)
        mixture = draw_mixture(original.image, seed, options.reduce, noises)
        if original.soft:
            labels = mixture.labels
            labels[_SOFT_KINDS] = labels[_SOFT_KINDS].where(labels[_SOFT_KINDS] != 0, UNKNOWN)
        yield mixture


def _new_scorer() -> KindScorer:
    return KindScorer(FEATURE_NAMES, hidden=_HIDDEN, context=_IN_CONTEXT)


def _statistics(scorer: KindScorer, image: Tensor) -> Tensor:
    """Of up to 16 tiles all over the image ``(1, 3, H, W)``: ``(k, F)``."""
    places = tile_places(image.shape[2], image.shape[3], scorer.tile, _MOST_TILES)
    return scorer.statistics(cut_tiles(image, places, scorer.tile)[0])


def _noise(weights: str) -> DeFlow:
    model = checkpoints.load(weights, kind="deflow")
    assert isinstance(model, DeFlow)
    return model
