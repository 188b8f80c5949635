"""Images of different sizes on one canvas, against NumPy's padding of each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from synthpipe.transforms.chains.canvas import Canvas
from tests.transforms.chains.stage_battery import image_of

SIZES = [(5, 7), (8, 3), (1, 9), (2, 2)]
MODES: dict[Any, Any] = {"reflect": "reflect", "replicate": "edge"}


def ragged() -> tuple[Canvas, list[np.ndarray]]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.full((len(SIZES), 3, 9, 10), 99.0)
    images = []
    for row, (height, width) in enumerate(SIZES):
        x = torch.rand(3, height, width, generator=generator)
        pixels[row, :, :height, :width] = x
        images.append(x.numpy())
    height, width = (torch.tensor(sides) for sides in zip(*SIZES, strict=True))
    return Canvas(pixels, height, width), images


@pytest.mark.parametrize("border", ["reflect", "replicate"])
@pytest.mark.parametrize("margins", [(1, 2, 3, 1), (0, 0, 0, 0), (9, 4, 0, 12)])
def test_each_image_goes_on_beyond_its_own_border(border: Any, margins: tuple[int, int, int, int]) -> None:
    canvas, images = ragged()
    top, bottom, left, right = margins
    found = canvas.extended(top, bottom, left, right, border)
    assert found.shape == (4, 3, 9 + top + bottom, 10 + left + right)
    for row, x in enumerate(images):
        expected = np.pad(x, ((0, 0), (top, bottom), (left, right)), mode=MODES[border])
        height, width = expected.shape[1:]
        assert np.array_equal(found[row, :, :height, :width].numpy(), expected)


@pytest.mark.parametrize("border", ["reflect", "replicate"])
@pytest.mark.parametrize("margin", [2, 11])
def test_a_full_canvas_is_extended_as_numpy_pads(border: Any, margin: int) -> None:
    x = torch.rand(2, 3, 5, 6)
    found = Canvas(x).extended(margin, margin, margin, margin, border)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode=MODES[border])
    assert np.array_equal(found.numpy(), expected)


def test_zeroed_holds_the_images_and_nothing_else() -> None:
    canvas, images = ragged()
    assert canvas.zeroed().sum().item() == pytest.approx(sum(float(x.sum()) for x in images), rel=1e-5)
    assert torch.equal(canvas.inside.sum((1, 2, 3)), torch.tensor([height * width for height, width in SIZES]))


def test_rows_come_from_either_canvas_with_their_sizes() -> None:
    canvas, images = ragged()
    other = Canvas(torch.rand(4, 3, 4, 12))
    mixed = canvas.where(torch.tensor([True, False, True, False]), other)
    assert mixed.pixels.shape[2:] == (9, 12)
    for row in (0, 2):
        assert np.array_equal(image_of(mixed, row)[0].numpy(), images[row])
    for row in (1, 3):
        assert torch.equal(image_of(mixed, row), other.pixels[row : row + 1])
