"""Files that appear whole: long names, no leftovers, what stood there before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from synthpipe.files.whole_file import check_file_is_writable, check_folder_is_writable, write_whole


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


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check_folder_is_writable(tmp_path / "a" / "b")
    check_file_is_writable(tmp_path / "a" / "b.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("dangling", "dangling' is a link that leads nowhere"),
        ("dangling/below", "dangling' is a link that leads nowhere"),
        ("/proc/below", "No such file or directory"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for check, path in ((check_folder_is_writable, place), (check_file_is_writable, f"{place}/a.txt")):
        with pytest.raises(OSError, match=said) as caught:
            check(tmp_path / path)
        assert str(caught.value.filename).startswith(str(tmp_path / place))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        check_file_is_writable(tmp_path)


def test_a_full_or_read_only_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match="Read-only file system") as caught:
        check_folder_is_writable(tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out")
