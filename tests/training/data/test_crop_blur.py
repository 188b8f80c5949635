"""Learned blur of a domain's crops, against SciPy's correlation of the whole image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.errors import CheckpointError, OptionError
from synthpipe.kernels import KernelBank
from synthpipe.training.data.folder_domain import FolderDomain
from tests.kernels.known_kernels import gaussians


@pytest.fixture
def domain(tmp_path: Path) -> Callable[..., FolderDomain]:
    """One noisy image of 48 x 56, and a kernel that is a lopsided Gaussian."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 56, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "one.png")
    kernel = gaussians(0.9, side=9)[0]
    kernel[4, 6] += 0.2
    checkpoints.save(tmp_path / "bank.safetensors", KernelBank.of(kernel[None]))

    def make(crop: int = 20, **options: Any) -> FolderDomain:
        given = parse_options({"folder": str(tmp_path / "images"), **options}, DomainOptions)
        return FolderDomain("clean", given, ReadingOptions(augment="none"), crop, 1, seed=3)

    return make


@pytest.mark.parametrize("strength", [0.0, 1.0, 1.5])
def test_a_crop_is_that_of_the_blurred_image(
    domain: Callable[..., FolderDomain], tmp_path: Path, strength: float
) -> None:
    weights = str(tmp_path / "bank.safetensors")
    plain, soft = domain(), domain(blur={"weights": weights, "strength": strength})
    image = np.asarray(Image.open(tmp_path / "images" / "one.png")).astype(np.float64)
    kernel = checkpoints.load(weights).kernels[0].double().numpy()
    blurred = np.stack([ndimage.correlate(image[..., c], kernel, mode="mirror") for c in range(3)])
    whole = image.transpose(2, 0, 1)
    expected = np.clip(whole + strength * (blurred - whole), 0, 255)
    borders = 0
    for slot in range(40):
        sharp, found = plain.crop(0, slot)[0], soft.crop(0, slot)[0]
        places = [
            (y, x)
            for y in range(29)
            for x in range(37)
            if np.array_equal(whole[:, y : y + 20, x : x + 20], sharp.numpy())
        ]
        ((y, x),) = places  # the same crop as without the blur
        borders += y in (0, 28) or x in (0, 36)
        assert_close(found.double(), torch.from_numpy(expected[:, y : y + 20, x : x + 20]), atol=0.51, rtol=0)
    assert borders > 0


def test_a_resized_crop_is_blurred_behind_the_resizing(domain: Callable[..., FolderDomain], tmp_path: Path) -> None:
    # A kernel that takes all detail away leaves of a crop its means; the same places are cut either way.
    box = KernelBank.of(torch.ones(1, 9, 9))
    weights = str(checkpoints.save(tmp_path / "box.safetensors", box))
    soft = domain(resize_range=[1.5, 2.0], blur={"weights": weights, "strength": 1})
    sharp = domain(resize_range=[1.5, 2.0])
    found, before = (some.crop(0, 1)[0].double() for some in (soft, sharp))
    assert found.shape == (3, 20, 20)
    assert float(found.std((1, 2)).mean()) < 0.5 * float(before.std((1, 2)).mean())


def test_kernels_and_strengths_are_drawn_for_each_crop(domain: Callable[..., FolderDomain], tmp_path: Path) -> None:
    weights = str(tmp_path / "bank.safetensors")
    first, again = (domain(blur={"weights": weights}) for _ in range(2))
    crops = [first.crop(step, 0)[0] for step in range(6)]
    assert all(torch.equal(crop, again.crop(step, 0)[0]) for step, crop in enumerate(crops))
    spread = torch.stack([crop.double().std() for crop in crops])
    assert float(spread.max()) > 1.2 * float(spread.min())


def test_what_cannot_blur_is_refused(domain: Callable[..., FolderDomain]) -> None:
    with pytest.raises(OptionError, match="'blur' needs 'folder'"):
        parse_options({"shards": "/data/hr", "blur": {"weights": "kernels_city100"}}, DomainOptions)
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected 'kernels'"):
        domain(blur={"weights": "deflow_small"})
