"""Files that appear whole: long names, no leftovers, what stood there before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from synthpipe.files.whole_file import write_whole


def test_a_name_of_255_bytes_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("é" * 125 + "x.png")
    assert len(os.fsencode(path.name)) == 255
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_name_of_256_bytes_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 252 + ".png")
    with pytest.raises(OSError, match="too long") as caught:
        write_whole(path, b"data")
    assert caught.value.errno == errno.ENAMETOOLONG
    assert caught.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_what_was_there_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
