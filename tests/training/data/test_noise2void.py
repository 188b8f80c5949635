"""Masked pixels: which, by what, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.seeds import generator_for
from synthpipe.training.data.noise2void import mask_pixels


def generators(count: int) -> list[torch.Generator]:
    return [generator_for(place, "mask") for place in range(count)]


def numbered(height: int, width: int, channels: int = 1, count: int = 1) -> Tensor:
    """Images whose value is (10000 channel + place of the pixel): a value tells where it is from."""
    plane = torch.arange(height * width, dtype=torch.float64).view(height, width)
    image = torch.stack([10000 * channel + plane for channel in range(channels)])
    return image.expand(count, -1, -1, -1).clone()


@settings(max_examples=60)
@given(height=st.integers(5, 40), width=st.integers(5, 40), share=st.floats(0.002, 0.05))
def test_masked_pixels_hold_another_pixel_of_their_window_and_the_rest_is_untouched(
    height: int, width: int, share: float
) -> None:
    x = numbered(height, width, channels=3, count=2)
    kept = x.clone()
    masked, mask = mask_pixels(x, share, generators(2))
    assert torch.equal(x, kept)
    assert mask.shape == (2, 1, height, width)
    assert torch.equal(masked != x, mask.expand(-1, 3, -1, -1))  # each masked pixel changed, in every channel
    assert bool(mask.flatten(1).any(1).all())
    for channel in (1, 2):  # one and the same neighbour for all channels
        assert torch.equal(masked[:, channel] - 10000 * channel, masked[:, 0])
    _, _, rows, columns = mask.nonzero(as_tuple=True)
    source = masked[:, 0][mask[:, 0]].long()
    down, right = source // width - rows, source % width - columns
    # Within two pixels, or, next to the border, within the window that was shifted to lie inside.
    assert int(torch.maximum(down.abs(), right.abs()).max()) <= 4
    inner = (rows >= 2) & (rows < height - 2) & (columns >= 2) & (columns < width - 2)
    if bool(inner.any()):
        assert int(torch.maximum(down[inner].abs(), right[inner].abs()).max()) <= 2


def test_every_pixel_is_masked_equally_often_and_by_each_neighbour() -> None:
    runs, side = 1500, 12
    masked, mask = mask_pixels(numbered(side, side, count=runs), 0.04, generators(runs))  # cells of 5x5
    counts = mask.sum((0, 1)).double()
    # 60 of 1500 expected at each of 144 pixels, standard deviation 7.6; the largest of 144 stays below 5 of them.
    assert (counts - runs / 25).abs().max() < 5 * sqrt(runs / 25)
    place = side * 6 + 6
    hit = mask[:, 0, 6, 6]
    assert int(hit.sum()) > 30
    _, _, rows, columns = mask.nonzero(as_tuple=True)
    source = masked[mask].long()
    inner = (rows >= 2) & (rows < side - 2) & (columns >= 2) & (columns < side - 2)
    offsets = Counter(
        zip((source // side - rows)[inner].tolist(), (source % side - columns)[inner].tolist(), strict=True)
    )
    assert set(offsets) == {(a, b) for a in range(-2, 3) for b in range(-2, 3)} - {(0, 0)}
    expected = int(inner.sum()) / 24
    assert max(abs(count - expected) for count in offsets.values()) < 5 * sqrt(expected)
    assert place not in masked[hit, 0, 6, 6].long().tolist()


def test_pixels_are_spread_one_to_a_cell() -> None:
    _, mask = mask_pixels(torch.rand(20, 1, 40, 60), 0.01, generators(20))
    cells = mask.view(20, 4, 10, 6, 10).sum((2, 4))
    assert torch.equal(cells, torch.ones_like(cells))


def test_an_image_depends_on_its_own_generator_alone() -> None:
    x = torch.rand(3, 3, 16, 16)
    together, _ = mask_pixels(x, 0.01, generators(3))
    alone, _ = mask_pixels(x[2:], 0.01, generators(3)[2:])
    assert torch.equal(together[2:], alone)


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ShapeError, match="sides of at least 5, got 4x9"):
        mask_pixels(torch.rand(1, 1, 4, 9), 0.01, generators(1))
