"""Scores of images and batches against the scorer asked tile by tile, and the filter that drops by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthpipe.density.scorer import DensityScorer
from synthpipe.errors import CheckpointError, ImageError, ShapeError
from synthpipe.images import to_float
from synthpipe.transforms.density import DensityFilter, DensityScore, clean_threshold, score_image, tile_places
from tests.tiny_scorer import tiny_scorer

# A mean over tiles sums in another order than the test; single precision.
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=[(), (0.05,)], ids=["plain", "with norms"])
def scorer(request: pytest.FixtureRequest) -> DensityScorer:
    return tiny_scorer(norm_levels=request.param)


def batch_of(count: int, height: int = 40, width: int = 50) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    gt = torch.rand(count, 3, height, width, generator=generator)
    contrast = torch.linspace(1, 0.1, count)[:, None, None, None]
    return {"gt": 0.5 + (gt - 0.5) * contrast, "key": list("abcdefgh"[:count]), "seed": torch.arange(count) + 10}


# Places


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 200), st.integers(1, 70))
def test_places_lie_inside_and_cover_what_they_can(tile: int, more_rows: int, more_columns: int, limit: int) -> None:
    height, width = tile + more_rows, tile + more_columns
    places = tile_places(height, width, tile, limit)
    assert 1 <= len(set(places)) == len(places) <= limit
    covered = np.zeros((height, width), bool)
    for top, left in places:
        assert 0 <= top <= height - tile
        assert 0 <= left <= width - tile
        covered[top : top + tile, left : left + tile] = True
    if limit >= -(-height // tile) * -(-width // tile):
        assert covered.all()


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((64, 64), 16, [(0, 0)]),
        ((200, 100), 1, [(68, 18)]),
        ((192, 64), 2, [(16, 0), (112, 0)]),
        ((64, 130), 16, [(0, 0), (0, 33), (0, 66)]),
        ((256, 256), 5, [(32, 32), (32, 160), (160, 32), (160, 160)]),
    ],
)
def test_known_places(size: tuple[int, int], limit: int, expected: list[tuple[int, int]]) -> None:
    assert tile_places(*size, 64, limit) == expected


def test_a_large_image_gets_a_grid_of_its_own_shape() -> None:
    places = tile_places(400, 1600, 64, 16)
    assert len({top for top, _ in places}) == 2
    assert len({left for _, left in places}) == 8


def test_impossible_places() -> None:
    with pytest.raises(ShapeError, match=r"at least 64x64 pixels and a limit of at least 1, got 63x100 and 4"):
        tile_places(63, 100, 64, 4)
    with pytest.raises(ShapeError, match="got 64x64 and 0"):
        tile_places(64, 64, 64, 0)


# Images


def tile_by_tile(scorer: DensityScorer, image: Tensor, tiles: int) -> Tensor:
    """All columns of each tile, ``(K, F)`` float64; ``image`` float."""
    t = scorer.tile
    places = tile_places(image.shape[1], image.shape[2], t, tiles)
    return torch.cat([scorer(image[None, :, y : y + t, x : x + t]) for y, x in places]).double()


def test_an_image_has_the_mean_and_the_quantiles_of_its_tiles(scorer: DensityScorer) -> None:
    image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    numbers = score_image(scorer, image, tiles=12)
    each = tile_by_tile(scorer, to_float(image), 12)
    assert list(numbers) == [*scorer.columns, "degraded_logit_q10", "degraded_logit_q90", "tiles"]
    assert numbers["tiles"] == len(each) == 12
    for place, name in enumerate(scorer.columns):
        assert numbers[name] == pytest.approx(float(each[:, place].mean()), abs=2e-5, rel=1e-5)
    low, high = np.quantile(each[:, 0].numpy(), [0.1, 0.9])
    assert numbers["degraded_logit_q10"] == pytest.approx(low, abs=2e-5, rel=1e-5)
    assert numbers["degraded_logit_q90"] == pytest.approx(high, abs=2e-5, rel=1e-5)
    assert low < numbers["degraded_logit"] < high


def test_bytes_and_floats_of_an_image_score_alike(scorer: DensityScorer) -> None:
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    kept = image.clone()
    first = score_image(scorer, image)
    assert first == score_image(scorer, to_float(image)) == score_image(scorer, image.double() / 255)
    assert torch.equal(image, kept)


def test_images_that_have_no_score(scorer: DensityScorer) -> None:
    with pytest.raises(ImageError, match="15x80, the scorer needs at least 16x16") as caught:
        score_image(scorer, torch.zeros(3, 15, 80))
    assert caught.value.reason == "too_small"
    for wrong in (torch.zeros(1, 3, 20, 20), torch.zeros(1, 20, 20), torch.zeros(3, 20, 20, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="expected an RGB image"):
            score_image(scorer, wrong)
    with pytest.raises(ShapeError, match="NaN or infinity"):
        score_image(scorer, torch.full((3, 20, 20), float("nan")))


# Batches


@pytest.mark.parametrize("tiles", [1, 5, 16])
def test_a_sample_has_the_mean_of_its_tiles(scorer: DensityScorer, tiles: int) -> None:
    batch = batch_of(3)
    scored = DensityScore(scorer, tiles, parts=True)(batch)
    expected = torch.stack([tile_by_tile(scorer, image, tiles).mean(0) for image in batch["gt"]])
    for place, name in enumerate(scorer.columns):
        assert scored[name].shape == (3,)
        assert scored[name].dtype == torch.float32
        torch.testing.assert_close(scored[name].double(), expected[:, place], **TOLERANCE)
    alone = DensityScore(scorer, tiles)(batch)
    assert set(alone) == {*batch, "degraded_logit"}
    assert torch.equal(alone["degraded_logit"], scored["degraded_logit"])


def test_a_batch_and_an_image_get_the_same_number(scorer: DensityScorer) -> None:
    batch = batch_of(2)
    scored = DensityScore(scorer, 9)(batch)["degraded_logit"]
    single = [score_image(scorer, image, 9)["degraded_logit"] for image in batch["gt"]]
    torch.testing.assert_close(scored.double(), torch.tensor(single, dtype=torch.float64), **TOLERANCE)


def test_a_sample_does_not_depend_on_its_neighbours(scorer: DensityScorer) -> None:
    score, batch, order = DensityScore(scorer, 4), batch_of(6), [5, 0, 3]
    whole = score(batch)["degraded_logit"]
    part = score({**batch, "gt": batch["gt"][order]})["degraded_logit"]
    torch.testing.assert_close(part, whole[order], **TOLERANCE)
    assert whole.std() > 0.1


def test_scoring_is_deterministic_and_edits_nothing(scorer: DensityScorer) -> None:
    score, batch = DensityScore(scorer), batch_of(2)
    gt, keys = batch["gt"].clone(), set(batch)
    first = score(batch)["degraded_logit"]
    torch.manual_seed(99)
    assert torch.equal(score.apply(batch, score.sample_params(batch))["degraded_logit"], first)
    assert torch.equal(batch["gt"], gt)
    assert set(batch) == keys


def test_refusals(scorer: DensityScorer) -> None:
    with pytest.raises(ShapeError, match=r"gt is 12x40, smaller than the 16x16 tiles"):
        DensityScore(scorer)(batch_of(1, height=12, width=40))
    batch = batch_of(2)
    batch["gt"][1, 0, 0, 0] = float("nan")
    with pytest.raises(ShapeError, match="tiles hold NaN or infinity"):
        DensityScore(scorer)(batch)
    with pytest.raises(ShapeError, match=r"expected RGB images \(B, 3, H, W\), got shape \(2, 1, 40, 40\)"):
        DensityScore(scorer)({**batch, "gt": torch.zeros(2, 1, 40, 40)})
    with pytest.raises(ShapeError, match="at least 1 tile of each sample, got 0"):
        DensityScore(scorer, 0)
    with pytest.raises(ShapeError, match=r"no degraded_logit; score it first"):
        DensityFilter(0.0)(batch_of(1))


# The filter


def logits(*values: float) -> dict[str, Any]:
    return {**batch_of(len(values)), "degraded_logit": torch.tensor(values)}


def test_the_filter_keeps_what_is_at_or_below_the_threshold() -> None:
    batch = logits(0.5, 2.0, float("nan"), -3.0, 0.500001)
    kept = DensityFilter(0.5)(batch)
    assert kept["key"] == ["a", "d"]
    assert kept["seed"].tolist() == [10, 13]
    assert torch.equal(kept["gt"], batch["gt"][[0, 3]])
    assert kept["degraded_logit"].tolist() == [0.5, -3.0]
    assert len(batch["key"]) == len(batch["gt"]) == 5


def test_the_filter_may_keep_all_or_nothing() -> None:
    batch = logits(1.0, 2.0)
    assert torch.equal(DensityFilter(2.0)(batch)["gt"], batch["gt"])
    nothing = DensityFilter(0.0)(batch)
    assert nothing["key"] == []
    assert nothing["gt"].shape == (0, 3, 40, 50)


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8), st.floats(-5, 5, width=32))
def test_a_higher_threshold_keeps_more(values: list[float], threshold: float) -> None:
    batch = {"degraded_logit": torch.tensor(values), "key": [str(place) for place in range(len(values))]}
    few, more = (set(DensityFilter(t)(batch)["key"]) for t in (threshold, threshold + 1))
    assert few <= more
    assert few == {str(place) for place, value in enumerate(values) if value <= threshold}


# Thresholds of clean images


def test_the_threshold_is_the_scorers_quantile(scorer: DensityScorer) -> None:
    table = {tiles: row.double().numpy() for tiles, row in scorer.quantiles.items()}
    percents = np.linspace(0, 1, 101)
    for share in (0.05, 0.5, 0.955):
        for tiles in (1, 4, 16):
            expected = np.interp(share, percents, table[tiles])
            assert clean_threshold(scorer, share, tiles) == pytest.approx(expected, rel=1e-9)
        # 8 lies in the middle between 4 and 16 on a logarithmic scale
        middle = (np.interp(share, percents, table[4]) + np.interp(share, percents, table[16])) / 2
        assert clean_threshold(scorer, share, 8) == pytest.approx(middle, rel=1e-9)
        assert clean_threshold(scorer, share, 100) == clean_threshold(scorer, share, 16)


def test_a_scorer_without_quantiles_gives_no_threshold() -> None:
    bare = DensityScorer({"width": 4, "outputs": 2, "domains": ["clean", "bad"]}, (0.03,), tile=16)
    with pytest.raises(CheckpointError, match="not calibrated"):
        clean_threshold(bare, 0.95, 4)


@pytest.mark.gpu
def test_on_the_gpu_the_numbers_are_those_of_the_cpu() -> None:
    batch = batch_of(4)
    expected = DensityScore(tiny_scorer(), 6)(batch)["degraded_logit"]
    score = DensityScore(tiny_scorer(), 6).to("cuda")
    scored = score({**batch, "gt": batch["gt"].cuda()})["degraded_logit"]
    assert scored.is_cuda
    # convolutions there may round their factors to 10 bits
    torch.testing.assert_close(scored.cpu(), expected, atol=2e-2, rtol=2e-2)
    image = score_image(score.scorer, batch["gt"][0], 6)["degraded_logit"]
    assert image == pytest.approx(float(expected[0]), abs=2e-2)
