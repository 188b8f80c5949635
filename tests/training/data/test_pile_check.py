"""Piles that fit and piles that do not: leaves of known sharpness, brightness, colour and noise, as files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.errors import TrainingError
from synthpipe.training.data.pile_check import PileCheck, check_piles, findings_of
from synthpipe.training.data.pile_side import measure_side
from tests.training.data.test_piles import enlarged, jpeg, leaves, noise, to_bytes

SIDE = 192
IMAGES = 14


def write(folder: Path, images: list[Tensor]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        pixels = image if image.dtype == torch.uint8 else to_bytes(image)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def content() -> list[Tensor]:
    """Of both piles: not the same images."""
    return [leaves(seed, SIDE) for seed in range(2 * IMAGES)]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, content: list[Tensor]) -> Path:
    shots = [x + 5 / 255 * noise(seed, SIDE, 0.3, 0.3) for seed, x in enumerate(content[IMAGES:])]
    return write(tmp_path_factory.mktemp("noisy") / "pile", shots)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, content: list[Tensor]) -> Path:
    return write(tmp_path_factory.mktemp("clean") / "pile", content[:IMAGES])


def subjects(found: PileCheck, fit: str) -> list[str]:
    return [finding.subject for finding in found.findings if finding.fit == fit]


@pytest.fixture(scope="module")
def fitting(clean: Path, noisy: Path) -> PileCheck:
    return check_piles(clean, noisy)


def test_piles_that_fit(fitting: PileCheck) -> None:
    found = fitting
    assert found.fit != "does not fit", found.findings
    assert found.noisy.level == pytest.approx(5, rel=0.15)
    assert found.clean.level is not None
    assert found.clean.level < 1
    assert found.options == {
        "data.augment": "dihedral",
        "data.align": 1,
        "data.clean.resize_range": None,
        "model.level": False,
    }
    assert json.loads(json.dumps(found.as_dict()))["fit"] == found.fit


def test_swapped_piles(clean: Path, noisy: Path) -> None:
    found = check_piles(noisy, clean)
    assert subjects(found, "does not fit") == ["noise"]
    assert "no noise to learn" in next(f.words for f in found.findings if f.subject == "noise")


def test_a_noisier_clean_pile(content: list[Tensor], fitting: PileCheck) -> None:
    shots = [to_bytes(x + 10 / 255 * noise(50 + seed, SIDE)) for seed, x in enumerate(content[:IMAGES])]
    side = measure_side(shots, [(SIDE, SIDE)] * IMAGES)
    found = findings_of(side, fitting.noisy, fitting.piles)
    assert [finding.subject for finding in found if finding.fit == "does not fit"] == ["noise"]
    assert "swapped" in next(finding.words for finding in found if finding.subject == "noise")


def test_a_clean_pile_that_was_enlarged(tmp_path: Path, noisy: Path) -> None:
    found = check_piles(write(tmp_path / "clean", [enlarged(leaves(seed, SIDE), 2.5) for seed in range(IMAGES)]), noisy)
    assert subjects(found, "does not fit") == ["sharpness"]
    assert found.piles.softness < 0.65


def test_a_colour_cast(tmp_path: Path, content: list[Tensor], noisy: Path) -> None:
    yellow = torch.tensor([1.0, 0.9, 0.55])[:, None, None]
    found = check_piles(write(tmp_path / "clean", [x * yellow for x in content[:IMAGES]]), noisy)
    assert subjects(found, "does not fit") == ["colour cast"]
    # The noisy pile's blue over green, without the cast, is 0.9 / 0.55 of the clean one's.
    assert found.noisy.cast[1] - found.clean.cast[1] == pytest.approx(torch.tensor(0.9 / 0.55).log().item(), abs=0.15)


def test_brightnesses_that_are_missing(tmp_path: Path, content: list[Tensor], noisy: Path) -> None:
    found = check_piles(write(tmp_path / "clean", [0.4 * x for x in content[:IMAGES]]), noisy)
    assert subjects(found, "does not fit") == ["brightness"]


def test_too_little_and_too_small(tmp_path: Path, content: list[Tensor], noisy: Path, fitting: PileCheck) -> None:
    few = dataclasses.replace(fitting.clean, images=3, megapixels=3 * 0.128**2)
    assert findings_of(few, fitting.noisy, fitting.piles)[0].fit == "does not fit"
    small = dataclasses.replace(fitting.clean, too_small=fitting.clean.images + 1)
    assert findings_of(small, fitting.noisy, fitting.piles)[0].fit == "does not fit"
    with pytest.raises(TrainingError, match="too_small"):
        check_piles(write(tmp_path / "none", [x[:, :60, :60] for x in content[:2]]), noisy)


def test_noise_that_differs_within_images_is_of_one_level(tmp_path: Path, clean: Path) -> None:
    """Crops of their halves read 2 and 7; a camera's noise is as uneven where brightness is."""
    sigma = torch.full((3, 512, 1), 2 / 255)
    sigma[:, 256:] = 7 / 255
    shots = [0.5 + sigma * noise(seed, 512) for seed in range(3)]
    found = check_piles(clean, write(tmp_path / "noisy", shots))
    assert found.piles.distinct_levels == 1
    assert len(found.piles.levels) == 3
    assert found.options["model.level"] is False


def test_blocks_and_levels_become_options(tmp_path: Path, content: list[Tensor], clean: Path) -> None:
    shots = [
        jpeg(x + (2 if seed % 2 else 7) / 255 * noise(seed, SIDE, 0.5, 0.5), 90, 2)
        for seed, x in enumerate(content[IMAGES:])
    ]
    found = check_piles(clean, write(tmp_path / "noisy", shots))
    assert found.options["data.align"] == 16
    assert found.options["model.level"] is True
    assert found.fit == "fits with options"


def test_a_side_is_measured_as_it_was_made() -> None:
    grey = torch.linspace(0.2, 0.8, SIDE).expand(3, SIDE, SIDE)
    crops = [
        to_bytes(grey * torch.tensor([1.0, 0.8, 0.8])[:, None, None] + 4 / 255 * noise(s, SIDE)) for s in range(12)
    ]
    side = measure_side(crops, [(SIDE, SIDE)] * 12, {"too_small": 2})
    assert side.level == pytest.approx(4, rel=0.15)
    assert side.cast == (pytest.approx(0.223, abs=0.01), pytest.approx(0, abs=0.01))
    assert side.megapixels == pytest.approx(12 * SIDE**2 / 1e6)
    assert (side.images, side.short_side, side.too_small, side.grid) == (12, SIDE, 2, None)
    assert side.brightness[1] == pytest.approx(0.5 * 2.6 / 3, abs=0.02)


@pytest.mark.parametrize(("swapped", "word"), [(False, "is lost"), (True, "appears")])
def test_grey_against_colour_is_told(clean: Path, noisy: Path, tmp_path: Path, swapped: bool, word: str) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for path in noisy.glob("*.png"):
        Image.open(path).convert("L").save(grey / f"{path.stem}.jpg", quality=90)
    found = check_piles(*((grey, noisy) if swapped else (clean, grey)))
    assert "grey images" in subjects(found, "does not fit")
    (finding,) = (finding for finding in found.findings if finding.subject == "grey images")
    assert f"that colour {word} is learned as degradation" in finding.words
    assert sorted((found.clean.grey, found.noisy.grey)) == [0, 1]
    both = findings_of(*(dataclasses.replace(side, grey=1.0) for side in (found.clean, found.noisy)), found.piles)
    assert next(finding.fit for finding in both if finding.subject == "grey images") == "fits"


def test_coloured_piles_are_told_nothing_of_grey(fitting: PileCheck) -> None:
    assert "grey images" not in {finding.subject for finding in fitting.findings}
