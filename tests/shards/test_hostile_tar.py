"""Tars that mean harm: no header makes a reader crash, hang or take memory, and what is lost is told of."""

from __future__ import annotations

import io
import os
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synthpipe.corpus.image_units import ShardUnit, StoredImage
from synthpipe.errors import ImageError, ShardError
from synthpipe.shards.sample_note import LARGEST_NOTE
from synthpipe.shards.shard_reader import ShardReader
from synthpipe.shards.tar_header import LARGEST_FILE, LONGEST_EXTENSION
from synthpipe.shards.tar_walk import LARGEST_IMAGE, LONGEST_NAME, TarSample, walk_samples
from tests.shards.tar_bytes import END, member, pax_record

GOOD = [member(f"{number}.png", bytes([number]) * 700) for number in range(3)]


def samples_of(*parts: bytes) -> list[TarSample]:
    return list(walk_samples(io.BytesIO(b"".join(parts) + END)))


def problems(*parts: bytes) -> list[tuple[str, str | None]]:
    return [(sample.key, sample.problem) for sample in samples_of(*parts)]


def stored(path: Path) -> list[StoredImage]:
    with ShardUnit("x", str(path)).open() as (_, images):
        return list(images)


@contextmanager
def within_memory(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@contextmanager
def within_seconds(limit: int) -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise TimeoutError(f"not done after {limit} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class TestLoss:
    @pytest.mark.parametrize("garbage", [512, 2048, 70_000])
    def test_the_bytes_behind_damage_are_counted(self, garbage: int, tmp_path: Path) -> None:
        lost = os.urandom(garbage) + GOOD[2] + END
        path = tmp_path / "x.tar"
        path.write_bytes(GOOD[0] + GOOD[1] + lost)
        where = f"damaged at byte {len(GOOD[0] + GOOD[1])}: "
        reader = ShardReader(str(path))
        with pytest.raises(ImageError, match=f"{where}.*; {len(lost)} bytes from there on are not read") as caught:
            reader.read(2)
        reader.close()
        assert caught.value.reason == "truncated_shard"
        assert [image.problem for image in stored(path)] == [None, None, "truncated_shard"]

    def test_of_a_shard_under_way(self, tmp_path: Path) -> None:
        lost = os.urandom(1024) + GOOD[2] + END
        (tmp_path / "x.tar").write_bytes(GOOD[0] + lost)
        reader = ShardReader(f"pipe:cat {tmp_path}/x.tar")
        with pytest.raises(ImageError, match=f"; {len(lost)} bytes from there on are not read"):
            reader.read(1)
        reader.close()


class TestSizes:
    def test_by_a_pax_record_larger_than_the_file(self) -> None:
        for size, reason in ((b"9" * 18, "ends within"), (b"9" * 19, "LARGEST_FILE"), (b"-1", "valid size")):
            header = member("p", pax_record(b"size", size), kind=b"x")
            found = samples_of(GOOD[0], header, GOOD[1])
            assert found[0].problem is None
            assert found[-1].problem == "truncated_shard"
            assert reason in found[-1].detail

    def test_limits_are_named(self) -> None:
        detail = samples_of(member("a.png", b"", b"\x80" + (LARGEST_FILE + 1).to_bytes(11, "big")))[-1].detail
        assert f"{LARGEST_FILE + 1} bytes, more than LARGEST_FILE ({LARGEST_FILE})" in detail
        detail = samples_of(member("a.png", b"", b"%011o\0" % (LONGEST_EXTENSION + 1), b"L"))[-1].detail
        assert f"{LONGEST_EXTENSION + 1} bytes, more than LONGEST_EXTENSION ({LONGEST_EXTENSION})" in detail

    def test_an_image_of_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        """A hole on the disk: the file has the size that the header tells, and hardly any bytes."""
        path = tmp_path / "x.tar"
        size = LARGEST_IMAGE + 512
        path.write_bytes(member("big.png", b"", b"%011o\0" % size))
        with path.open("rb+") as file:
            file.truncate(512 + size)
            file.seek(0, os.SEEK_END)
            file.write(GOOD[0] + END)
        reader = ShardReader(str(path))
        with within_memory(1 << 20):
            with pytest.raises(ImageError, match=rf"LARGEST_IMAGE \({LARGEST_IMAGE}\)") as caught:
                reader.read(0)
            assert reader.read(1)[0].key == "0"
            assert [(image.key, image.problem) for image in stored(path)] == [("big", "too_large"), ("0", None)]
        reader.close()
        assert caught.value.reason == "too_large"

    @pytest.mark.parametrize("names", [("a.png", "a.json"), ("a.png", "a.png", "a.json"), ("0.png", "0.json")])
    def test_a_note_of_gigabytes_is_not_read(self, names: tuple[str, ...], tmp_path: Path) -> None:
        parts = [member(name, b"x") for name in names[:-1]]
        path = tmp_path / "x.tar"
        path.write_bytes(b"".join([*GOOD, *parts, member(names[-1], b"{}", b"77777777777\0")]))
        with within_memory(1 << 20):
            found = stored(path)
        assert found[-1].problem == "truncated_shard"
        assert [image.problem for image in found[:3]] == [None] * 3

    @pytest.mark.parametrize(
        "note", [b"[" * 200_000, b"{" * 10, b"1e999", b"9" * 5000, b" " * (LARGEST_NOTE + 1), b"\xff"]
    )
    def test_notes_of_any_form(self, note: bytes, tmp_path: Path) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(member("a.png", b"x") + member("a.json", note) + END)
        assert [(image.key, image.origin, image.problem) for image in stored(path)] == [("a", "a.png", None)]


class TestNames:
    def test_of_a_million_characters(self) -> None:
        """WebDataset's rule takes the square of the length; such a name is passed by and its image counted."""
        for name in (b"/" * 1_000_000, b"a/" * 500_000 + b"b.png", b"x" * LONGEST_NAME + b".png"):
            for header in (member("L", name, kind=b"L"), member("p", pax_record(b"path", name), kind=b"x")):
                with within_seconds(5):
                    found = samples_of(GOOD[0], header, member("s.png", b"x"), GOOD[1])
                assert [(s.key, s.problem) for s in found] == [("0", None), ("1", None)]
                assert found[0].unused.unused == (1 if name.endswith(b".png") else 0)

    def test_with_a_zero_byte(self) -> None:
        header = member("p", pax_record(b"path", b"a\0b.png"), kind=b"x")
        assert problems(header, member("x", b"1"), GOOD[0]) == [("a\0b", "unsafe_name"), ("0", None)]

    @pytest.mark.parametrize("name", [b"", b"\0\0.png", b"\xff\xfe", b".png"])
    def test_of_nothing(self, name: bytes) -> None:
        assert problems(GOOD[0], member(name, b"x" * 700), GOOD[1]) == [("0", None), ("1", None)]

    def test_that_are_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(member(b"caf\xe9.png", b"") + END)
        reader = ShardReader(str(path))
        assert os.fsencode(reader.read(0)[0].name) == b"caf\xe9.png"
        reader.close()
        path.write_bytes(member(b"caf\xe9.png", b"", kind=b"S") + END)
        reader = ShardReader(str(path))
        with pytest.raises(ImageError, match="sparse") as caught:
            reader.read(0)
        reader.close()
        str(caught.value).encode()


class TestRecords:
    @pytest.mark.parametrize("kind", [b"x", b"g"])
    def test_what_does_not_matter_is_not_held(self, kind: bytes) -> None:
        """Sixteen megabytes of records under as many names."""
        block = [b"".join(pax_record(b"k%d" % (i + 10_000 * n), b"v" * 90) for i in range(9000)) for n in range(16)]
        headers = b"".join(member("p", records, kind=kind) for records in block)
        data = headers + GOOD[0] + END
        with within_memory(6 << 20):  # of which one header takes two
            assert [sample.problem for sample in walk_samples(io.BytesIO(data))] == [None]

    @pytest.mark.parametrize(
        "record",
        [
            (b"GNU.sparse.size", b"abc"),
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.map", b"0,1,2"),
            (b"GNU.sparse.name", b"y.png"),
        ],
    )
    @pytest.mark.parametrize("kind", [b"x", b"g"])
    def test_of_sparse_files(self, record: tuple[bytes, bytes], kind: bytes) -> None:
        found = problems(GOOD[0], member("p", pax_record(*record), kind=kind), member("e.png", b"x"))
        assert found == [("0", None), ("y" if record[0].endswith(b"name") else "e", "sparse_file")]

    def test_records_for_all_within_others(self) -> None:
        """The last word is the member's own; an empty value gives the header's back."""
        shared, own = member("g", pax_record(b"path", b"shared.png"), kind=b"g"), pax_record(b"path", b"own.png")
        assert problems(member("x", own, kind=b"x"), shared, GOOD[0]) == [("own", None)]
        empty = member("x", pax_record(b"path", b""), kind=b"x")
        assert problems(shared, empty, GOOD[0], shared, shared, GOOD[1]) == [("0", None), ("shared", None)]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_a_shard_that_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.symlink("/dev/zero", path)
    with within_seconds(20):
        with pytest.raises(ImageError, match="expected a regular file") as caught:
            ShardReader(str(path)).read(0)
        with pytest.raises(ShardError, match="no regular file"):
            stored(path)
    assert caught.value.reason == "unreadable_shard"
