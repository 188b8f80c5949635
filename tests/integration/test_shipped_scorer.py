"""The shipped scorer on held-out pictures; `tools/bench/filter.py` measures all corruptions and every part."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from synthpipe import checkpoints
from synthpipe.density import DensityScorer
from synthpipe.density.detection import auroc, pair_accuracy

TILE = 64


def tiles_of(pictures: list[Image.Image]) -> torch.Tensor:
    """Six tiles of each picture, at the same places in every version of it."""
    tiles = []
    for image in pictures:
        pixels = np.asarray(image)
        rows = np.linspace(0, pixels.shape[0] - TILE, 2).astype(int)
        columns = np.linspace(0, pixels.shape[1] - TILE, 3).astype(int)
        tiles += [pixels[top : top + TILE, left : left + TILE] for top in rows for left in columns]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10)
    return Image.open(file).convert("RGB")


def noisy(image: Image.Image) -> Image.Image:
    rng = np.random.default_rng(image.width)
    pixels = np.asarray(image) + rng.normal(0, 10, (*image.size[::-1], 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def halved_and_back(image: Image.Image) -> Image.Image:
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def scorer() -> DensityScorer:
    loaded = checkpoints.load("scorer_small", kind="density_scorer")
    assert isinstance(loaded, DensityScorer)
    return loaded


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Image.Image]:
    paths = sorted((shared / "data" / "clean_test").glob("[ck]*.png"))[::2]
    return [Image.open(path).convert("RGB") for path in paths]


def columns(scorer: DensityScorer, tiles: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(scorer.columns, scorer(tiles).unbind(1), strict=True))


def test_corrupted_copies_are_found(scorer: DensityScorer, pictures: list[Image.Image]) -> None:
    clean = columns(scorer, tiles_of(pictures))["degraded_logit"]
    blurred = [image.filter(ImageFilter.GaussianBlur(1)) for image in pictures]
    for name, copies, least in (
        ("JPEG 10", [compressed(image) for image in pictures], 0.9),
        ("blur 1", blurred, 0.9),
        ("upscaled x2", [halved_and_back(image) for image in pictures], 0.85),
        ("noise 10", [noisy(image) for image in pictures], 0.9),
    ):
        bad = columns(scorer, tiles_of(copies))["degraded_logit"]
        assert auroc(clean, bad) >= least, name
        assert pair_accuracy(clean, bad) >= least, name


def test_raw_density_alone_prefers_blurred_copies(scorer: DensityScorer, pictures: list[Image.Image]) -> None:
    """Why there is a calibration: the energy (minus the log-density) ranks almost no blurred copy as the worse one."""
    clean = columns(scorer, tiles_of(pictures))
    blurred = columns(scorer, tiles_of([image.filter(ImageFilter.GaussianBlur(1)) for image in pictures]))
    for level in scorer.levels:
        assert pair_accuracy(clean[f"log_energy_{level:g}"], blurred[f"log_energy_{level:g}"]) < 0.1


def test_its_clean_quantiles_hold_on_other_photographs(scorer: DensityScorer, pictures: list[Image.Image]) -> None:
    logits = columns(scorer, tiles_of(pictures))["degraded_logit"].reshape(len(pictures), -1)
    of_one, of_four = scorer.quantiles[1], scorer.quantiles[4]
    assert bool((of_one.diff() >= 0).all())
    assert of_four[95] < of_one[95]  # means over more tiles spread less
    assert float((logits <= of_one[95]).float().mean()) > 0.8
