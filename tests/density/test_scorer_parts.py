"""A scorer's file names its parts: what is there, in which order, and what an older or newer file gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.corpus.score import table_columns
from synthpipe.density import DensityScorer, scorer_parts
from synthpipe.density.scorer_parts import PartGroup, PartSettings, Statistic, TileView
from synthpipe.density.tile_statistics import contrast, octave_slopes
from synthpipe.errors import CheckpointError, ShapeError
from synthpipe.images import luma
from tests.tiny_scorer import tiny_scorer

#: Of the files that were written before parts had names; written down here so that the code cannot change it.
BEFORE = [
    *("log_energy_0.03", "bad_ratio_0.03", "log_energy_0.1", "bad_ratio_0.1", "score_norm_0.1"),
    *("coder_bits", "contrast", "blockiness", "slope_finest", "slope_half", "slope_quarter", "slope_median"),
]


def tiles(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def brightness(grey: Tensor) -> Tensor:
    """A statistic that no version has: the mean, ``(N,)``."""
    return grey.mean((1, 2, 3))


def add_part(monkeypatch: pytest.MonkeyPatch, group: PartGroup, first: bool = False) -> None:
    """What a version with one more line in the table knows."""
    table = scorer_parts.part_table

    def longer(settings: PartSettings) -> list[PartGroup]:
        return [group, *table(settings)] if first else [*table(settings), group]

    monkeypatch.setattr(scorer_parts, "part_table", longer)


def without_names(path: Path) -> Path:
    """The file as it was written before parts had names."""
    header = checkpoints.read_header(path)
    header["config"].pop("parts")
    save_file(load_file(path), path, metadata={"synthpipe": json.dumps(header)})
    return path


def load(path: Path) -> DensityScorer:
    scorer = checkpoints.load(path, kind="density_scorer")
    assert isinstance(scorer, DensityScorer)
    return scorer


def test_every_part_in_the_table_keeps_the_contract() -> None:
    """Finite on any tile, of its own tile alone, as many numbers as names; a new part is tried here without a line."""
    dde = tiny_scorer().dde
    flat = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 16, 16)
    x = torch.cat([tiles(), flat])
    for group in scorer_parts.part_table(PartSettings(dde.domains, (0.03, 0.1), (0.1,))):
        values = group.measure(TileView(dde, luma(x), luma(x)))
        assert values.shape == (8, len(group.names)), group.names
        assert values.dtype == torch.float32, group.names
        assert bool(torch.isfinite(values).all()), group.names
        alone = torch.cat([group.measure(TileView(dde, luma(tile[None]), luma(tile[None]))) for tile in x])
        torch.testing.assert_close(values, alone, atol=1e-4, rtol=1e-4, msg=str(group.names))


def test_the_header_names_every_part_in_order(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path / "scorer.safetensors", tiny_scorer(norm_levels=(0.1,)))
    assert checkpoints.read_header(path)["config"]["parts"] == BEFORE
    assert load(path).columns == ("degraded_logit", *BEFORE)
    assert table_columns(load(path)) == ("degraded_logit", *BEFORE, "degraded_logit_q10", "degraded_logit_q90")


@pytest.mark.parametrize("first", [False, True])
def test_a_part_that_comes_later_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    scorer = tiny_scorer(norm_levels=(0.1,))
    named = checkpoints.save(tmp_path / "named.safetensors", scorer)
    unnamed = without_names(checkpoints.save(tmp_path / "unnamed.safetensors", scorer))
    fingerprint = checkpoints.fingerprint_of(scorer)
    add_part(monkeypatch, Statistic(brightness, "brightness"), first)
    for path in (named, unnamed):
        loaded = load(path)
        assert loaded.columns == ("degraded_logit", *BEFORE)
        assert torch.equal(loaded(tiles()), scorer(tiles()))
        assert checkpoints.fingerprint_of(loaded) == fingerprint


def test_only_the_parts_that_are_named_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(grey: Tensor) -> Tensor:
        raise AssertionError("a part that is not in the file was computed")

    add_part(monkeypatch, Statistic(never, "expensive"))
    assert bool(torch.isfinite(tiny_scorer()(tiles())).all())


def test_parts_come_in_the_order_of_their_names_one_of_a_group_too(monkeypatch: pytest.MonkeyPatch) -> None:
    add_part(monkeypatch, Statistic(brightness, "brightness"), first=True)
    whole = tiny_scorer(norm_levels=(0.1,))
    config = {**whole.config, "parts": ["slope_quarter", "contrast", "bad_ratio_0.1", "brightness"]}
    scorer = DensityScorer(**config).eval()
    scorer.dde.load_state_dict(whole.dde.state_dict())
    assert scorer.columns == ("degraded_logit", *config["parts"])
    assert scorer.calibration.parts == 4
    grey, whole_parts = luma(tiles()), whole.parts(tiles())
    ratio = whole_parts[:, whole.columns.index("bad_ratio_0.1") - 1]
    expected = torch.stack([octave_slopes(grey)[:, 2], contrast(grey), ratio, brightness(grey)], 1)
    assert torch.equal(scorer.parts(tiles()), expected)


def test_other_parts_or_another_order_are_another_scorer() -> None:
    whole = tiny_scorer()
    names = list(whole.config["parts"])
    turned = DensityScorer(**{**whole.config, "parts": names[::-1]})
    turned.load_state_dict(whole.state_dict())
    again = DensityScorer(**{**whole.config, "parts": names})
    again.load_state_dict(whole.state_dict())
    assert checkpoints.fingerprint_of(again) == checkpoints.fingerprint_of(whole)
    assert checkpoints.fingerprint_of(turned) != checkpoints.fingerprint_of(whole)


def test_a_newer_versions_part_is_refused_by_name(tmp_path: Path) -> None:
    scorer = tiny_scorer()
    with pytest.MonkeyPatch.context() as newer:
        add_part(newer, Statistic(brightness, "brightness"))
        config = {**scorer.config, "parts": [*scorer.config["parts"], "brightness"]}
        path = checkpoints.save(tmp_path / "new.safetensors", DensityScorer(**config))
        assert load(path).columns[-1] == "brightness"
    with pytest.raises(CheckpointError, match=r"new\.safetensors.*part 'brightness'.*newer version: update synthpipe"):
        checkpoints.load(path)


def test_refusals_name_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_scorer().config
    with pytest.raises(ShapeError, match="'contrast' more than once"):
        DensityScorer(**{**config, "parts": ["contrast", "contrast"]})
    with pytest.raises(ShapeError, match=r"different names, got \[\]"):
        DensityScorer(**{**config, "parts": []})
    with pytest.raises(ShapeError, match=r"'log_energy_0\.1' more than once; noise levels"):
        DensityScorer(config["dde"], (0.1, 0.1000000001), tile=16)
    add_part(monkeypatch, Statistic(octave_slopes, "one", "two"))
    scorer = DensityScorer(**{**config, "parts": ["one", "two"]})
    with pytest.raises(ShapeError, match=r"parts one, two: expected numbers \(5, 2\), got \(5, 4\)"):
        scorer.parts(tiles())
