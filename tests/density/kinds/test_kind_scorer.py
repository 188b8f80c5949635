"""The scorer by kinds: its columns, how tiles become images, files, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.density.kinds import KINDS, KindScorer
from synthpipe.density.kinds.scorer import FEATURE_NAMES, worst_kind
from synthpipe.errors import CheckpointError, ShapeError
from tests.tiny_kind_scorer import tiny_kind_scorer


def tiles(count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, 64, 64, generator=generator) - 0.5
    return 0.5 + torch.linspace(0.1, 0.9, count)[:, None, None, None] * noise


def test_the_worst_kind_decides() -> None:
    scorer = tiny_kind_scorer()
    rows = scorer(tiles(6)).double()
    assert scorer.columns == ("degraded_logit", *(f"p_{kind}" for kind in KINDS), "coder_bits")
    chances = rows[:, 1:-1]
    assert_close(torch.sigmoid(rows[:, 0]), chances.amax(1), rtol=1e-5, atol=1e-6)
    assert bool(((chances > 0) & (chances < 1)).all())


def test_a_detector_is_its_network_by_hand() -> None:
    scorer = tiny_kind_scorer()
    x = tiles(3)
    z = ((scorer.statistics(x) - scorer.center) / scorer.spread).clamp(-4, 4)
    first, second = scorer.layers
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    hidden = z @ first.weight.T + first.bias
    logits = (hidden * torch.sigmoid(hidden)) @ second.weight.T + second.bias
    weight = scorer.pooling[0]  # of one tile; mean, least and most are the same
    # Beyond 6 a logit of a tile ends at 8.
    over = (logits.abs() - 6).clamp_min(0)
    ended = logits.sign() * (logits.abs().clamp_max(6) + 2 * torch.tanh(over / 2))
    expected = ended * weight[:, :3].sum(1) + weight[:, 3]
    low = expected < 4  # above, another scale
    assert int(low.sum()) > 10
    assert_close(scorer(x)[:, 1:-1][low], expected.sigmoid()[low], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "share"), [(1, 0.0), (2, 0.5), (4, 1.0)])
def test_tiles_become_an_image_by_mean_least_and_most(count: int, share: float) -> None:
    scorer = tiny_kind_scorer()
    logits = torch.randn(2, count, len(KINDS), generator=torch.Generator().manual_seed(0))
    # Two tiles lie half way between one and four, on a logarithmic scale.
    weight = (1 - share) * scorer.pooling[0] + share * scorer.pooling[1]
    expected = torch.zeros(2, len(KINDS))
    for image in range(2):
        for kind in range(len(KINDS)):
            values = logits[image, :, kind].tolist()
            pooled = [sum(values) / count, min(values), max(values), 1.0]
            expected[image, kind] = sum(p * float(w) for p, w in zip(pooled, weight[kind], strict=True))
    assert_close(scorer.image_logits(logits), expected)


def test_context_is_the_other_kinds_and_how_much_tiles_differ() -> None:
    kinds = ["noise", "blur", "pattern"]
    plain, scorer = (KindScorer(["coder_bits"], kinds=kinds, context=context) for context in ([], kinds))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, generator=generator)
    with torch.no_grad():
        scorer.around.copy_(torch.randn(scorer.around.shape, generator=generator))
    expected = plain.image_logits(logits)
    for image in range(2):
        values = logits[image].double().numpy()
        for kind in range(3):
            weight = scorer.around[1, kind].tolist()
            others = sum(weight[other] * values[:, other].mean() for other in range(3) if other != kind)
            expected[image, kind] += others + weight[3] * values[:, kind].std()
    assert_close(scorer.image_logits(logits), expected, rtol=1e-4, atol=1e-5)


def test_files_of_before_have_no_context(tmp_path: Path) -> None:
    scorer = tiny_kind_scorer()
    del scorer.config["context"]  # as files of before name no such argument
    again = checkpoints.load(checkpoints.save(tmp_path / "before.safetensors", scorer), kind="kind_scorer")
    assert "around" not in again.state_dict()
    x = tiles(3)
    assert_close(again(x), scorer(x), rtol=0, atol=0)


def test_the_surest_of_all_kinds_are_as_sure() -> None:
    scorer = tiny_kind_scorer()
    scorer.pooling[..., 3] = 0
    for kind, weight in enumerate((2.0, 1.0, 0.5, 0.3, 0.25, 0.1)):
        scorer.pooling[:, kind, :3] = weight  # three numbers alike, so logits of up to 48, 24, 12, 7.2, 6 and 2.4
    sure = torch.full((1, 4, len(KINDS)), 8.0)
    assert scorer.image_logits(sure)[0].tolist() == pytest.approx([8, 8, 8, 8, 8, 2.4], rel=1e-4)
    # Up to 4 nothing changes, and the order stays what it was.
    steps = torch.linspace(-8, 8, 201)[:, None, None].expand(-1, 4, len(KINDS))
    rising = scorer.image_logits(steps)
    assert bool((rising.diff(dim=0) > 0).all())
    weight = scorer.pooling[1]
    plain = steps[:, 0] * weight[:, :3].sum(1) + weight[:, 3]
    assert_close(rising[plain < 4], plain[plain < 4], rtol=1e-4, atol=1e-5)


def test_more_tiles_than_were_calibrated_count_as_the_most() -> None:
    scorer = tiny_kind_scorer()
    logits = torch.randn(1, 16, len(KINDS), generator=torch.Generator().manual_seed(0))
    assert_close(scorer.image_logits(logits.repeat(1, 2, 1)), scorer.image_logits(logits))


def test_grey_tiles_are_those_of_three_equal_channels() -> None:
    scorer = tiny_kind_scorer()
    grey = tiles(3)[:, :1]
    rounded = (grey * 255).round() / 255
    # Luma weights sum to 1 up to rounding; the share of levels may meet another side of a half otherwise.
    assert_close(scorer(rounded), scorer(rounded.expand(-1, 3, -1, -1)), rtol=1e-2, atol=1e-2)


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    scorer = tiny_kind_scorer()
    x = tiles(5)
    assert_close(scorer(x)[3:4], scorer(x[3:4]), rtol=1e-3, atol=1e-4)


def test_a_frozen_scorer_gives_the_same_numbers() -> None:
    scorer = tiny_kind_scorer()
    x = tiles(3)
    frozen = scorer.freeze()
    assert_close(scorer.pool(frozen(x)[:, None]), scorer(x), rtol=0, atol=0)
    with torch.no_grad():
        scorer.center.add_(1)
    assert_close(frozen(x), tiny_kind_scorer().measure(x), rtol=0, atol=0)


def test_files_keep_every_number(tmp_path: Path) -> None:
    scorer = tiny_kind_scorer()
    path = checkpoints.save(tmp_path / "kinds.safetensors", scorer)
    again = checkpoints.load(path, kind="kind_scorer")
    assert isinstance(again, KindScorer)
    x = tiles(3)
    assert_close(again(x), scorer(x), rtol=0, atol=0)
    assert checkpoints.fingerprint_of(again) == checkpoints.fingerprint_of(scorer)


def test_a_scorer_may_use_few_statistics_in_any_order() -> None:
    scorer = KindScorer(["coder_bits", "luma_flat_3"], kinds=["noise"], hidden=[])
    x = tiles(2)
    every = scorer.statistics(x)
    with torch.no_grad():
        scorer.layers[0].weight.copy_(torch.tensor([[0.0, 1.0]]))
        scorer.layers[0].bias.zero_()
    expected = every[:, FEATURE_NAMES.index("luma_flat_3")].clamp(-4, 4)
    assert_close(torch.logit(scorer(x)[:, 1].double()).float(), expected, rtol=1e-3, atol=1e-3)


def test_a_reason_is_given_where_a_kind_is_as_likely_as_not() -> None:
    assert worst_kind(("noise", "blur"), (0.2, 0.7)) == "blur"
    assert worst_kind(("noise", "blur"), (0.5, 0.1)) == "noise"
    assert worst_kind(("noise", "blur"), (0.4, 0.45)) is None
    assert worst_kind(("noise", "blur"), (math.nan, 0.1)) is None


def test_refusals() -> None:
    scorer = tiny_kind_scorer()
    with pytest.raises(ShapeError, match="64, 64"):
        scorer(torch.zeros(1, 3, 32, 32))
    broken = tiles(1)
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(ShapeError, match="NaN"):
        scorer(broken)
    with pytest.raises(ShapeError, match=r"in \[0, 1\], got a mean of .* in 1 of 1; divide"):
        scorer(255 * tiles(1))
    for integers in (torch.uint8, torch.int64):  # 255 times a byte would run over
        with pytest.raises(ShapeError, match=f"got {integers}; call images.to_float first"):
            scorer((255 * tiles(1)).to(integers))
    with pytest.raises(CheckpointError, match="'tomorrow'"):
        KindScorer(["coder_bits", "tomorrow"])
    one: dict[str, Any] = {"features": ["coder_bits"]}
    for wrong in ({"features": []}, {"features": ["coder_bits"] * 2}, one | {"tile": 32}, one | {"tile": 65}):
        with pytest.raises(ShapeError, match="expected tiles"):
            KindScorer(**wrong)
