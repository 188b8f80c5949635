"""Folders that an earlier version wrote are recognised as finished, continued, and refused to other options.

``golden/output_folders_433fa2b.tar.xz`` was written by the code of commit 433fa2b, with the options that stand in
:data:`SHARD`, :data:`RULE` and :class:`Invert`: seven pictures, a cut one and one that is none; their shards, the table
of a tiny scorer, the kept shards and the edited ones.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.config.shard import ShardOptions
from synthpipe.corpus.edit import edit_corpus
from synthpipe.corpus.filter import filter_corpus
from synthpipe.corpus.image_units import ShardUnit, find_units
from synthpipe.corpus.shard_edit import Pixels
from synthpipe.errors import ShardError
from synthpipe.files.original import Original
from synthpipe.shards import shard_writer
from synthpipe.shards.pack import write_shards
from synthpipe.shards.tar_sink import TarSink
from tests.scored_corpus import everything

GOLDEN = Path(__file__).parents[1] / "golden" / "output_folders_433fa2b.tar.xz"
SHARD: dict[str, Any] = {"max_samples": 3, "seed": 1}
RULE: dict[str, Any] = {"reject": 0.4}


class Invert:
    """Every image to its negative."""

    def __init__(self, peak: int = 255) -> None:
        self.peak = peak

    def identity(self) -> dict[str, Any]:
        return {"invert": {"peak": self.peak}}

    def open(self) -> Callable[[Original], Pixels]:
        return lambda page: (255 - page.color, page.alpha)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def shard(folders: Path, **changes: Any) -> None:
    settings = {"inputs": (str(folders / "photos"),), "output": str(folders / "hr")} | SHARD | changes
    write_shards(ShardOptions(**settings))


def keep(folders: Path, **changes: Any) -> None:
    places = {"source": (str(folders / "hr"),), "scores": str(folders / "hr.parquet"), "output": str(folders / "kept")}
    filter_corpus(CorpusFilterOptions(**places, **RULE | changes))


def edit(folders: Path, peak: int = 255) -> None:
    units = [unit for unit in find_units([str(folders / "hr")]) if isinstance(unit, ShardUnit)]
    edit_corpus(units, Invert(peak), str(folders / "inverted"), broken="copy")


RUNS: list[tuple[str, Callable[[Path], None]]] = [("hr", shard), ("kept", keep), ("inverted", edit)]


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_what_is_finished_is_not_done_again(
    name: str, run: Callable[[Path], None], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(folders / name)
    assert "_state/shard-000002.tar.json" in before
    monkeypatch.setattr(shard_writer, "decode_image", lambda *args, **options: pytest.fail("read again"))
    monkeypatch.setattr(TarSink, "__init__", lambda *args: pytest.fail("written again"))
    run(folders)
    after = everything(folders / name)
    # Laid out otherwise since then.
    reports = [json.loads(files.pop("report.json")) for files in (before, after)]
    for key, nothing in {"given_up": {}, "wrong_suffix": 0, "examples": {}}.items():  # not counted then
        assert reports[1].pop(key, nothing) == nothing
    assert reports[0] == reports[1]
    assert after == before


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_what_is_not_is_finished(name: str, run: Callable[[Path], None], folders: Path) -> None:
    whole = everything(folders / name)
    out = folders / name
    for lost in ("index.json", "report.json", "shard-000001.tar", "_state/shard-000001.tar.json"):
        # Of the second shard nothing was kept, so that there is no file.
        (out / lost).unlink(missing_ok=name == "kept")
    (out / "shard-000002.tar").write_bytes(b"damaged")
    run(folders)
    found = everything(out)
    assert found.keys() == whole.keys()
    assert found["_state/plan.json"] == whole["_state/plan.json"]
    assert found["shard-000000.tar"] == whole["shard-000000.tar"]
    for shard_name in found.keys() & {"shard-000001.tar", "shard-000002.tar"}:
        # Not the bytes: another version of zlib may pack the edited pictures otherwise.
        np.testing.assert_equal(contents(found[shard_name]), contents(whole[shard_name]))


def contents(tar_bytes: bytes) -> dict[str, Any]:
    """Pixels of the pictures by name; of anything else the keys of its JSON."""
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            data = file.read()
            found[member.name] = sorted(json.loads(data)) if member.name.endswith("json") else pixels(data)
    return found


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("name", "run", "said"),
    [
        (
            "hr",
            lambda folders: shard(folders, max_samples=4, min_size=9),
            r"max_samples was 3, is 4; min_size was 0, is 9",
        ),
        ("kept", lambda folders: keep(folders, reject=0.5, seed=3), r"reject was 0\.4, is 0\.5; seed was 0, is 3"),
        ("inverted", lambda folders: edit(folders, peak=7), r"invert\.peak was 255, is 7"),
        ("inverted", lambda folders: filter_into(folders, "inverted"), "begun by another command or version"),
        ("kept", lambda folders: shard(folders, output=str(folders / "kept")), "begun by another command or version"),
    ],
)
def test_other_options_are_refused(name: str, run: Callable[[Path], None], said: str, folders: Path) -> None:
    before = everything(folders / name)
    with pytest.raises(ShardError, match=f"{said}.* name another output folder, or empty this one"):
        run(folders)
    assert everything(folders / name) == before


def filter_into(folders: Path, name: str) -> None:
    places = {"source": (str(folders / "hr"),), "scores": str(folders / "hr.parquet"), "output": str(folders / name)}
    filter_corpus(CorpusFilterOptions(**places, **RULE))
