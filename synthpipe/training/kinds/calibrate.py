"""From clean images to a scorer by kinds: mixtures, a fit, calibrated probabilities, and what they are worth unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.config.calibration import KindCalibrationOptions
from synthpipe.density.detection import auroc, largest_bias
from synthpipe.density.kinds.fit import calibrate_pooling, fit_network
from synthpipe.density.kinds.scorer import FEATURE_NAMES, KindScorer
from synthpipe.density.scorer import QUANTILE_TILES
from synthpipe.errors import TrainingError
from synthpipe.files.source_files import refuse_overlap
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import to_float
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.calibration import CleanImages, clean_quantiles, split_images
from synthpipe.training.kinds.mixtures import UNKNOWN, draw_mixture
from synthpipe.transforms.density import cut_tiles, tile_places

__all__ = ["FittedKinds", "fit_kinds", "reliability"]

_CLEAN = "clean"
_MOST_TILES = max(QUANTILE_TILES)


class FittedKinds(NamedTuple):
    """A fitted scorer, and what belongs in its header: data, settings, figures on the images held out."""

    scorer: KindScorer
    info: dict[str, Any]


class _Copies(NamedTuple):
    """What was measured of copies: statistics ``(k, F)`` of the tiles of each, labels, and the same of clean images."""

    tiles: list[Tensor]
    labels: Tensor
    clean: list[Tensor]


def fit_kinds(
    clean: str | Path | Sequence[str | Path], options: KindCalibrationOptions, progress: bool = False
) -> FittedKinds:
    """Fit a scorer by kinds on clean images and mixtures of degradations of them.

    Args:
        clean: folders of clean images, searched with all below them; broken and small ones are skipped and counted.
        options: copies, noises, seed.
        progress: show a bar on a terminal.

    Returns:
        The scorer (eval mode, on the CPU).  ``info["held_out"]`` has a row for each kind, of images: ``auroc``,
        ``largest_bias`` (see :func:`~synthpipe.density.detection.largest_bias`), ``images`` with the kind.

    Raises:
        TrainingError: too few usable images.
        CheckpointError: ``noises`` that are no DeFlow.
    """
    folders = [clean] if isinstance(clean, str | Path) else list(clean)
    refuse_overlap([str(folder) for folder in folders])
    scorer = KindScorer(FEATURE_NAMES)
    noises = [_noise(weights) for weights in options.noises]
    fit_on, held_out = split_images(folders, options.holdout, options.seed, _CLEAN)
    images = CleanImages(scorer.tile + 32, options.max_pixels)
    with (
        torch.no_grad(),
        tqdm(total=len(fit_on) + len(held_out), unit="image", disable=None if progress else True) as bar,
    ):
        seen = _read(scorer, images, fit_on, noises, options, bar)
        unseen = _read(scorer, images, held_out, noises, options, bar)
    generator = generator_for(options.seed, "kinds")
    labels = torch.cat([label.expand(len(few), -1) for few, label in zip(seen.tiles, seen.labels, strict=True)])
    fit_network(scorer, torch.cat(seen.tiles), labels, generator, options.epochs)
    logits = [scorer.logits(few) for few in unseen.tiles]
    calibrate_pooling(scorer, logits, unseen.labels, generator)
    tiles = [scorer.logits(few) for few in unseen.clean]
    percents = scorer.quantile_table.shape[1]
    worst = clean_quantiles(tiles, lambda few: scorer.image_logits(few[None]).amax(), options.seed, percents)
    scorer.quantile_table.copy_(worst)
    found = torch.stack([scorer.image_logits(few[None])[0] for few in logits])
    info = {
        "clean": [str(folder) for folder in folders],
        "images_fitted": len(fit_on),
        "images_held_out": len(held_out),
        "skipped": dict(images.skipped),
        "given_up": dict(sorted(images.given_up.items())),
        "noises": {weights: checkpoints.fingerprint(weights) for weights in options.noises},
        "options": options.model_dump(mode="json"),
        "held_out": reliability(scorer.kinds, found, unseen.labels),
    }
    return FittedKinds(scorer.eval().requires_grad_(False), info)


def reliability(kinds: Sequence[str], logits: Tensor, labels: Tensor) -> dict[str, dict[str, Any]]:
    """For each kind: AUROC, largest bias of the probability at even odds, and how many images have the kind.

    Args:
        kinds: names.
        logits: ``(images, kinds)``.
        labels: ``(images, kinds)``: 1 there, 0 not, below 0 unknown.
    """
    rows = {}
    for place, kind in enumerate(kinds):
        without, there = (logits[labels[:, place] == side, place] for side in (0, 1))
        rows[kind] = {
            "auroc": round(auroc(without, there), 4),
            "largest_bias": round(largest_bias(without.sigmoid(), there.sigmoid()), 4),
            "images": len(there),
        }
    return rows


def _read(
    scorer: KindScorer,
    images: CleanImages,
    named: Sequence[tuple[str, Path]],
    noises: Sequence[DeFlow],
    options: KindCalibrationOptions,
    bar: tqdm[Any],
) -> _Copies:
    tiles, labels, clean = [], [], []
    for name, path in named:
        bar.update()
        pixels = images.read(path)
        if pixels is None:
            continue
        image = to_float(pixels)
        clean.append(_statistics(scorer, image[None]))
        for number in range(options.mixtures):
            mixture = draw_mixture(image, sample_seed(options.seed, number, name), options.reduce, noises)
            tiles.append(_statistics(scorer, mixture.image))
            labels.append(mixture.labels)
    if not tiles:
        raise TrainingError(
            f"calibrate: no usable image in one share of the split ({dict(images.skipped)} skipped); expected images "
            f"of at least {scorer.tile + 32} pixels a side: give more, or change holdout"
        )
    known = torch.stack(labels)
    assert int(known.min()) >= UNKNOWN
    return _Copies(tiles, known, clean)


def _statistics(scorer: KindScorer, image: Tensor) -> Tensor:
    """Of up to 16 tiles all over the image ``(1, 3, H, W)``: ``(k, F)``."""
    places = tile_places(image.shape[2], image.shape[3], scorer.tile, _MOST_TILES)
    return scorer.statistics(cut_tiles(image, places, scorer.tile)[0])


def _noise(weights: str) -> DeFlow:
    model = checkpoints.load(weights, kind="deflow")
    assert isinstance(model, DeFlow)
    return model
