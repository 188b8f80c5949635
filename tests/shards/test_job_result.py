"""What became of a shard: it counts for the next run only while all of it still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from synthpipe.files.storage import OutputFolder
from synthpipe.shards.job_result import (
    CountedResult,
    JobResult,
    broken_images,
    finished_earlier,
    publish_report,
    publish_result,
    read_result,
)
from synthpipe.shards.tar_sink import HashingFile

CONTENT = b"a shard" * 100


@dataclass
class Edited(CountedResult):
    edited: int = 0


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(str(tmp_path / "out"))


def finish(output: OutputFolder, tmp_path: Path, samples: int = 2, source: str | None = "s0") -> Edited:
    result = Edited("the job", samples, source=source, edited=1)
    result.leave_out("too_small")
    result.leave_out("truncated", "a.png", "a.png: ends too early")
    with HashingFile(tmp_path / "unfinished") as file:
        file.write(CONTENT[:99])
        file.write(CONTENT[99:])
    publish_result(result, "x.tar", output, tmp_path, file)
    return result


def test_the_shard_and_its_result_are_published(output: OutputFolder, tmp_path: Path) -> None:
    finish(output, tmp_path)
    assert (tmp_path / "out" / "x.tar").read_bytes() == CONTENT
    assert json.loads((tmp_path / "out" / "_state" / "x.tar.json").read_bytes()) == {
        "name": "the job",
        "samples": 2,
        "bytes": 700,
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "source": "s0",
        "counts": {"too_small": 1, "truncated": 1},
        "broken": [["a.png", "truncated", "a.png: ends too early"]],
        "edited": 1,
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_shard_without_samples_is_no_file(output: OutputFolder, tmp_path: Path) -> None:
    empty = finish(output, tmp_path, samples=0)
    assert (empty.bytes, empty.sha256) == (0, "")
    assert list(tmp_path.rglob("*.tar")) == []
    assert finished_earlier(Edited, "the job", "x.tar", output, source="s0") == empty


@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_it_holds_while_nothing_changes(output: OutputFolder, tmp_path: Path, verify: str) -> None:
    result = finish(output, tmp_path)
    assert finished_earlier(Edited, "the job", "x.tar", output, source="s0", verify=verify) == result  # type: ignore[arg-type]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "by_size"),
    [
        (lambda out: (out / "x.tar").unlink(), None),
        (lambda out: (out / "x.tar").write_bytes(CONTENT + b"+"), None),
        (lambda out: flip(out / "x.tar"), "taken"),
        (lambda out: (out / "_state" / "x.tar.json").unlink(), None),
        (lambda out: (out / "_state" / "x.tar.json").write_bytes(b'{"name": '), None),
        (lambda out: (out / "_state" / "x.tar.json").write_bytes(b"\xff\xfe"), None),
        (lambda out: (out / "_state" / "x.tar.json").write_bytes(b"[1]"), None),
        (
            lambda out: (out / "_state" / "x.tar.json").write_bytes(b'{"name": "the job", "of another version": 1}'),
            None,
        ),
    ],
)
def test_it_holds_no_longer(
    change: Callable[[Path], None], by_size: str | None, output: OutputFolder, tmp_path: Path
) -> None:
    result = finish(output, tmp_path)
    change(tmp_path / "out")
    assert finished_earlier(Edited, "the job", "x.tar", output, source="s0") is None
    found = finished_earlier(Edited, "the job", "x.tar", output, source="s0", verify="size")
    assert found == (result if by_size == "taken" else None)


@pytest.mark.parametrize(("name", "source"), [("another job", "s0"), ("the job", "s1"), ("the job", None)])
def test_it_is_of_this_job_and_this_source(name: str, source: str | None, output: OutputFolder, tmp_path: Path) -> None:
    finish(output, tmp_path)
    assert finished_earlier(Edited, name, "x.tar", output, source=source) is None


def test_a_job_without_a_file(output: OutputFolder, tmp_path: Path) -> None:
    publish_result(JobResult("list", 5), "x.tar", output, tmp_path)
    assert json.loads((tmp_path / "out" / "_state" / "x.tar.json").read_bytes()) == {
        "name": "list", "samples": 5, "bytes": 0, "sha256": "",
    }  # fmt: skip
    assert finished_earlier(JobResult, "list", "x.tar", output) is None
    assert finished_earlier(JobResult, "list", "x.tar", output, verify=None) == JobResult("list", 5)


def test_the_report_lists_what_the_results_say(output: OutputFolder, tmp_path: Path) -> None:
    finish(output, tmp_path)
    rows = list(broken_images(Edited, ["x.tar", "absent.tar"], output))
    assert rows == [("x.tar", "a.png", "truncated", "a.png: ends too early")]
    assert read_result(Edited, "absent.tar", output) is None
    for listed in ([], [{"image": "a"}], [{"image": "a"}, {"image": "é"}]):
        publish_report({"images": 3, "left_out": {"truncated": 1}}, listed, output, tmp_path)
        text = (tmp_path / "out" / "report.json").read_text()
        assert json.loads(text) == {"images": 3, "left_out": {"truncated": 1}, "broken": listed}


@pytest.mark.parametrize(
    "change",
    [
        *({"samples": value} for value in (None, True, "2", 2.0, -1)),
        *({"counts": value} for value in (None, [], 3, {"too_small": "1"}, {"too_small": None})),
        *({"broken": value} for value in (None, {}, 3, [3], [["a"]], [["a", "b", 3]])),
        {"name": 3},
        {"bytes": "700"},
        {"unknown": 1},
    ],
)
def test_a_result_that_someone_has_changed_is_none(
    change: dict[str, object], output: OutputFolder, tmp_path: Path
) -> None:
    finish(output, tmp_path)
    path = tmp_path / "out" / "_state" / "x.tar.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert read_result(Edited, "x.tar", output) is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "", "NaN"])
def test_a_result_that_is_none(text: str, output: OutputFolder, tmp_path: Path) -> None:
    finish(output, tmp_path)
    (tmp_path / "out" / "_state" / "x.tar.json").write_text(text)
    assert read_result(Edited, "x.tar", output) is None
