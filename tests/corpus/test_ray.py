"""Ray and processes write the same bytes: one test, because starting Ray takes most of its ten seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.filter import filter_corpus
from synthpipe.errors import ShardError
from tests.scored_corpus import everything, score, shard_photos, write_photos, write_weights

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'synthpipe[ray]'")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    except Exception as error:
        # Its own limit of seconds, which nothing can lengthen.
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray did not start in its 30 seconds: the machine is too busy")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_ray_and_processes_write_the_same_bytes(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "tiny.safetensors")
    shards = shard_photos(write_photos(tmp_path / "photos"), tmp_path / "hr")
    for engine in ("local", "ray"):
        scores = tmp_path / engine / "hr.parquet"
        score(weights, shards, scores, engine=engine)
        options = {"source": (shards,), "scores": str(tmp_path / "local" / "hr.parquet"), "reject": 0.4}
        filter_corpus(CorpusFilterOptions(**options, output=str(tmp_path / engine / "kept"), engine=engine))
        assert ray.is_initialized()  # only a cluster of our own is stopped
    local, cluster = everything(tmp_path / "local"), everything(tmp_path / "ray")
    assert cluster == local
    assert "kept/index.json" in local
    # What a task raises is what the caller sees.
    with pytest.raises(ShardError, match=r"nowhere\.tar: no such shard"):
        score(weights, str(tmp_path / "nowhere.tar"), tmp_path / "x.parquet", engine="ray")
