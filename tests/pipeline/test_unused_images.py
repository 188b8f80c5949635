"""Image files of a shard that no sample uses: counted by every reader, with the rule and the way out."""

from __future__ import annotations

import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from synthpipe.cli import main
from synthpipe.errors import StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.shards.tar_walk import walk_samples
from tests.scored_corpus import encoded, write_weights
from tests.shards.tar_bytes import END, member
from tests.stream_corpus import write_tar


def shard(folder: Path, *names: str) -> Path:
    """Pictures under these names, the first dot of which ends a key; other suffixes are texts."""
    folder.mkdir(exist_ok=True, parents=True)
    members = [
        (name, encoded(number, height=64, width=64) if name.lower().endswith(("png", "jpg")) else b"{}")
        for number, name in enumerate(names)
    ]
    return write_tar(folder / "x.tar", members)


def streamed(shards: Any, **more: Any) -> tuple[int, dict[str, int]]:
    options = {"gt_size": 32, "batch_size": 1, "epochs": 1, "pool": 0, "max_bad_fraction": 1.0}
    with build_stream(options | {"shards": str(shards), **more}) as stream:
        return len(list(stream)), stream.counts()


GOOD = [f"{number}.png" for number in range(4)]
CLIP = [f"clip.{number:03d}.png" for number in range(5)]


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (GOOD, {"used": 4}),
        ([*GOOD, *CLIP], {"used": 4, "missing_image": 1, "unused_image": 5}),
        (["clip.png", *CLIP], {"used": 1, "unused_image": 5}),
        (["a.png", "a.mask.png", "b.png", "b.mask.png"], {"used": 2, "further_image": 2}),
        (["a.png", "a.jpg"], {"used": 1, "further_image": 1}),
        (["a.png", "a.json", "a.cls"], {"used": 1}),
        (["a.seg.png", "a.json", *GOOD], {"used": 4, "missing_image": 1, "unused_image": 1}),
        ([".x.png", *GOOD], {"used": 4, "unused_image": 1}),
        ([*GOOD, "__train__/a.png", "__train__/b.png"], {"used": 4, "unused_image": 2}),
        ([*GOOD, "__MACOSX/._a.png", "._0.png"], {"used": 4, "missing_image": 1}),
        ([CLIP[0], "a.png", CLIP[1]], {"used": 1, "missing_image": 1, "duplicate_key": 1, "unused_image": 2}),
        ([CLIP[0], GOOD[0], *CLIP[1:]], {"used": 1, "missing_image": 1, "duplicate_key": 1, "unused_image": 5}),
    ],
)
def test_a_stream_counts_them(names: list[str], counts: dict[str, int], tmp_path: Path) -> None:
    assert streamed(shard(tmp_path, *names)) == (counts["used"], counts)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_with_any_number_of_readers_in_every_epoch(workers: int, tmp_path: Path) -> None:
    tar = shard(tmp_path, *GOOD, *CLIP, "z.png", "z.1.png")
    emitted, counts = streamed(tar, workers=workers, epochs=2)
    assert (emitted, counts) == (10, {"used": 10, "missing_image": 2, "unused_image": 12})


def test_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        (tmp_path / "a.png").write_bytes(encoded(0, height=64, width=64))
        tar.add(tmp_path / "a.png", "a.png")
        for number, kind in enumerate((tarfile.LNKTYPE, tarfile.SYMTYPE)):
            info = tarfile.TarInfo(f"link{number}.png")
            info.type, info.linkname = kind, "a.png"
            tar.addfile(info)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert streamed(tmp_path / "x.tar") == (1, {"used": 1, "unused_image": 2})


def test_a_shard_of_nothing_else(tmp_path: Path) -> None:
    data = member("a.png", b"", kind=b"2") + member("b.png", b"", kind=b"1") + END
    (tmp_path / "x.tar").write_bytes(data)
    with (tmp_path / "x.tar").open("rb") as file:
        (sample,) = walk_samples(file)
    assert (sample.problem, sample.unused.unused) == ("unreadable_shard", 2)
    assert "no sample: its images are links, hidden" in sample.detail


def test_the_alarm_names_rule_example_and_way_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tar = shard(tmp_path, *GOOD, *CLIP)
    with caplog.at_level(logging.WARNING, "synthpipe"), pytest.raises(StreamError) as caught:
        streamed(tar, max_bad_fraction=0.01)
    for text in (str(caught.value), caplog.text):
        assert "'clip.000.png'" in text
        assert "the first dot" in text
        assert f"`synthpipe shard {tar} OUT`" in text
    assert "unused_image 5" in str(caught.value)


def test_masks_do_not_trip_it(tmp_path: Path) -> None:
    names = [f"{number}.{suffix}" for number in range(6) for suffix in ("jpg", "mask.png")]
    assert streamed(shard(tmp_path, *names), max_bad_fraction=0.0) == (6, {"used": 6, "further_image": 6})


def test_score_filter_and_denoise_count_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = shard(tmp_path, *GOOD, *CLIP, "z.png", "z.mask.png", "z.2.png")
    weights, table = write_weights(tmp_path / "tiny.safetensors"), tmp_path / "t.parquet"
    for _ in range(2):  # the second time by what the first has left
        assert main(["score", weights, str(tar), str(table), "--workers", "1", "--tiles", "1"]) == 0
        out, err = capsys.readouterr()
        assert "5 of 6 images scored" in out
        assert "passed over: 6 unused_image, 1 further_image" in err
        assert "as 'clip.000.png': WebDataset ends the key" in err
    assert pq.read_table(table).num_rows == 6
    assert main(["filter", str(tar), str(table), str(tmp_path / "kept"), "--reject", "0", "--workers", "1"]) == 0
    err = capsys.readouterr().err
    assert "passed over: 6 unused_image, 1 further_image" in err
    assert f"`synthpipe shard {tar} OUT`" in err
    assert main(["denoise", "blind_spot_small", str(tar), str(tmp_path / "clean"), "--workers", "1"]) == 0
    report = json.loads((tmp_path / "clean" / "report.json").read_text())
    assert report["not_edited"] == {"missing_image": 1, "unused_image": 6}
    assert "taken over as they are: 1 further image" in capsys.readouterr().err
    assert any("first dot" in image["message"] and image["image"] == "clip.000.png" for image in report["broken"])


def test_the_way_out(tmp_path: Path) -> None:
    tar = shard(tmp_path, *GOOD, *CLIP)
    assert main(["shard", str(tar), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert streamed(tmp_path / "out", max_bad_fraction=0.0) == (9, {"used": 9})
