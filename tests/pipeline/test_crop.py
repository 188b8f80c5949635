"""Where squares are cut, and how they are turned."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.errors import ImageError, ShapeError
from synthpipe.pipeline.crop import augment, check_size, cut_square, drawn_flips, spread_positions
from synthpipe.pipeline.pair import PatchCut
from tests.stream_corpus import noise_image


@given(
    size=st.integers(1, 20), extra=st.tuples(st.integers(0, 30), st.integers(0, 30)), count=st.integers(1, 6),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_squares_lie_inside(size: int, extra: tuple[int, int], count: int, seed: int) -> None:
    image = np.zeros((size + extra[0], size + extra[1], 3), np.uint8)
    corners = spread_positions(*image.shape[:2], size, count, random.Random(seed))
    assert len(corners) == count
    for corner in corners:
        assert min(corner) >= 0
        assert cut_square(image, corner, size).shape == (size, size, 3)


def test_a_single_square_is_uniform() -> None:
    draws = [spread_positions(12, 10, 8, 1, random.Random(seed))[0] for seed in range(6000)]
    places, frequency = np.unique(draws, axis=0, return_counts=True)
    assert len(places) == 5 * 3
    # chi-squared with 14 degrees of freedom: 36.1 is the 99.9% point
    assert ((frequency - 400) ** 2 / 400).sum() < 36.1


def test_several_squares_overlap_less_than_independent_ones() -> None:
    def overlap(corners: list[tuple[int, int]]) -> int:
        pairs = itertools.combinations(corners, 2)
        return sum(max(32 - abs(a[0] - b[0]), 0) * max(32 - abs(a[1] - b[1]), 0) for a, b in pairs)

    spread = np.mean([overlap(spread_positions(144, 144, 32, 4, random.Random(seed))) for seed in range(200)])
    alone = np.mean(
        [
            overlap([spread_positions(144, 144, 32, 1, random.Random(9 * s + i))[0] for i in range(4)])
            for s in range(200)
        ]
    )
    assert spread < 0.2 * alone


def test_augment_reaches_all_eight_orientations_equally() -> None:
    image = noise_image(0, 5, 5)
    known = [np.rot90(image[:, ::-1] if mirror else image, turns) for mirror in (0, 1) for turns in range(4)]
    hits = np.zeros(8, int)
    for seed in range(4000):
        turned = augment(image, *drawn_flips(random.Random(seed), hflip=True, rotate=True))
        hits[[np.array_equal(turned, candidate) for candidate in known].index(True)] += 1
    # chi-squared with 7 degrees of freedom: 24.3 is the 99.9% point
    assert ((hits - 500) ** 2 / 500).sum() < 24.3


@pytest.mark.parametrize(("hflip", "rotate", "expected"), [(False, False, 1), (True, False, 2), (False, True, 4)])
def test_augment_does_only_what_is_allowed(hflip: bool, rotate: bool, expected: int) -> None:
    image = noise_image(0, 5, 5)
    flips = [drawn_flips(random.Random(seed), hflip=hflip, rotate=rotate) for seed in range(100)]
    seen = {augment(image, *drawn).tobytes() for drawn in flips}
    assert len(seen) == expected


def test_an_image_under_the_tile_is_refused() -> None:
    with pytest.raises(ImageError, match=r"a\.png: 72x40 pixels is smaller than the tile of 41") as caught:
        check_size(noise_image(0, 40, 72), 41, "a.png")
    assert caught.value.reason == "too_small"
    check_size(noise_image(0, 40, 72), 40, "a.png")


def coordinates(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W): row, column and 0 as values."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None].float()


def test_patches_are_aligned_and_keep_the_margin() -> None:
    lq = coordinates(20, 20).repeat(3, 1, 1, 1) + 100 * torch.arange(3.0)[:, None, None, None]
    gt = lq.repeat_interleave(3, 2).repeat_interleave(3, 3)
    cut = PatchCut(tile=20, lq_size=6, scale=3, margin=4, count=5)
    corners = cut.corners([5, 6, 7])
    assert corners.shape == (3, 5, 2)
    lq_patches, gt_patches = cut.cut(lq, gt, torch.from_numpy(corners))
    assert lq_patches.shape == (15, 3, 6, 6)
    assert torch.equal(gt_patches, lq_patches.repeat_interleave(3, 2).repeat_interleave(3, 3))
    for place, patch in enumerate(lq_patches):
        tile, number = divmod(place, 5)
        top, left = corners[tile, number]
        assert torch.equal(patch, lq[tile, :, top : top + 6, left : left + 6])
    assert corners.min() >= 4
    assert corners.max() <= 20 - 4 - 6


def test_a_tiles_patches_do_not_depend_on_its_neighbours() -> None:
    cut = PatchCut(tile=20, lq_size=6, scale=1, margin=1, count=2)
    assert np.array_equal(cut.corners([5, 6, 7])[1:2], cut.corners([6]))
    assert not np.array_equal(cut.corners([5]), cut.corners([6]))


def test_corners_of_a_tile_are_those_that_states_of_earlier_versions_rely_on() -> None:
    # what commit b88faae cut, by cut_pairs with these arguments
    cut = PatchCut(tile=20, lq_size=6, scale=3, margin=4, count=2)
    assert cut.corners([5, 6]).tolist() == [[[7, 6], [4, 9]], [[10, 4], [4, 4]]]


def test_each_degradation_of_a_tile_has_patches_of_its_own() -> None:
    cut = PatchCut(tile=20, lq_size=6, scale=2, margin=1, count=2, samples=3)
    corners = cut.corners([5, 6])
    assert corners.shape == (2, 6, 2)
    gt = coordinates(40, 40).repeat(6, 1, 1, 1)
    lq = coordinates(20, 20).repeat(6, 1, 1, 1) + 100 * torch.arange(6.0)[:, None, None, None]
    lq_patches, gt_patches = cut.cut(lq, gt, torch.from_numpy(corners))
    assert lq_patches[:, 2, 0, 0].tolist() == [100.0 * row for row in range(6) for _ in range(2)]
    assert torch.equal(gt_patches[:, :2, 0, 0], 2.0 * torch.from_numpy(corners).reshape(12, 2))


def test_what_does_not_fit_is_refused() -> None:
    cut = PatchCut(tile=16, lq_size=8, scale=4, margin=0, count=1)
    corners = torch.from_numpy(cut.corners([0]))
    with pytest.raises(ShapeError, match="gt must be 4 times lq, got gt"):
        cut.cut(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32), corners)
    with pytest.raises(ShapeError, match="patch of 8 does not fit into a tile of 16x16 with a margin of 5"):
        PatchCut(tile=16, lq_size=8, scale=2, margin=5, count=1)
    with pytest.raises(ShapeError, match="patch of 8 does not fit into a tile of 20x6"):
        cut.corners([1], (20, 6))


def test_tiles_of_another_size_have_corners_too() -> None:
    cut = PatchCut(tile=16, lq_size=6, scale=1, margin=1, count=40)
    corners = cut.corners([5], (30, 12))[0]
    assert corners.min(0).tolist() == [1, 1]
    assert corners[:, 0].max() > 16
    assert corners[:, 0].max() <= 30 - 1 - 6
    assert corners[:, 1].max() == 12 - 1 - 6
