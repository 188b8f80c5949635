"""Tables, filters, reports and streams by kinds of degradation, against the probabilities in the table itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.config.filter import FilterOptions
from synthpipe.config.kinds import Kind
from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.filter import FilterOutcome, filter_corpus
from synthpipe.density.kinds import KINDS
from synthpipe.errors import OptionError
from synthpipe.filter_report import render_report
from synthpipe.pipeline.build import build_stream
from synthpipe.shards.shard_names import expand_urls
from synthpipe.transforms.density import score_image
from tests.scored_corpus import photo, rows_of, score, shard_photos, write_weights
from tests.stream_corpus import png, write_tar
from tests.tiny_kind_scorer import tiny_kind_scorer

COUNT = 12
#: One tile of the scorer, so that a tile of the stream and its image have the same numbers.
SIDE = 64
CHOSEN = ("noise", "compression", "graphics")


def pixels(number: int) -> np.ndarray:
    return photo(number, SIDE, SIDE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "kinds.safetensors", tiny_kind_scorer()))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    members = [(f"{('city', 'wood')[number % 2]}/{number:03d}.png", png(pixels(number))) for number in range(COUNT)]
    return str(write_tar(tmp_path_factory.mktemp("shards") / "s.tar", [*members, ("city/bad.png", b"x")]))


@pytest.fixture(scope="module")
def scores(weights: str, shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "hr.parquet"
    score(weights, shards, path)
    return path


@pytest.fixture(scope="module")
def chances(scores: Path) -> np.ndarray:
    """``(COUNT, 3)``: probabilities of the chosen kinds."""
    rows = [row for row in rows_of(scores) if row["error"] is None]
    return np.array([[row[f"p_{kind}"] for kind in CHOSEN] for row in rows])


@pytest.fixture(scope="module")
def limits(chances: np.ndarray) -> dict[str, float]:
    """Thresholds that leave about half, with room on both sides."""
    found = {}
    for place, kind in enumerate(CHOSEN):
        ordered = np.sort(chances[:, place])
        found[kind] = float(ordered[8:10].mean())
    return found


def keep(source: str, scores: Path, out: Path, **options: Any) -> FilterOutcome:
    settings = {"source": (source,), "scores": str(scores), "output": str(out)} | options
    return filter_corpus(CorpusFilterOptions(**settings), render=render_report)


def test_options_name_the_kinds_that_the_scorer_tells() -> None:
    assert get_args(Kind) == KINDS
    rule = FilterOptions(reject_kinds=("graphics", "noise"), thresholds={"noise": 0.7})
    assert (rule.scorer, rule.kind_limits) == ("scorer_kinds", {"noise": 0.7, "graphics": 0.5})
    assert FilterOptions(reject_kinds=("all",)).kinds_rejected == KINDS
    assert FilterOptions(max_logit=0.0).scorer == "scorer_small"


def test_the_table_has_every_kind_and_the_reason(scores: Path) -> None:
    rows = [row for row in rows_of(scores) if row["error"] is None]
    assert len(rows) == COUNT
    scorer = tiny_kind_scorer()
    for number, row in enumerate(rows):
        image = torch.from_numpy(pixels(number)).permute(2, 0, 1)
        expected = score_image(scorer, image, 4)
        by_kind = {kind: row[f"p_{kind}"] for kind in KINDS}
        assert by_kind == pytest.approx({kind: expected[f"p_{kind}"] for kind in KINDS}, abs=1e-6)
        worst = max(by_kind, key=lambda kind: by_kind[kind])
        assert row["reason"] == (worst if by_kind[worst] >= 0.5 else None)
        assert row["degraded_logit"] == pytest.approx(np.log(by_kind[worst] / (1 - by_kind[worst])), abs=1e-4)
    assert {row["reason"] for row in rows} - {None}
    broken = next(row for row in rows_of(scores) if row["error"])
    assert (broken["reason"], broken["p_noise"]) == (None, None)
    assert json.loads(pq.read_schema(scores).metadata[b"synthpipe"])["kinds"] == list(KINDS)


def test_a_table_of_one_number_has_no_reason(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(pixels(number)))
    score(write_weights(tmp_path / "tiny.safetensors"), str(tmp_path / "photos"), tmp_path / "x.parquet")
    assert "reason" not in pq.read_schema(tmp_path / "x.parquet").names
    assert "kinds" not in json.loads(pq.read_schema(tmp_path / "x.parquet").metadata[b"synthpipe"])
    with pytest.raises(OptionError, match=r"no probabilities of 'noise'.*synthpipe score scorer_kinds"):
        keep(str(tmp_path / "photos"), tmp_path / "x.parquet", tmp_path / "out", reject_kinds=("noise",))


def test_any_kind_beyond_its_threshold_rejects(
    shards: str, scores: Path, chances: np.ndarray, limits: dict[str, float], tmp_path: Path
) -> None:
    outcome = keep(shards, scores, tmp_path / "out", reject_kinds=CHOSEN, thresholds=limits)
    beyond = chances > np.array([limits[kind] for kind in CHOSEN])
    expected = ~beyond.any(1)
    assert 0 < expected.sum() < COUNT
    assert outcome.kept == expected.sum()
    assert outcome.decisions.states[:COUNT].tolist() == np.where(expected, 0, 1).tolist()
    odds = np.log(chances / (1 - chances)) - np.log([limits[k] / (1 - limits[k]) for k in CHOSEN])
    worst = odds.argmax(1)
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["rejected_by_kind"] == {
        kind: int(((worst == place) & ~expected).sum()) for place, kind in enumerate(CHOSEN)
    }
    assert told["rule"]["kinds"] == pytest.approx(limits)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Reasons</h2>" in page
    for row in np.flatnonzero(~expected):
        assert f"<b>city/{row:03d}</b>" in page or f"<b>wood/{row:03d}</b>" in page or f"<b>{row:03d}</b>" in page
    assert page.count("<br><b>") == sum(page.count(f'class="{side}"') for side in ("dropped",))


def test_one_threshold_serves_all(shards: str, scores: Path, chances: np.ndarray, tmp_path: Path) -> None:
    middle = float(np.median(chances.max(1)))
    outcome = keep(shards, scores, tmp_path / "out", reject_kinds=CHOSEN, threshold=middle)
    assert outcome.kept == int((chances.max(1) <= middle).sum())
    everything = keep(shards, scores, tmp_path / "all", reject_kinds=("all",), threshold=1.0)
    assert everything.kept == COUNT


def test_a_share_goes_by_the_worst_of_the_kinds(shards: str, scores: Path, chances: np.ndarray, tmp_path: Path) -> None:
    outcome = keep(shards, scores, tmp_path / "out", reject_kinds=CHOSEN, reject=0.25)
    order = np.argsort(-chances.max(1))
    assert set(np.flatnonzero(outcome.decisions.states[:COUNT] == 1)) == set(order[: COUNT // 4].tolist())


def streamed(shards: str, rule: dict[str, Any]) -> list[str]:
    settings = {"shards": shards, "gt_size": SIDE, "scale": 1, "batch_size": 2, "epochs": 1, "drop_last": False}
    settings |= {"hflip": False, "rotate": False}  # a tile that is turned has other numbers
    with build_stream({**settings, "filter": {"min_keep": 0, **rule}}) as stream:
        return sorted(path for batch in stream for path in batch["gt_path"])


def test_a_stream_keeps_what_the_command_keeps(
    weights: str, shards: str, scores: Path, limits: dict[str, float], tmp_path: Path
) -> None:
    rule = {"reject_kinds": list(CHOSEN), "thresholds": limits}
    kept = streamed(shards, {"scores": str(scores), **rule})
    keep(shards, scores, tmp_path / "out", **{**rule, "reject_kinds": CHOSEN})
    (shard,) = expand_urls(tmp_path / "out")
    assert len(kept) == len(streamed(shard, {"weights": weights, "reject_kinds": ["all"], "threshold": 1.0})) > 0
    assert streamed(shards, {"weights": weights, **rule}) == kept  # judged on the device, tile by tile


def test_a_stream_goes_on_with_the_same_kinds_alone(weights: str, shards: str, limits: dict[str, float]) -> None:
    settings: dict[str, Any] = {"shards": shards, "gt_size": SIDE, "scale": 1, "batch_size": 2}
    rule = {"weights": weights, "reject_kinds": list(CHOSEN), "thresholds": limits, "min_keep": 0}
    with build_stream({**settings, "filter": rule}) as stream:
        next(iter(stream))
        state = stream.state_dict()
        after = [batch["gt_path"] for _, batch in zip(range(3), stream, strict=False)]
    with build_stream({**settings, "filter": rule}) as stream:
        stream.load_state_dict(state)
        assert [batch["gt_path"] for _, batch in zip(range(3), stream, strict=False)] == after
    other = {**rule, "thresholds": {**limits, "noise": 0.999}}
    with build_stream({**settings, "filter": other}) as stream, pytest.raises(Exception, match="filter"):
        stream.load_state_dict(state)


def test_the_command(shards: str, scores: Path, chances: np.ndarray, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")
    args = ["filter", shards, str(scores), out, "--workers", "1", "--reject-kinds", "noise,compression"]
    assert main([*args, "--threshold", "0.9", "--threshold", "noise=0.2"]) == 0
    expected = (chances[:, 0] <= 0.2) & (chances[:, 1] <= 0.9)
    said = capsys.readouterr().out
    assert f"{expected.sum()} of {COUNT + 1} images kept" in said
    assert "rejected for: " in said
    for wrong in ("2", "noise=", "=0.5", "much"):
        with pytest.raises(SystemExit):
            main([*args, "--threshold", wrong])
    assert main(["filter", shards, str(scores), out, "--reject-kinds", "ugliness"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.4, "reject": 0.1}, "reject_kinds"),
        ({"reject_kinds": ("noise",), "max_logit": 0.0}, "exactly one"),
        ({"reject_kinds": ("noise",), "thresholds": {"blur": 0.5}}, "'blur' is not among"),
        ({"reject_kinds": ("noise",), "reject": 0.1, "threshold": 0.4}, "leave out one"),
        ({"reject_kinds": ("noise",), "by": "contrast"}, "cannot decide"),
        ({"reject_kinds": ()}, "at least 1"),
        ({"reject_kinds": ("noise",), "threshold": 1.5}, "less than or equal to 1"),
    ],
)
def test_rules_that_say_two_things(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CorpusFilterOptions(source=("a",), scores="s", output="o", **options)
    with pytest.raises(ValueError, match=said):
        FilterOptions(scores="s", **options)


def test_scorers_of_one_number_have_no_kinds(shards: str, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "tiny.safetensors")
    with pytest.raises(OptionError, match="tells no kinds apart"):
        streamed(shards, {"weights": weights, "reject_kinds": ["noise"]})


def test_shards_of_folders_serve_too(weights: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.png").write_bytes(png(pixels(number)))
    shards = shard_photos(photos, tmp_path / "hr")
    score(weights, shards, tmp_path / "hr.parquet")
    assert keep(shards, tmp_path / "hr.parquet", tmp_path / "out", reject_kinds=("all",), threshold=1.0).kept == 4
