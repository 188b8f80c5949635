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

#: Every column of the two tiles of :func:`drawn`, by commit 433fa2b, before files named their parts.
COLUMNS = {
    "degraded_logit": (17.969, 20.885),
    "log_energy_0.01": (2.6928, 1.9322),
    "jpeg_ratio_0.01": (-1.3779, -1.8939),
    "blur_ratio_0.01": (-0.07069, -0.93219),
    "noise_ratio_0.01": (0.55934, 5.0096),
    "log_energy_0.03": (1.3431, 0.78943),
    "jpeg_ratio_0.03": (-0.42702, -0.61485),
    "blur_ratio_0.03": (-0.54269, -0.20337),
    "noise_ratio_0.03": (1.7072, 2.0039),
    "coder_bits": (4.9321, 0.11264),
    "contrast": (3.4952, 3.807),
    "blockiness": (0.041806, 3.774),
    "slope_finest": (-0.7324, -1.8222),
    "slope_half": (-0.095693, -0.71322),
    "slope_quarter": (-1.9201, -0.73488),
    "slope_median": (-0.12192, -3.595),
}
FINGERPRINT = "3a74e04233011a7184bb91c1973f87ea"


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


def drawn() -> torch.Tensor:
    """Coloured waves, and grey stairs."""
    y, x = torch.arange(64.0)[:, None], torch.arange(64.0)[None]
    waves = [
        0.5 + 0.2 * torch.sin(a * x + b * y) + 0.05 * torch.cos(1.7 * x - c * y)
        for a, b, c in ((0.3, 0.1, 0.9), (0.31, 0.12, 1.1), (0.28, 0.15, 1.3))
    ]
    stairs = ((x // 8 + y // 8) % 5 / 8 + 0.2).expand(3, 64, 64)
    return torch.stack([torch.stack(waves), stairs])


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


def test_a_file_without_names_gives_what_it_always_gave(scorer: DensityScorer) -> None:
    assert "parts" not in checkpoints.read_header("scorer_small")["config"]
    found = columns(scorer, drawn())
    assert list(found) == list(COLUMNS)
    for name, values in COLUMNS.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-3, abs=1e-3), name
    assert checkpoints.fingerprint_of(scorer) == FINGERPRINT


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
