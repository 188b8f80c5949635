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
