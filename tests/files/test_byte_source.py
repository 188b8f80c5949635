"""Shards that a command prints, and stamps of files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest

from synthpipe.errors import ShardError
from synthpipe.files import byte_source
from synthpipe.files.byte_source import open_remote, open_source
from synthpipe.files.storage import file_stamp


class TestPipe:
    def test_what_the_command_prints(self) -> None:
        with open_remote("pipe:printf 'one\\ntwo' | tr a-z A-Z") as pipe:
            assert pipe.read() == b"ONE\nTWO"
            assert pipe.read() == b""

    def test_in_pieces(self, tmp_path: Path) -> None:
        data = os.urandom(300_000)
        (tmp_path / "x y.bin").write_bytes(data)
        with open_remote(f"pipe:cat '{tmp_path}/x y.bin'") as pipe:
            assert b"".join(iter(lambda: pipe.read(4096), b"")) == data

    def test_a_command_that_fails(self) -> None:
        with open_remote("pipe:echo x; exit 3") as pipe:
            assert pipe.read(2) == b"x\n"
            with pytest.raises(OSError, match=r"pipe:echo x; exit 3: the command failed with status 3"):
                pipe.read(1)

    def test_a_part_that_is_not_read_to_its_end(self) -> None:
        with open_remote("pipe:(yes; exit 141) | head -c 4; exit 141") as pipe:
            assert pipe.read() == b"y\ny\n"

    def test_a_reader_that_stops_early_does_not_wait(self) -> None:
        begin = time.monotonic()
        with open_remote("pipe:echo x; exec sleep 60") as pipe:
            assert pipe.read(2) == b"x\n"
        assert time.monotonic() - begin < 30

    def test_a_failing_command_is_tried_again_and_then_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(byte_source, "_FIRST_PAUSE", 0.01)
        source = open_source(f"pipe:echo x >> {tmp_path}/tries; exit 5")
        with pytest.raises(OSError, match="failed with status 5"):
            source.read_at(0, 10)
        source.close()
        assert (tmp_path / "tries").read_text() == "x\n" * 3


class TestStamp:
    def test_of_a_local_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(b"one")
        first = file_stamp(str(path))
        assert file_stamp(f"file://{path}") == file_stamp(str(path)) == first
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        second = file_stamp(str(path))
        path.write_bytes(b"other")
        assert len({first, second, file_stamp(str(path))}) == 3

    def test_of_an_object(self) -> None:
        files = fsspec.filesystem("memory")
        try:
            files.pipe_file("/stamp/x.tar", b"one")
            first = file_stamp("memory://stamp/x.tar")
            assert file_stamp("memory://stamp/x.tar") == first
            files.pipe_file("/stamp/x.tar", b"other")
            assert file_stamp("memory://stamp/x.tar") != first
        finally:
            files.rm("/stamp", recursive=True)

    def test_of_what_is_not_there(self, tmp_path: Path) -> None:
        for url in (f"{tmp_path}/x.tar", "memory://nothing/x.tar"):
            with pytest.raises(ShardError, match=r"x\.tar: no such shard"):
                file_stamp(url)
        with pytest.raises(ShardError, match=r"nosuch://x\.tar: cannot be read: .*nosuch"):
            file_stamp("nosuch://x.tar")
