"""apply_tiled: exact where a network's reach allows it, every pixel from one tile."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from synthpipe.errors import ShapeError
from synthpipe.transforms.tiling import apply_tiled


def box(reach):
    """A 'network' that sees ``reach`` pixels on each side."""

    def run(x, index):
        padded = F.pad(x, (reach,) * 4)
        return F.avg_pool2d(padded, 2 * reach + 1, stride=1)

    return run


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(20, 48),
    reach=st.integers(0, 4),
    multiple=st.sampled_from([1, 2, 4, 8]),
)
def test_tiles_give_what_the_whole_image_gives(height, width, tile, reach, multiple):
    x = torch.rand(1, 3, height, width, dtype=torch.float64)
    seen = []

    def run(part, index):
        seen.append((index, part.shape[-2:]))
        assert max(part.shape[-2:]) <= tile
        return box(reach)(part, index)

    torch.testing.assert_close(apply_tiled(run, x, tile, reach, multiple), box(reach)(x, 0), atol=1e-12, rtol=0)
    assert [index for index, _ in seen] == list(range(len(seen)))
    assert (len(seen) == 1) == (max(height, width) <= tile)


def test_tiles_begin_at_multiples():
    x = torch.arange(100.0 * 90).reshape(1, 1, 100, 90).expand(1, 3, 100, 90)
    corners = []

    def run(part, index):
        first = int(part[0, 0, 0, 0])
        corners.append((first // 90, first % 90))
        return part

    assert torch.equal(apply_tiled(run, x, 48, 5, multiple=8), x)
    assert len(corners) > 4
    assert all(top % 8 == 0 and left % 8 == 0 for top, left in corners)


def test_noise_is_not_averaged_where_tiles_overlap():
    def run(part, index):
        return part + torch.randn(part.shape, generator=torch.Generator().manual_seed(index))

    noise = apply_tiled(run, torch.zeros(1, 3, 400, 400), 100, 30)
    # 12 000 values a strip: the standard error is 0.65%.
    for start in range(0, 400, 10):
        assert noise[..., start : start + 10, :].std().item() == pytest.approx(1, abs=0.035)


def test_impossible_tiles_are_refused():
    with pytest.raises(ShapeError, match="larger tile"):
        apply_tiled(lambda part, index: part, torch.zeros(1, 3, 64, 64), 32, 16)
    with pytest.raises(ShapeError, match="came back as"):
        apply_tiled(lambda part, index: part[..., 1:], torch.zeros(1, 3, 64, 64), 32, 4)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(20, 48), share=st.sampled_from([0, 4, 8, 3])
)
def test_blended_weights_sum_to_one(height, width, tile, share):
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    blended = apply_tiled(lambda part, index: part, x, tile, tile // share if share else 0, blend=True)
    torch.testing.assert_close(blended, x, atol=1e-12, rtol=0)


def test_blending_goes_from_one_tile_to_the_next_in_a_straight_line():
    """Tiles of 40 that overlap by 10 on each side keep 20 each: between two cores lies a ramp of 20 pixels."""
    blended = apply_tiled(
        lambda part, index: torch.full_like(part, index), torch.zeros(1, 1, 1, 60), 40, 10, blend=True
    )
    # tiles 0..30, 10..50, 30..60; ramps between the middles of pixels 10..30 and 30..50
    ramp = (torch.arange(20) + 0.5) / 20
    expected = torch.cat([torch.zeros(10), ramp, 1 + ramp, torch.full((10,), 2.0)])
    torch.testing.assert_close(blended[0, 0, 0], expected, atol=1e-6, rtol=0)


def test_blending_hides_the_seams_of_a_network_that_sees_too_far():
    x = torch.linspace(0, 1, 200).expand(1, 3, 200, 200).clone()
    whole = box(20)(x, 0)
    hard, soft = (apply_tiled(box(20), x, 64, 8, blend=blend) for blend in (False, True))

    def step(y):  # the largest jump between neighbours along the middle row, beyond what the whole image has
        return ((y - whole)[0, 0, 100].diff()).abs().max()

    assert step(soft) < 0.25 * step(hard)
