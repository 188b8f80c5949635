"""Shards and members whose names are not UTF-8: every reader takes them, and what is said of them can be written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from synthpipe.cli import main
from synthpipe.pipeline import build_stream
from synthpipe.shards.shard_index import read_index
from synthpipe.shards.tar_walk import walk_samples
from tests.scored_corpus import encoded, score, write_weights
from tests.stream_corpus import write_tar

NAMES = [b"caf\xe9.png", b"\xff/b\xfe.png", b"ok.png"]
SAID = ["caf\\udce9", "\\udcff/b\\udcfe", "ok"]


@pytest.fixture
def shards(tmp_path: Path) -> str:
    folder = tmp_path / os.fsdecode(b"sh\xe9")
    folder.mkdir()
    members = [(os.fsdecode(name), encoded(number, height=64, width=64)) for number, name in enumerate(NAMES)]
    write_tar(folder / os.fsdecode(b"x\xe9.tar"), members)
    return str(folder)


def keys_in(folder: Path) -> list[bytes]:
    found = []
    for url in read_index(folder).urls():
        with open(url, "rb") as file:
            found += [os.fsencode(sample.key) for sample in walk_samples(file)]
    return found


def streamed(shards: str, **more: Any) -> tuple[list[str], dict[str, int]]:
    options = {"shards": shards, "gt_size": 32, "batch_size": 1, "epochs": 1, "pool": 0, **more}
    with build_stream(options) as stream:
        batches = list(stream)
        json.dumps(stream.state_dict()).encode()
        for batch in batches:
            "".join([*batch["key"], *batch["gt_path"]]).encode()
        return sorted(batch["key"][0] for batch in batches), stream.counts()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream(shards: str, workers: int) -> None:
    assert streamed(shards, workers=workers) == (sorted(SAID), {"used": 3})


def test_score_filter_and_the_stream_by_the_table(shards: str, tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    score(write_weights(tmp_path / "tiny.safetensors"), shards, table)
    rows = pq.read_table(table).to_pylist()
    assert [(row["key"], row["error"], row["shard"]) for row in rows] == [(key, None, "x\\udce9.tar") for key in SAID]
    assert streamed(shards, filter={"scores": str(table), "reject": 0.0}) == (sorted(SAID), {"used": 3})
    assert main(["filter", shards, str(table), str(tmp_path / "kept"), "--reject", "0", "--workers", "1"]) == 0
    assert keys_in(tmp_path / "kept") == [name.removesuffix(b".png") for name in NAMES]
    (tmp_path / "kept" / "report.html").read_text(encoding="utf-8")


def test_denoise(shards: str, tmp_path: Path) -> None:
    assert main(["denoise", "blind_spot_small", shards, str(tmp_path / "clean"), "--workers", "1"]) == 0
    assert keys_in(tmp_path / "clean") == [name.removesuffix(b".png") for name in NAMES]
    assert streamed(str(tmp_path / "clean")) == (sorted(SAID), {"used": 3})
